"""Shared corners in Triton: each belongs to the first of its up to 8 voxels, so none is met twice and only C keys are sorted.

Means of predictions and their gradient are gathered, by corners and by voxels: each value is read once, no sum is atomic.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from shapecodec.grid import SparseGrid
from shapecodec.ops.neighbour_table import neighbour_table


@triton.jit
def _owner(neighbours: tl.tensor, n: tl.tensor, s: tl.tensor, live: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """The first voxel around corner s of voxel n, by its place, and which of its own corners this is."""
    row = tl.where(live, n, -1)
    slot = s + row.to(tl.int32) * 0
    found = row < 0
    for j in tl.static_range(8):
        step = (s // 4 - 1 + j // 4) * 9 + ((s // 2) % 2 - 1 + (j // 2) % 2) * 3 + s % 2 - 1 + j % 2
        other = tl.load(neighbours + n * 27 + 13 + step, mask=live & (found == 0), other=-1).to(tl.int64)
        here = other >= 0
        row = tl.where(here, other, row)
        slot = tl.where(here, 7 - j, slot)
        found = found | here
    return row, slot


@triton.jit
def _bits_below(mask: tl.tensor, slot: tl.tensor) -> tl.tensor:
    """How many bits of an 8-bit mask are set below that slot."""
    bits = mask & ((1 << slot) - 1)
    bits = bits - ((bits >> 1) & 0x55)
    bits = (bits & 0x33) + ((bits >> 2) & 0x33)
    return (bits + (bits >> 4)) & 15


@triton.jit
def _spread(bits: tl.tensor) -> tl.tensor:
    """21 bits of an int64, two zeros between each and the next."""
    bits = (bits | (bits << 32)) & 0x1F00000000FFFF
    bits = (bits | (bits << 16)) & 0x1F0000FF0000FF
    bits = (bits | (bits << 8)) & 0x100F00F00F00F00F
    bits = (bits | (bits << 4)) & 0x10C30C30C30C30C3
    return (bits | (bits << 2)) & 0x1249249249249249


@triton.jit(do_not_specialize=["count"])
def own_corners(
    neighbours: tl.tensor, masks: tl.tensor, owned: tl.tensor, count: tl.tensor, BLOCK: tl.constexpr
) -> None:
    """Which corners a voxel owns, as bits (N,) uint8, and how many (N,) int32."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    s = tl.arange(0, 8)[None, :]
    live = n < count
    row, _ = _owner(neighbours, n, s, live)
    own = ((row == n) & live).to(tl.int32)
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(masks + at, tl.sum(own << s, axis=1).to(tl.uint8), mask=at < count)
    tl.store(owned + at, tl.sum(own, axis=1), mask=at < count)


@triton.jit(do_not_specialize=["count"])
def write_keys(
    coords: tl.tensor, masks: tl.tensor, ends: tl.tensor, keys: tl.tensor, count: tl.tensor, BLOCK: tl.constexpr
) -> None:
    """Morton codes of the owned corners, by owner."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    s = tl.arange(0, 8)[None, :]
    live = n < count
    mask = tl.load(masks + n, mask=live, other=0).to(tl.int32)
    first = tl.load(ends + n, mask=live, other=0) - _bits_below(mask, 8)
    x = tl.load(coords + n * 3, mask=live, other=0).to(tl.int64) + s // 4
    y = tl.load(coords + n * 3 + 1, mask=live, other=0).to(tl.int64) + (s // 2) % 2
    z = tl.load(coords + n * 3 + 2, mask=live, other=0).to(tl.int64) + s % 2
    key = (_spread(x) << 2) | (_spread(y) << 1) | _spread(z)
    tl.store(keys + first + _bits_below(mask, s), key, mask=live & (((mask >> s) & 1) > 0))


@triton.jit(do_not_specialize=["count"])
def link_corners(
    neighbours: tl.tensor, masks: tl.tensor, ends: tl.tensor, ranks: tl.tensor, index: tl.tensor, incident: tl.tensor,
    count: tl.tensor, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """The rows of each voxel's corners, and each corner's voxels."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    s = tl.arange(0, 8)[None, :]
    live = n < count
    row, slot = _owner(neighbours, n, s, live)
    live = live & (row >= 0)
    mask = tl.load(masks + row, mask=live, other=0).to(tl.int32)
    first = tl.load(ends + row, mask=live, other=0) - _bits_below(mask, 8)
    corner = tl.load(ranks + first + _bits_below(mask, slot), mask=live, other=0)
    tl.store(index + n * 8 + s, corner, mask=live)
    tl.store(incident + corner * 8 + s, (n + s * 0).to(tl.int32), mask=live)


