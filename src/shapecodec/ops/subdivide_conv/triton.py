"""Implicit matrix products in Triton: parents are gathered inside the kernels, copies of them are never written.

A program serves one slot of its parents, or one slot and side in the gradient of the weight, so the tap that it reads is
the same for all rows. Partial sums are added in a fixed order: results repeat.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from shapecodec.grid import SparseGrid
from shapecodec.ops.neighbour_table import neighbour_table
from shapecodec.ops.sparse_conv.triton import (
    at_least_once,
    block,
    depth_of,
    gather_rows,
    split,
    store_rows,
    sum_partials,
)
from shapecodec.ops.subdivide_conv.fold import SLOTS

# Half precision; see `sparse_conv.triton_bricks` for what bounds them.
FEW_COLUMNS, MANY_ROWS, ROWS, STAGES, SHALLOW_STAGES, WARPS = 128, 256, 128, 5, 7, 8
GRADIENT_ROWS, GRADIENT_COLUMNS, GRADIENT_DEPTH, GRADIENT_STAGES = 128, 192, 64, 5
PROGRAMS = 1188  # of the weight gradient: nine waves on the 132 processors of an H100
SHORTEST_CHUNK = 1024  # parents; below it the writing of partial sums would outweigh the products


@triton.jit
def _parent_tap(slot: tl.tensor, side: tl.tensor) -> tl.tensor:
    """The parent's tap that a slot sees at a side; both are 4 x + 2 y + z."""
    x = (slot >> 2) + (side >> 2)
    y = ((slot >> 1) & 1) + ((side >> 1) & 1)
    z = (slot & 1) + (side & 1)
    return x * 9 + y * 3 + z


