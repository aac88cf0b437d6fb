"""Diffusion as EDM formulates it (Karras et al. 2022, arXiv 2206.00364): preconditioning, loss, deterministic sampler."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.generate.guidance import Guidance, Network, check_steps
from shapecodec.generate.sets import Sets


@dataclass(frozen=True)
class Edm:
    """The constants of EDM's Table 1.

    Args:
        mean: P_mean of ln(sigma) in training.
        std: P_std of ln(sigma) in training.
        data: sigma_data, the standard deviation of the tokens: 1 for standardised latents (LaGeM, section 3.2).
        least: sigma_min, where sampling ends.
        most: sigma_max, where it begins.
        rho: exponent of the sampler's levels: larger ones take shorter steps near `least`.

    Raises:
        BadArgument: a constant outside its range.
    """

    mean: float = -1.2
    std: float = 1.2
    data: float = 1.0
    least: float = 0.002
    most: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if not 0 < self.least < self.most or min(self.std, self.data, self.rho) <= 0:
            raise BadArgument(f"{self}: std, data and rho are positive, least is below most.", where="Edm")

    def times(self, normal: Tensor) -> Tensor:
        """sigma (B,) with ln(sigma) ~ N(mean, std^2) (Table 1, training)."""
        return (self.mean + self.std * normal).exp()

    def denoise(self, network: Network, x: Tensor, sigma: Tensor, sets: Sets) -> Tensor:
        """D(x; sigma), the expected clean tokens (eq. 7).

        Args:
            network: F, asked with tokens of unit variance and ln(sigma) / 4.
            x: tokens with noise of standard deviation sigma.
            sigma: (B,).
            sets: of the tokens.
        """
        skip, out, scale, label = self.coefficients(sigma)
        answer = network(sets.spread(scale) * x, label)
        return sets.spread(skip) * x + sets.spread(out) * answer.float()  # eq. 7

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """c_skip, c_out, c_in and c_noise (Table 1, network and preconditioning), each (B,)."""
        total = sigma.square() + self.data**2
        return self.data**2 / total, sigma * self.data / total.sqrt(), 1 / total.sqrt(), sigma.log() / 4

    def loss(self, network: Network, clean: Tensor, noise: Tensor, times: Tensor, sets: Sets) -> Tensor:
        """lambda(sigma) |D(clean + sigma noise; sigma) - clean|^2, mean over a shape's tokens, (B,) (eqs. 2 and 8).

        With lambda = 1 / c_out^2 a network that answers 0 has a loss of about 1 at every sigma (eq. 8's effective weight).
        """
        denoised = self.denoise(network, clean + sets.spread(times) * noise, times, sets)
        weight = (times.square() + self.data**2) / (times * self.data).square()  # Table 1, loss weighting
        return weight * sets.mean((denoised - clean).square())

    def levels(self, steps: int) -> list[float]:
        """The `steps` + 1 noise levels of the sampler, from `most` to `least` and then 0 (eq. 5)."""
        check_steps(steps)
        if steps == 1:
            return [self.most, 0.0]
        ends = self.most ** (1 / self.rho), self.least ** (1 / self.rho)
        return [(ends[0] + i / (steps - 1) * (ends[1] - ends[0])) ** self.rho for i in range(steps)] + [0.0]

    def evaluations(self, steps: int) -> int:
        """See `Process.evaluations`: two a step, but one for the last."""
        return 2 * steps - 1

    @torch.no_grad()
    def sample(
        self,
        network: Network,
        noise: Tensor,
        sets: Sets,
        *,
        steps: int = 18,
        guidance: Guidance | None = None,
        without: Network | None = None,
        progress: Callable[[], None] | None = None,
    ) -> Tensor:
        """Heun's method along dx/dsigma = (x - D) / sigma (algorithm 1 with S_churn = 0); see `Process.sample`.

        The state is float64, as in the authors' code: the first steps subtract numbers of 80 from each other.
        """
        guide = guidance or Guidance()
        x = noise.double() * self.most

        def slope(x: Tensor, level: float) -> Tensor:
            """(x - D(x; level)) / level (eq. 3 with sigma(t) = t)."""
            sigma = torch.full((sets.count(noise),), level, dtype=torch.float32, device=noise.device)

            def answer(which: Network) -> Tensor:
                return self.denoise(which, x.float(), sigma, sets)

            denoised = guide.combined(answer, network, without, level)
            if progress is not None:
                progress()
            return (x - denoised) / level

        levels = self.levels(steps)
        for here, there in pairwise(levels):
            first = slope(x, here)
            guess = x + (there - here) * first
            if there == 0:  # the slope is not defined at 0: the last step is Euler's
                x = guess
            else:
                x = x + (there - here) * (first + slope(guess, there)) / 2
        return x.float()
