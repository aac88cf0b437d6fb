"""Gradients of the halo for every fast path: each operation's adjoint is the other one, again a gather, so no atomics.

gather_halo^T = sum of `collect`; pad_average^T = `divide_by_cover` followed by `gather` with fill 0.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Primitives(Protocol):
    """What a backend module offers; `reference` says what each does."""

    def gather(self, values: Tensor, neighbours: Tensor, pad: int, fill: float) -> Tensor: ...  # noqa: D102

    def collect(self, values: Tensor, neighbours: Tensor, pad: int, mean: bool) -> Tensor: ...  # noqa: D102

    def divide_by_cover(self, values: Tensor, neighbours: Tensor, pad: int) -> Tensor: ...  # noqa: D102


class GatherHalo(torch.autograd.Function):
    """`gather` of a backend, differentiable in `values`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, neighbours: Tensor, pad: int, fill: float, primitives: Primitives) -> Tensor:
        """values (L, 8, 8, 8) -> (L, S, S, S)."""
        ctx.save_for_backward(neighbours)
        ctx.pad, ctx.primitives, ctx.dtype = pad, primitives, values.dtype
        return primitives.gather(values, neighbours, pad, fill)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient (L, S, S, S) summed over the padded blocks that read each voxel."""
        grad = ctx.primitives.collect(grads[0], ctx.saved_tensors[0], ctx.pad, mean=False)
        return grad.to(ctx.dtype), None, None, None, None


class PadAverage(torch.autograd.Function):
    """`collect` of a backend as a mean, differentiable in `values`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, neighbours: Tensor, pad: int, primitives: Primitives) -> Tensor:
        """values (L, S, S, S) -> (L, 8, 8, 8) float32."""
        ctx.save_for_backward(neighbours)
        ctx.pad, ctx.primitives, ctx.dtype = pad, primitives, values.dtype
        return primitives.collect(values, neighbours, pad, mean=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient (L, 8, 8, 8) shared among the padded blocks that were averaged."""
        neighbours = ctx.saved_tensors[0]
        shared = ctx.primitives.divide_by_cover(grads[0], neighbours, ctx.pad)
        return ctx.primitives.gather(shared, neighbours, ctx.pad, 0.0).to(ctx.dtype), None, None, None