@triton.jit
def _convolve_kernel(
    feats: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    neighbours: tl.tensor,
    count: tl.tensor,
    channels: tl.tensor,
    out_channels: tl.tensor,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    REST: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """One slot of ROWS parents by COLUMNS + REST columns; one step is one side and DEPTH input channels."""
    slot = tl.program_id(0) % 8  # the slots of a stretch of parents run together: they read the same rows
    row = tl.program_id(0) // 8 * ROWS + tl.arange(0, ROWS)
    live = row < count
    first = tl.program_id(1) * (COLUMNS + REST)
    column = first + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    if REST > 0:
        rest_column = first + COLUMNS + tl.arange(0, REST)
        rest = tl.zeros((ROWS, REST), dtype=tl.float32)
    parts = at_least_once(tl.cdiv(channels, DEPTH))
    for step in range(0, 8 * parts):
        side = step // parts
        channel = step % parts * DEPTH + tl.arange(0, DEPTH)
        inside = channel < channels
        source = tl.load(neighbours + row * 27 + _parent_tap(slot, side), mask=live, other=-1)
        a = gather_rows(feats, source, channels, channel, inside)
        line = weight + ((slot * 8 + side) * channels + channel[:, None]) * out_channels
        b = tl.load(line + column[None, :], mask=inside[:, None] & (column < out_channels)[None, :], other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
        if REST > 0:
            mask = inside[:, None] & (rest_column < out_channels)[None, :]
            b = tl.load(line + rest_column[None, :], mask=mask, other=0.0)
            rest = tl.dot(a, b, rest, input_precision=PRECISION)
    child = row.to(tl.int64) * 8 + slot
    store_rows(total, bias, out, child, live, column, out_channels, HAS_BIAS)
    if REST > 0:
        store_rows(rest, bias, out, child, live, rest_column, out_channels, HAS_BIAS)


@triton.jit
def _feats_gradient_kernel(
    grad: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    neighbours: tl.tensor,
    count: tl.tensor,
    channels: tl.tensor,
    out_channels: tl.tensor,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    REST: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """ROWS parents by COLUMNS + REST of their channels; one step is one slot and side and DEPTH of the C' channels.

    Parent i sees j at tap t exactly if j sees i at tap 26 - t, so the children that j served are found from j.
    """
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < count
    first = tl.program_id(1) * (COLUMNS + REST)
    column = first + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    if REST > 0:
        rest_column = first + COLUMNS + tl.arange(0, REST)
        rest = tl.zeros((ROWS, REST), dtype=tl.float32)
    parts = at_least_once(tl.cdiv(out_channels, DEPTH))
    for step in range(0, 64 * parts):
        which = step // parts
        channel = step % parts * DEPTH + tl.arange(0, DEPTH)
        inside = channel < out_channels
        tap = 26 - _parent_tap(which >> 3, which & 7)
        parent = tl.load(neighbours + row * 27 + tap, mask=live, other=-1)
        source = tl.where(parent >= 0, parent * 8 + (which >> 3), -1)
        a = gather_rows(grad, source, out_channels, channel, inside)
        line = weight + which * channels * out_channels + channel[:, None]
        mask = inside[:, None] & (column < channels)[None, :]
        b = tl.load(line + column[None, :] * out_channels, mask=mask, other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
        if REST > 0:
            mask = inside[:, None] & (rest_column < channels)[None, :]
            b = tl.load(line + rest_column[None, :] * out_channels, mask=mask, other=0.0)
            rest = tl.dot(a, b, rest, input_precision=PRECISION)
    store_rows(total, out, out, row, live, column, channels, False)
    if REST > 0:
        store_rows(rest, out, out, row, live, rest_column, channels, False)


@triton.jit
def _weight_gradient_kernel(
    feats: tl.tensor,
    grad: tl.tensor,
    partial: tl.tensor,
    neighbours: tl.tensor,
    count: tl.tensor,
    length: tl.tensor,
    channels: tl.tensor,
    out_channels: tl.tensor,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    REST: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """ROWS of C by COLUMNS + REST of C' of the sum of one slot and side over `length` parents."""
    which = tl.program_id(0)
    slot, tap = which >> 3, _parent_tap(which >> 3, which & 7)
    start = tl.program_id(1) * length
    end = tl.minimum(start + length, count)
    blocks = tl.cdiv(out_channels, COLUMNS + REST)
    channel = tl.program_id(2) // blocks * ROWS + tl.arange(0, ROWS)
    inside = channel < channels
    first = tl.program_id(2) % blocks * (COLUMNS + REST)
    column = first + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    if REST > 0:
        rest_column = first + COLUMNS + tl.arange(0, REST)
        rest = tl.zeros((ROWS, REST), dtype=tl.float32)
    for step in range(0, at_least_once(tl.cdiv(length, DEPTH))):
        row = start + step * DEPTH + tl.arange(0, DEPTH)
        live = row < end
        source = tl.load(neighbours + row * 27 + tap, mask=live, other=-1)
        a = tl.trans(gather_rows(feats, source, channels, channel, inside))
        line = grad + (row.to(tl.int64) * 8 + slot)[:, None] * out_channels
        b = tl.load(line + column[None, :], mask=live[:, None] & (column < out_channels)[None, :], other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
        if REST > 0:
            mask = live[:, None] & (rest_column < out_channels)[None, :]
            b = tl.load(line + rest_column[None, :], mask=mask, other=0.0)
            rest = tl.dot(a, b, rest, input_precision=PRECISION)
    place = (which * tl.num_programs(1) + tl.program_id(1)).to(tl.int64) * channels + channel
    store_rows(total, partial, partial, place, inside, column, out_channels, False)
    if REST > 0:
        store_rows(rest, partial, partial, place, inside, rest_column, out_channels, False)


def convolve(feats: Tensor, folded: Tensor, bias: Tensor | None, grid: SparseGrid, precision: str) -> Tensor:
    """See `folded.convolve`; feats and folded contiguous, of one dtype, products summed in float32."""
    channels, out_channels = folded.shape[2:]
    out = feats.new_empty(SLOTS * len(feats), out_channels)
    if out.numel() == 0:
        return out
    columns, rest, rows, options = _tile(out_channels, channels, feats.dtype)
    launch = (SLOTS * triton.cdiv(len(feats), rows), triton.cdiv(out_channels, columns + rest))
    _convolve_kernel[launch](
        feats,
        folded,
        out if bias is None else bias,
        out,
        neighbour_table(grid),
        len(feats),
        channels,
        out_channels,
        HAS_BIAS=bias is not None,
        PRECISION=precision,
        ROWS=rows,
        COLUMNS=columns,
        REST=rest,
        **options,
    )
    return out


def feats_gradient(grad: Tensor, folded: Tensor, grid: SparseGrid, precision: str) -> Tensor:
    """See `folded.feats_gradient`; grad and folded contiguous, of one dtype."""
    channels, out_channels = folded.shape[2:]
    out = grad.new_empty(len(grid), channels)
    if out.numel() == 0:
        return out
    columns, rest, rows, options = _tile(channels, out_channels, grad.dtype)
    _feats_gradient_kernel[(triton.cdiv(len(grid), rows), triton.cdiv(channels, columns + rest))](
        grad,
        folded,
        out,
        neighbour_table(grid),
        len(grid),
        channels,
        out_channels,
        PRECISION=precision,
        ROWS=rows,
        COLUMNS=columns,
        REST=rest,
        **options,
    )
    return out


def weight_gradient(feats: Tensor, grad: Tensor, grid: SparseGrid, precision: str) -> Tensor:
    """See `folded.weight_gradient`; the result is float32."""
    count, channels, out_channels = len(feats), feats.shape[1], grad.shape[1]
    if count == 0 or channels * out_channels == 0:
        return feats.new_zeros(SLOTS, SLOTS, channels, out_channels, dtype=torch.float32)
    half = feats.dtype != torch.float32
    rows = block(channels, GRADIENT_ROWS if half else 64)
    columns, rest = split(out_channels, GRADIENT_COLUMNS if half else 64)
    tiles = triton.cdiv(channels, rows) * triton.cdiv(out_channels, columns + rest)
    chunks = max(1, min(PROGRAMS // (SLOTS**2 * tiles), count // SHORTEST_CHUNK))
    partial = feats.new_empty(SLOTS**2 * chunks, channels, out_channels, dtype=torch.float32)
    _weight_gradient_kernel[(SLOTS**2, chunks, tiles)](
        feats,
        grad,
        partial,
        neighbour_table(grid),
        count,
        triton.cdiv(count, chunks),
        channels,
        out_channels,
        PRECISION=precision,
        ROWS=rows,
        COLUMNS=columns,
        REST=rest,
        DEPTH=GRADIENT_DEPTH if half else 32,
        num_warps=8 if half and rows >= 64 else 4,
        num_stages=GRADIENT_STAGES if half else 2,
    )
    return sum_partials(partial, SLOTS**2).unflatten(0, (SLOTS, SLOTS))


def _tile(size: int, depth: int, dtype: torch.dtype) -> tuple[int, int, int, dict[str, int]]:
    """Columns, further columns and rows of a tile of outputs `size` wide, and the options of its kernel."""
    if dtype == torch.float32:
        columns, rest = split(size, 64)
        return columns, rest, 64, {"DEPTH": depth_of(depth, False), "num_warps": 4, "num_stages": 2}
    columns, rest = split(size, 256)
    rows = MANY_ROWS if columns + rest <= FEW_COLUMNS else ROWS
    step = depth_of(depth, True)
    stages = STAGES if step > 32 else SHALLOW_STAGES
    return columns, rest, rows, {"DEPTH": step, "num_warps": WARPS, "num_stages": stages}
