"""Classifier-free guidance (Ho and Salimans 2022, eq. 6) within an interval of noise (Kynkaanniemi et al. 2024, eq. 5)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.generate.sets import Sets

Network = Callable[[Tensor, Tensor], Tensor]  # tokens and their noise label (B,), one a shape -> tokens


@dataclass(frozen=True)
class Guidance:
    """How far beyond the condition a sampler goes.

    Args:
        scale: 1 follows the condition as learnt and asks `without` nothing; 2 goes twice as far from the unconditional answer.
        interval: of the noise in which it goes there, as the process counts it: sigma for EDM, t for flow. Outside, scale is 1.

    Raises:
        BadArgument: a negative scale, or an interval that ends before it begins.
    """

    scale: float = 1.0
    interval: tuple[float, float] = (0.0, float("inf"))

    def __post_init__(self) -> None:
        if not 0 <= self.scale < float("inf") or not self.interval[0] <= self.interval[1]:
            raise BadArgument(
                f"scale {self.scale} in {self.interval}.", where="guidance", hint="--guidance 1 to 5, low before high."
            )

    def combined(
        self, answer: Callable[[Network], Tensor], network: Network, without: Network | None, level: float
    ) -> Tensor:
        """What `answer` gives of the network at noise `level`, guided away from what it gives of `without`."""
        with_condition = answer(network)
        if without is None or self.scale == 1 or not self.interval[0] <= level <= self.interval[1]:
            return with_condition
        base = answer(without)
        return base + self.scale * (with_condition - base)


class Process(Protocol):
    """What EDM and rectified flow have in common: three functions."""

    def times(self, normal: Tensor) -> Tensor:
        """Noise levels of a training batch (B,) from unit normal numbers (B,)."""
        ...

    def loss(self, network: Network, clean: Tensor, noise: Tensor, times: Tensor, sets: Sets) -> Tensor:
        """Weighted squared error (B,) of the network on `clean` tokens with `noise` added at `times` (B,)."""
        ...

    def sample(
        self,
        network: Network,
        noise: Tensor,
        sets: Sets,
        *,
        steps: int,
        guidance: Guidance | None = None,
        without: Network | None = None,
        progress: Callable[[], None] | None = None,
    ) -> Tensor:
        """Tokens like `noise` (unit normal), float32, by a deterministic solver of `steps` steps.

        `without` is the unconditional network that `guidance` needs; `progress` is called after each evaluation.
        """
        ...

    def evaluations(self, steps: int) -> int:
        """How often `sample` asks for the answer, and calls `progress`."""
        ...


def check_steps(steps: int) -> None:
    """Refuse a solver without steps."""
    if steps < 1:
        raise BadArgument(f"{steps} steps.", where="sample", hint="--steps 18.")
