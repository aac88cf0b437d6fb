"""The convolution of whole 2^3 bricks (`BrickPlan`): neighbours are read off the parents' table, nothing is planned.

A child's neighbour at a tap lies in the parent, or in one of the parent's neighbours, at a slot that follows from the
tap: some integer arithmetic replaces a table of 27 numbers a voxel. Nearly all taps exist (22 of 27 on the children of a
surface refined twice), so tiles are consecutive rows and take every tap, and the gradient of the weight reads all rows
for each tap. Partial sums are added in a fixed order: results repeat.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from shapecodec.ops.neighbour_table.triton import child_neighbour
from shapecodec.ops.sparse_conv.plan import TAPS, BrickPlan
from shapecodec.ops.sparse_conv.triton import (
    at_least_once,
    block,
    depth_of,
    gather_rows,
    split,
    store_rows,
    sum_partials,
)

LINES = 9  # taps by (dx, dy)

# Half precision. Up to FEW_COLUMNS columns a tile has MANY_ROWS rows: 256 x 128 and 128 x 256 sums both take 128 registers
# of each thread of 8 warps, and tall tiles read the weights less often. Five stages keep three buffers of rows and weights
# and seven keep four (see `triton.py`): 22 KB each at 96 columns and 32 channels, 44 KB at 64.
FEW_COLUMNS, MANY_ROWS, ROWS, STAGES, SHALLOW_STAGES, WARPS = 128, 256, 128, 5, 7, 8

# The gradient of the weight holds the sums of three taps: 128 x 96 for each are 144 registers a thread.
# PROGRAMS: six waves on the 132 processors of an H100, which are also nine lines x 88 chunks.
GRADIENT_ROWS, GRADIENT_COLUMNS, GRADIENT_DEPTH, GRADIENT_STAGES, GRADIENT_WARPS = 128, 96, 32, 7, 8
PROGRAMS = 792
SHORTEST_CHUNK = 1024  # rows; below it the writing of partial sums would outweigh the products


@triton.jit
def _brick_convolve_kernel(
    feats: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    above: tl.tensor,
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
    """One (ROWS, COLUMNS + REST) tile of the output; one step is one tap and DEPTH input channels."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = row < count
    first = tl.program_id(1) * (COLUMNS + REST)
    column = first + tl.arange(0, COLUMNS)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    if REST > 0:
        rest_column = first + COLUMNS + tl.arange(0, REST)
        rest = tl.zeros((ROWS, REST), dtype=tl.float32)
    parts = at_least_once(tl.cdiv(channels, DEPTH))
    for step in range(0, 27 * parts):
        tap = step // parts
        channel = step % parts * DEPTH + tl.arange(0, DEPTH)
        inside = channel < channels
        a = gather_rows(feats, child_neighbour(above, row, live, tap), channels, channel, inside)
        line = weight + tap * channels * out_channels + channel[:, None] * out_channels
        b = tl.load(line + column[None, :], mask=inside[:, None] & (column < out_channels)[None, :], other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
        if REST > 0:
            mask = inside[:, None] & (rest_column < out_channels)[None, :]
            b = tl.load(line + rest_column[None, :], mask=mask, other=0.0)
            rest = tl.dot(a, b, rest, input_precision=PRECISION)
    store_rows(total, bias, out, row, live, column, out_channels, HAS_BIAS)
    if REST > 0:
        store_rows(rest, bias, out, row, live, rest_column, out_channels, HAS_BIAS)


@triton.jit
def _brick_gradient_kernel(
    feats: tl.tensor,
    grad: tl.tensor,
    partial: tl.tensor,
    above: tl.tensor,
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
    """ROWS of C by COLUMNS + REST of C' of the sums of three taps, a line along z, over `length` rows of the grid.

    The three share the rows of the gradient. Each sum takes one product a step: a second into the same registers would
    wait for the first. Lines are the fastest axis of the launch: all taps read the same rows at about the same time.
    """
    line = tl.program_id(0)
    start = tl.program_id(1) * length
    end = tl.minimum(start + length, count)
    blocks = tl.cdiv(out_channels, COLUMNS + REST)
    channel = tl.program_id(2) // blocks * ROWS + tl.arange(0, ROWS)
    inside = channel < channels
    first = tl.program_id(2) % blocks * (COLUMNS + REST)
    column = first + tl.arange(0, COLUMNS)
    low = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    middle = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    high = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    if REST > 0:
        rest_column = first + COLUMNS + tl.arange(0, REST)
        low_rest = tl.zeros((ROWS, REST), dtype=tl.float32)
        middle_rest = tl.zeros((ROWS, REST), dtype=tl.float32)
        high_rest = tl.zeros((ROWS, REST), dtype=tl.float32)
    for step in range(0, at_least_once(tl.cdiv(length, DEPTH))):
        row = start + step * DEPTH + tl.arange(0, DEPTH)
        live = row < end
        a = tl.trans(gather_rows(feats, child_neighbour(above, row, live, line * 3), channels, channel, inside))
        b = tl.trans(gather_rows(feats, child_neighbour(above, row, live, line * 3 + 1), channels, channel, inside))
        c = tl.trans(gather_rows(feats, child_neighbour(above, row, live, line * 3 + 2), channels, channel, inside))
        here = grad + row.to(tl.int64)[:, None] * out_channels
        g = tl.load(here + column[None, :], mask=live[:, None] & (column < out_channels)[None, :], other=0.0)
        low = tl.dot(a, g, low, input_precision=PRECISION)
        middle = tl.dot(b, g, middle, input_precision=PRECISION)
        high = tl.dot(c, g, high, input_precision=PRECISION)
        if REST > 0:
            mask = live[:, None] & (rest_column < out_channels)[None, :]
            g = tl.load(here + rest_column[None, :], mask=mask, other=0.0)
            low_rest = tl.dot(a, g, low_rest, input_precision=PRECISION)
            middle_rest = tl.dot(b, g, middle_rest, input_precision=PRECISION)
            high_rest = tl.dot(c, g, high_rest, input_precision=PRECISION)
    size = channels * out_channels
    stride = tl.num_programs(1).to(tl.int64) * size  # from tap to tap
    here = partial + line * 3 * stride + tl.program_id(1).to(tl.int64) * size + channel[:, None] * out_channels
    mask = inside[:, None] & (column < out_channels)[None, :]
    tl.store(here + column[None, :], low, mask=mask)
    tl.store(here + stride + column[None, :], middle, mask=mask)
    tl.store(here + 2 * stride + column[None, :], high, mask=mask)
    if REST > 0:
        mask = inside[:, None] & (rest_column < out_channels)[None, :]
        tl.store(here + rest_column[None, :], low_rest, mask=mask)
        tl.store(here + stride + rest_column[None, :], middle_rest, mask=mask)
        tl.store(here + 2 * stride + rest_column[None, :], high_rest, mask=mask)


def convolve(feats: Tensor, weight: Tensor, bias: Tensor | None, plan: BrickPlan, precision: str) -> Tensor:
    """See `reference.convolve`; feats and weight contiguous, of one dtype, products summed in float32."""
    channels, out_channels = weight.shape[1:]
    out = feats.new_empty(len(feats), out_channels)
    half = feats.dtype != torch.float32
    columns, rest = split(out_channels, 256 if half else 64)
    depth = depth_of(channels, half)
    rows = MANY_ROWS if half and columns + rest <= FEW_COLUMNS else ROWS
    _brick_convolve_kernel[(triton.cdiv(len(feats), rows), triton.cdiv(out_channels, columns + rest))](
        feats,
        weight,
        out if bias is None else bias,
        out,
        plan.above,
        len(feats),
        channels,
        out_channels,
        HAS_BIAS=bias is not None,
        PRECISION=precision,
        ROWS=rows,
        COLUMNS=columns,
        REST=rest,
        DEPTH=depth,
        num_warps=WARPS if half else 4,
        num_stages=(STAGES if depth > 32 else SHALLOW_STAGES) if half else 2,
    )
    return out


def weight_gradient(feats: Tensor, grad: Tensor, plan: BrickPlan, precision: str) -> Tensor:
    """See `reference.weight_gradient`; the result is float32."""
    count, channels, out_channels = len(feats), feats.shape[1], grad.shape[1]
    half = feats.dtype != torch.float32
    rows = block(channels, GRADIENT_ROWS if half else 32)
    columns, rest = split(out_channels, GRADIENT_COLUMNS if half else 32)
    tiles = triton.cdiv(channels, rows) * triton.cdiv(out_channels, columns + rest)
    chunks = max(1, min(PROGRAMS // (LINES * tiles), count // SHORTEST_CHUNK))
    partial = feats.new_empty(TAPS * chunks, channels, out_channels, dtype=torch.float32)
    _brick_gradient_kernel[(LINES, chunks, tiles)](
        feats,
        grad,
        partial,
        plan.above,
        count,
        triton.cdiv(count, chunks),
        channels,
        out_channels,
        PRECISION=precision,
        ROWS=rows,
        COLUMNS=columns,
        REST=rest,
        DEPTH=GRADIENT_DEPTH if half else 16,
        num_warps=GRADIENT_WARPS if half and rows >= 64 else 4,
        num_stages=GRADIENT_STAGES if half else 2,
    )
    return sum_partials(partial, TAPS)
