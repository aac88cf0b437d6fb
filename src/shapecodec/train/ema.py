"""Power-function averages of the weights (Karras et al. 2024, arXiv 2312.02696, section 3.1 and algorithm 2).

After t steps the average weighs the weights of step i by (i^(g+1) - (i-1)^(g+1)) / t^(g+1). Its width is a fraction of
the run so far, so it needs no half-life that fits the run's length, forgets the start and works at any stopping point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from shapecodec.errors import BadArgument


def power_exponent(width: float) -> float:
    """Exponent g whose averaging profile has standard deviation `width`, in units of the time trained so far.

    Largest root of g^3 + 7 g^2 + (16 - w^-2) g + 12 - w^-2 (arXiv 2312.02696 algorithm 2): 6.94 at 0.10, 16.97 at 0.05.
    """
    if not 0 < width < 12**-0.5:  # g = 0, the plain mean of all steps, has width 12^-0.5
        raise BadArgument(f"width {width} is outside (0, 0.288).", where="ema_widths", hint="0.05 or 0.10.")
    return float(np.roots([1, 7, 16 - width**-2, 12 - width**-2]).real.max())


class Ema:
    """Averages of the trainable parameters of `module`; buffers and frozen parameters are taken as they are.

    Args:
        module: the module that is trained; it must already be on its device.
        widths: one average each, see `power_exponent`.
    """

    def __init__(self, module: nn.Module, widths: Sequence[float]) -> None:
        self.module = module
        self.exponents = {width: power_exponent(width) for width in widths}
        self._trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._averages = {width: [p.detach().clone() for p in self._trained.values()] for width in widths}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step `step`, counted from 1."""
        weights = [p.detach() for p in self._trained.values()]
        for width, averages in self._averages.items():
            # arXiv 2312.02696 eq. 4: beta_t = (1 - 1/t)^(g+1)
            torch._foreach_lerp_(averages, weights, 1 - (1 - 1 / step) ** (self.exponents[width] + 1))

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The module carries the first average inside the block, its own weights again after it."""
        widths = list(self.exponents)[:1]
        for width in widths:
            self._swap(width)
        try:
            yield
        finally:
            for width in widths:
                self._swap(width)

    def _swap(self, width: float) -> None:
        for parameter, average in zip(self._trained.values(), self._averages[width], strict=True):
            parameter.data, average.data = average.data, parameter.data

    def state_dict(self, width: float) -> dict[str, Tensor]:
        """A complete state of the module with this average in place of its weights."""
        return {**self.module.state_dict(), **dict(zip(self._trained, self._averages[width], strict=True))}

    @torch.no_grad()
    def load_state_dict(self, width: float, state: dict[str, Tensor]) -> None:
        """Continue from what `state_dict` gave."""
        for name, average in zip(self._trained, self._averages[width], strict=True):
            average.copy_(state[name])
