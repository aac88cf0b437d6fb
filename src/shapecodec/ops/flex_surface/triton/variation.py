"""Total variation over corners in Triton: the next and the previous corner are found through the voxels that share them."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from shapecodec.ops.flex_surface.corners import Corners


@triton.jit
def _beside(
    index: tl.tensor, incident: tl.tensor, c: tl.tensor, live: tl.tensor, BIT: tl.constexpr, BACK: tl.constexpr
) -> tl.tensor:
    """Row of the next (BACK: the previous) corner along the axis of that bit of a slot, -1 where no voxel has the edge."""
    found = tl.zeros_like(c) - 1
    for s in tl.static_range(8):
        if ((s // BIT) % 2 == 1) == BACK:
            voxel = tl.load(incident + c * 8 + s, mask=live & (found < 0), other=-1).to(tl.int64)
            row = tl.load(index + voxel * 8 + (s - BIT if BACK else s + BIT), mask=voxel >= 0, other=-1)
            found = tl.where(voxel >= 0, row, found)
    return found


@triton.jit(do_not_specialize=["count"])
def corner_lengths(
    values: tl.tensor, index: tl.tensor, incident: tl.tensor, lengths: tl.tensor, epsilon: tl.tensor, count: tl.tensor,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """sqrt(epsilon + the squared differences to the next corners) (C, D)."""
    c = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = c < count
    after = _beside(index, incident, c, live, 4, False)
    beside = _beside(index, incident, c, live, 2, False)
    above = _beside(index, incident, c, live, 1, False)
    least = tl.load(epsilon)
    for k in tl.static_range(CHANNELS):
        own = tl.load(values + c * CHANNELS + k, mask=live, other=0.0)
        x = tl.where(after >= 0, tl.load(values + after * CHANNELS + k, mask=after >= 0, other=0.0) - own, 0.0)
        y = tl.where(beside >= 0, tl.load(values + beside * CHANNELS + k, mask=beside >= 0, other=0.0) - own, 0.0)
        z = tl.where(above >= 0, tl.load(values + above * CHANNELS + k, mask=above >= 0, other=0.0) - own, 0.0)
        tl.store(lengths + c * CHANNELS + k, tl.sqrt(x * x + y * y + z * z + least), mask=live)


@triton.jit(do_not_specialize=["count"])
def length_gradients(
    values: tl.tensor, index: tl.tensor, incident: tl.tensor, lengths: tl.tensor, grad: tl.tensor, out: tl.tensor,
    count: tl.tensor, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Slopes (C, D): from a corner's own length, and from those of the three before it."""
    c = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = c < count
    scale = tl.load(grad)
    for k in tl.static_range(CHANNELS):
        own = tl.load(values + c * CHANNELS + k, mask=live, other=0.0)
        length = tl.load(lengths + c * CHANNELS + k, mask=live, other=1.0)
        slope = tl.zeros_like(own)
        for axis in tl.static_range(3):
            row = _beside(index, incident, c, live, 4 >> axis, False)
            other = tl.load(values + row * CHANNELS + k, mask=row >= 0, other=0.0)
            slope += tl.where(row >= 0, own - other, 0.0) / length
            row = _beside(index, incident, c, live, 4 >> axis, True)
            other = tl.load(values + row * CHANNELS + k, mask=row >= 0, other=0.0)
            slope += tl.where(row >= 0, own - other, 0.0) / tl.load(
                lengths + row * CHANNELS + k, mask=row >= 0, other=1.0
            )
        tl.store(out + c * CHANNELS + k, slope * scale, mask=live)


def _programs(count: int, values: Tensor) -> tuple[tuple[int], int]:
    block = 256 if values.is_cuda else 1024  # the interpreter pays for programs
    return (triton.cdiv(count, block),), block


class SummedLengths(torch.autograd.Function):
    """Sum over corners of sqrt(square + epsilon) - sqrt(epsilon), for contiguous values (C, D)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, corners: Corners, epsilon: float) -> Tensor:
        """Needs at least one corner."""
        lengths = torch.empty_like(values)
        programs, block = _programs(len(values), values)
        corner_lengths[programs](
            values, corners.index, corners.incident, lengths, values.new_full((1,), epsilon), len(values),
            CHANNELS=values.shape[1], BLOCK=block,
        )  # fmt: skip
        ctx.save_for_backward(values, lengths)
        ctx.corners = corners
        return (lengths - epsilon**0.5).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The slope of the values, gathered."""
        values, lengths = ctx.saved_tensors
        out = torch.empty_like(values)
        programs, block = _programs(len(values), values)
        length_gradients[programs](
            values, ctx.corners.index, ctx.corners.incident, lengths, grads[0].contiguous(), out, len(values),
            CHANNELS=values.shape[1], BLOCK=block,
        )  # fmt: skip
        return out, None, None
