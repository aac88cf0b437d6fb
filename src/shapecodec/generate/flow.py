"""Rectified flow (Liu et al. 2022, arXiv 2209.03003) with the times and the time shift of Esser et al. 2024 (arXiv 2403.03206)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.generate.guidance import Guidance, Network, check_steps
from shapecodec.generate.sets import Sets


@dataclass(frozen=True)
class Flow:
    """Straight lines from tokens (t = 0) to noise (t = 1), and a network that answers their direction.

    Args:
        mean: of logit(t) in training.
        std: of logit(t) in training.
        shift: k of the sampler's times k t / (1 + (k - 1) t): above 1 more of the steps are spent near the noise.
        solver: `euler` asks once a step, `heun` twice.

    Raises:
        BadArgument: a constant outside its range.
    """

    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0
    solver: Literal["euler", "heun"] = "euler"

    def __post_init__(self) -> None:
        if self.std <= 0 or self.shift <= 0 or self.solver not in ("euler", "heun"):
            raise BadArgument(f"{self}: std and shift are positive, the solver is euler or heun.", where="Flow")

    def times(self, normal: Tensor) -> Tensor:
        """t (B,) in (0, 1) with logit(t) ~ N(mean, std^2) (Esser et al., eq. 19)."""
        return torch.sigmoid(self.mean + self.std * normal)

    def loss(self, network: Network, clean: Tensor, noise: Tensor, times: Tensor, sets: Sets) -> Tensor:
        """|v(x_t, t) - (noise - clean)|^2, mean over a shape's tokens, (B,) (Liu et al., eq. 1, with t counted from the tokens)."""
        t = sets.spread(times)
        answer = network((1 - t) * clean + t * noise, times)
        return sets.mean((answer.float() - (noise - clean)).square())

    def levels(self, steps: int) -> list[float]:
        """The `steps` + 1 times of the sampler, from 1 to 0, shifted (Esser et al., eq. 23)."""
        check_steps(steps)
        even = [1 - i / steps for i in range(steps + 1)]
        return [self.shift * t / (1 + (self.shift - 1) * t) for t in even]

    def evaluations(self, steps: int) -> int:
        """See `Process.evaluations`; Heun's last step is Euler's."""
        return steps if self.solver == "euler" else 2 * steps - 1

    @torch.no_grad()
    def sample(
        self,
        network: Network,
        noise: Tensor,
        sets: Sets,
        *,
        steps: int = 25,
        guidance: Guidance | None = None,
        without: Network | None = None,
        progress: Callable[[], None] | None = None,
    ) -> Tensor:
        """Along dx/dt = v(x, t) from t = 1 to 0; see `Process.sample`."""
        guide = guidance or Guidance()
        x = noise.double()

        def slope(x: Tensor, level: float) -> Tensor:
            times = torch.full((sets.count(noise),), level, dtype=torch.float32, device=noise.device)
            velocity = guide.combined(lambda which: which(x.float(), times).float(), network, without, level)
            if progress is not None:
                progress()
            return velocity.double()

        levels = self.levels(steps)
        for here, there in pairwise(levels):
            first = slope(x, here)
            guess = x + (there - here) * first
            if self.solver == "euler" or there == 0:
                x = guess
            else:
                x = x + (there - here) * (first + slope(guess, there)) / 2
        return x.float()