@triton.jit(do_not_specialize=["count", "by_voxel", "by_corner", "by_channel"])
def mean_corners(
    predictions: tl.tensor, incident: tl.tensor, means: tl.tensor, shares: tl.tensor, squares: tl.tensor,
    count: tl.tensor, by_voxel: tl.tensor, by_corner: tl.tensor, by_channel: tl.tensor,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Means (C, K), one over the number of voxels (C,), and for each program the squared deviations' sum."""
    c = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    s = tl.arange(0, 8)[None, :]
    live = c < count
    voxel = tl.load(incident + c[:, None] * 8 + s, mask=live[:, None], other=-1).to(tl.int64)
    here = voxel >= 0
    share = 1.0 / tl.maximum(tl.sum(here.to(shares.dtype.element_ty), axis=1), 1.0)
    tl.store(shares + c, share, mask=live)
    total = tl.zeros_like(share)
    for k in tl.static_range(CHANNELS):
        at = predictions + voxel * by_voxel + s * by_corner + k * by_channel
        value = tl.load(at, mask=here, other=0.0).to(share.dtype)
        mean = tl.sum(value, axis=1) * share
        off = tl.where(here, value - mean[:, None], 0.0)
        total += tl.sum(off * off, axis=1)
        tl.store(means + c * CHANNELS + k, mean.to(means.dtype.element_ty), mask=live)
    tl.store(squares + tl.program_id(0), tl.sum(total, axis=0))


@triton.jit(do_not_specialize=["count", "by_voxel", "by_corner", "by_channel", "size"])
def mean_gradients(
    predictions: tl.tensor, index: tl.tensor, means: tl.tensor, shares: tl.tensor, grad_means: tl.tensor,
    grad_loss: tl.tensor, out: tl.tensor, count: tl.tensor, by_voxel: tl.tensor, by_corner: tl.tensor,
    by_channel: tl.tensor, size: tl.tensor, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Gradient (N, 8, K) of the predictions: from their corner's mean, and from how far they are off it."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)[:, None]
    s = tl.arange(0, 8)[None, :]
    live = n < count
    corner = tl.load(index + n * 8 + s, mask=live, other=0)
    share = tl.load(shares + corner, mask=live, other=0.0)
    pull = 2.0 * tl.load(grad_loss).to(share.dtype) / size
    for k in tl.static_range(CHANNELS):
        at = predictions + n * by_voxel + s * by_corner + k * by_channel
        off = tl.load(at, mask=live, other=0.0).to(share.dtype)
        off -= tl.load(means + corner * CHANNELS + k, mask=live, other=0.0).to(share.dtype)
        slope = tl.load(grad_means + corner * CHANNELS + k, mask=live, other=0.0).to(share.dtype)
        tl.store(out + (n * 8 + s) * CHANNELS + k, (slope * share + pull * off).to(out.dtype.element_ty), mask=live)


def _programs(count: int, values: Tensor, block: int) -> tuple[tuple[int], int]:
    block = block if values.is_cuda else 512
    return (triton.cdiv(count, block),), block


def corner_tables(grid: SparseGrid) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, index and incident, see `Corners`; waits for the device once, for the number of corners."""
    count, device, neighbours = len(grid), grid.device, neighbour_table(grid)
    if count == 0:
        return (
            torch.empty(0, dtype=torch.int64, device=device),
            torch.empty((0, 8), dtype=torch.int64, device=device),
            torch.empty((0, 8), dtype=torch.int32, device=device),
        )
    masks = torch.empty(count, dtype=torch.uint8, device=device)
    owned = torch.empty(count, dtype=torch.int32, device=device)
    programs, block = _programs(count, neighbours, 128)
    own_corners[programs](neighbours, masks, owned, count, BLOCK=block)
    ends = owned.cumsum(0)
    keys = torch.empty(int(ends[-1]), dtype=torch.int64, device=device)
    write_keys[programs](grid.coords.contiguous(), masks, ends, keys, count, BLOCK=block)
    keys, order = keys.sort()
    ranks = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=device))
    index = torch.empty((count, 8), dtype=torch.int64, device=device)
    incident = torch.full((len(keys), 8), -1, dtype=torch.int32, device=device)
    link_corners[programs](neighbours, masks, ends, ranks, index, incident, count, BLOCK=block)
    return keys, index, incident


class MeanCorners(torch.autograd.Function):
    """Means (C, K) and the consistency loss of predictions (N, 8, K), see `average_corners`."""

    @staticmethod
    def forward(ctx: Any, predictions: Tensor, index: Tensor, incident: Tensor) -> tuple[Tensor, Tensor]:
        """Any strides: slices of wider rows need no copy."""
        count, channels = len(incident), predictions.shape[2]
        exact = torch.promote_types(predictions.dtype, torch.float32)
        means = predictions.new_empty((count, channels))
        shares = predictions.new_empty(count, dtype=exact)
        programs, block = _programs(count, predictions, 64)
        squares = predictions.new_empty(programs, dtype=exact)
        if count:
            mean_corners[programs](
                predictions, incident, means, shares, squares, count, *predictions.stride(),
                CHANNELS=channels, BLOCK=block,
            )  # fmt: skip
        ctx.save_for_backward(predictions, index, means, shares)
        return means, (squares.sum() / max(predictions.numel(), 1)).to(predictions.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the predictions."""
        predictions, index, means, shares = ctx.saved_tensors
        out = predictions.new_empty(predictions.shape)
        programs, block = _programs(len(index), predictions, 64)
        if len(index):
            mean_gradients[programs](
                predictions, index, means, shares, grads[0].contiguous(), grads[1], out, len(index),
                *predictions.stride(), max(predictions.numel(), 1), CHANNELS=predictions.shape[2], BLOCK=block,
            )  # fmt: skip
        return out, None, None
