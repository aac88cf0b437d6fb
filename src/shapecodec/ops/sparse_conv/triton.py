"""Implicit matrix products in Triton: rows are gathered inside the kernels, nothing of size (N, 27, C) is written.

Convolution: tiles of rows that share their neighbour pattern, one pass over the taps that the tile has. Gradient of the
weight: the pairs of each tap cut into chunks, one partial sum a chunk, added in a fixed order. Without atomics results
repeat.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import triton
import triton.language as tl
from torch import Tensor

from shapecodec.ops.sparse_conv.plan import TALL_TILE_ROWS, TAPS, TILE_ROWS, BrickPlan, ConvPlan

# Programs of the weight gradient: eight times the 132 processors of an H100, so that the last wave costs little. Partial
# sums then take as many buffers as programs, each of one tile: at most 104 MB.
PROGRAMS = 1056
SHORTEST_CHUNK = 1024  # pairs; below it the writing of partial sums would outweigh the products

# Row numbers are loaded one stage ahead of the rows that they name: five stages leave three buffers of rows and weights
# (148 KB at 128 rows, 256 columns and 64 channels), seven leave four, three leave two.
STAGES, SHALLOW_STAGES = 5, 7

# Up to so many columns (half precision) tiles are tall: of 96 columns, 19.5 taps of 256 rows move 22% less than 17.8 of 128.
FEW_COLUMNS = 128


@triton.jit
def at_least_once(steps: tl.tensor) -> tl.tensor:
    """The same number, for loops of matrix products that are never empty.

    Where the compiler cannot rule out an empty loop it gives the sums a second origin, moves registers for it and then
    runs each asynchronous product by itself (ptxas says so: C7515).
    """
    return tl.maximum(steps, 1)


@triton.jit
def gather_rows(
    feats: tl.tensor, source: tl.tensor, channels: tl.tensor, channel: tl.tensor, inside: tl.tensor
) -> tl.tensor:
    """(rows, channels) of the rows `source`, zeros where it is negative or the channel is not inside."""
    here = feats + source.to(tl.int64)[:, None] * channels + channel[None, :]
    return tl.load(here, mask=(source >= 0)[:, None] & inside[None, :], other=0.0)


@triton.jit
def store_rows(
    total: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    row: tl.tensor,
    live: tl.tensor,
    column: tl.tensor,
    out_channels: tl.tensor,
    HAS_BIAS: tl.constexpr,
) -> None:
    """Adds the bias and writes the live rows."""
    if HAS_BIAS:
        total += tl.load(bias + column, mask=column < out_channels, other=0.0).to(tl.float32)[None, :]
    here = out + row.to(tl.int64)[:, None] * out_channels + column[None, :]
    tl.store(here, total.to(out.dtype.element_ty), mask=live[:, None] & (column < out_channels)[None, :])


@triton.jit
def _convolve_kernel(
    feats: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    out: tl.tensor,
    rows_of: tl.tensor,
    table: tl.tensor,
    taps_of: tl.tensor,
    counts: tl.tensor,
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
    tile = tl.program_id(0)
    first = tl.program_id(1) * (COLUMNS + REST)
    column = first + tl.arange(0, COLUMNS)
    parts = at_least_once(tl.cdiv(channels, DEPTH))
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    if REST > 0:
        rest_column = first + COLUMNS + tl.arange(0, REST)
        rest = tl.zeros((ROWS, REST), dtype=tl.float32)
    for step in range(0, at_least_once(tl.load(counts + tile) * parts)):
        which = tile * 27 + step // parts
        channel = (step % parts) * DEPTH + tl.arange(0, DEPTH)
        inside = channel < channels
        source = tl.load(table + which.to(tl.int64) * ROWS + tl.arange(0, ROWS))
        a = gather_rows(feats, source, channels, channel, inside)
        line = weight + tl.load(taps_of + which) * channels * out_channels + channel[:, None] * out_channels
        b = tl.load(line + column[None, :], mask=inside[:, None] & (column < out_channels)[None, :], other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
        if REST > 0:
            mask = inside[:, None] & (rest_column < out_channels)[None, :]
            b = tl.load(line + rest_column[None, :], mask=mask, other=0.0)
            rest = tl.dot(a, b, rest, input_precision=PRECISION)
    row = tl.load(rows_of + tile * ROWS + tl.arange(0, ROWS))
    store_rows(total, bias, out, row, row >= 0, column, out_channels, HAS_BIAS)
    if REST > 0:
        store_rows(rest, bias, out, row, row >= 0, rest_column, out_channels, HAS_BIAS)


@triton.jit
def _partial_gradient_kernel(
    feats: tl.tensor,
    grad: tl.tensor,
    partial: tl.tensor,
    targets: tl.tensor,
    sources: tl.tensor,
    starts: tl.tensor,
    ends: tl.tensor,
    channels: tl.tensor,
    out_channels: tl.tensor,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    REST: tl.constexpr,
    DEPTH: tl.constexpr,
) -> None:
    """One (ROWS of C, COLUMNS + REST of C') tile of one chunk's sum; one step is DEPTH pairs."""
    chunk = tl.program_id(0)
    channel = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    inside = channel < channels
    start = tl.program_id(2) * (COLUMNS + REST)
    column = start + tl.arange(0, COLUMNS)
    first = tl.load(starts + chunk)
    last = tl.load(ends + chunk)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    if REST > 0:
        rest_column = start + COLUMNS + tl.arange(0, REST)
        rest = tl.zeros((ROWS, REST), dtype=tl.float32)
    for step in range(0, at_least_once(tl.cdiv(last - first, DEPTH))):
        pair = first + step * DEPTH + tl.arange(0, DEPTH)
        live = pair < last
        source = tl.load(sources + pair, mask=live, other=-1)
        target = tl.load(targets + pair, mask=live, other=-1)
        a = tl.trans(gather_rows(feats, source, channels, channel, inside))
        b = gather_rows(grad, target, out_channels, column, column < out_channels)
        total = tl.dot(a, b, total, input_precision=PRECISION)
        if REST > 0:
            b = gather_rows(grad, target, out_channels, rest_column, rest_column < out_channels)
            rest = tl.dot(a, b, rest, input_precision=PRECISION)
    place = chunk.to(tl.int64) * channels + channel
    store_rows(total, partial, partial, place, inside, column, out_channels, False)
    if REST > 0:
        store_rows(rest, partial, partial, place, inside, rest_column, out_channels, False)


@triton.jit
def _sum_kernel(partial: tl.tensor, total: tl.tensor, bounds: tl.tensor, size: tl.tensor, BLOCK: tl.constexpr) -> None:
    """total[tap] = sum of the partial sums bounds[tap] : bounds[tap + 1], in that order."""
    tap = tl.program_id(1)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    first = tl.load(bounds + tap)
    here = partial + first.to(tl.int64) * size + place
    value = tl.zeros((BLOCK,), dtype=tl.float32)
    for _ in range(first, tl.load(bounds + tap + 1)):
        value += tl.load(here, mask=place < size, other=0.0)
        here += size
    tl.store(total + tap.to(tl.int64) * size + place, value, mask=place < size)


def convolve(feats: Tensor, weight: Tensor, bias: Tensor | None, plan: ConvPlan, precision: str) -> Tensor:
    """See `reference.convolve`; feats and weight contiguous, of one dtype, products summed in float32."""
    channels, out_channels = weight.shape[1:]
    out = feats.new_empty(len(feats), out_channels)  # every row is in one tile, so all is written
    if out.numel() == 0:
        return out
    if isinstance(plan, BrickPlan):
        from shapecodec.ops.sparse_conv import triton_bricks

        return triton_bricks.convolve(feats, weight, bias, plan, precision)
    half = feats.dtype != torch.float32
    columns, rest = split(out_channels, 256 if half else 64)
    tall = half and columns + rest <= FEW_COLUMNS
    tiles = plan.tall_tiles if tall else plan.tiles
    depth = depth_of(channels, half)
    _convolve_kernel[(len(tiles.counts), triton.cdiv(out_channels, columns + rest))](
        feats,
        weight,
        out if bias is None else bias,
        out,
        tiles.rows,
        tiles.table,
        tiles.taps,
        tiles.counts,
        channels,
        out_channels,
        HAS_BIAS=bias is not None,
        PRECISION=precision,
        ROWS=TALL_TILE_ROWS if tall else TILE_ROWS,
        COLUMNS=columns,
        REST=rest,
        DEPTH=depth,
        num_warps=8 if tall or columns > 64 else 4,
        num_stages=(STAGES if depth > 32 else SHALLOW_STAGES) if half else 2,
    )
    return out


def weight_gradient(feats: Tensor, grad: Tensor, plan: ConvPlan, precision: str) -> Tensor:
    """See `reference.weight_gradient`; the result is float32."""
    channels, out_channels = feats.shape[1], grad.shape[1]
    if len(feats) == 0 or channels * out_channels == 0:
        return feats.new_zeros(TAPS, channels, out_channels, dtype=torch.float32)
    if isinstance(plan, BrickPlan):
        from shapecodec.ops.sparse_conv import triton_bricks

        return triton_bricks.weight_gradient(feats, grad, plan, precision)
    pairs = plan.pairs
    half = feats.dtype != torch.float32
    rows = block(channels, 128 if half else 64)
    columns, rest = split(out_channels, 192 if half else 64)
    tiles = triton.cdiv(channels, rows), triton.cdiv(out_channels, columns + rest)
    starts, ends, bounds = _chunks(pairs.bounds, PROGRAMS // (tiles[0] * tiles[1]), feats.device)
    partial = feats.new_empty(len(starts), channels, out_channels, dtype=torch.float32)
    _partial_gradient_kernel[(len(starts), *tiles)](
        feats,
        grad,
        partial,
        pairs.target,
        pairs.source,
        starts,
        ends,
        channels,
        out_channels,
        PRECISION=precision,
        ROWS=rows,
        COLUMNS=columns,
        REST=rest,
        DEPTH=64 if half else 32,
        num_warps=8 if rows * columns > 64 * 128 else 4,
        num_stages=STAGES if half else 2,
    )
    size = channels * out_channels
    total = feats.new_empty(TAPS, channels, out_channels, dtype=torch.float32)
    _sum_kernel[(triton.cdiv(size, 1024), TAPS)](partial, total, bounds, size, BLOCK=1024, num_warps=4)
    return total


def _chunks(bounds: list[int], count: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Starts and ends of about `count` chunks, each within one tap, and the 28 bounds of the taps' chunks; int32."""
    length = max(SHORTEST_CHUNK, -(-bounds[-1] // max(count, 1)))
    starts: list[int] = []
    ends: list[int] = []
    chunk_bounds = [0]
    for first, last in pairwise(bounds):
        starts.extend(range(first, last, length))
        ends.extend(min(start + length, last) for start in range(first, last, length))
        chunk_bounds.append(len(starts))
    packed = torch.tensor(starts + ends + chunk_bounds, dtype=torch.int32).to(device, non_blocking=True)
    count = len(starts)
    return packed[:count], packed[count : 2 * count], packed[2 * count :]


def sum_partials(partial: Tensor, taps: int) -> Tensor:
    """(taps, C, C') sums of partial (taps * chunks, C, C') float32 over the chunks of each tap, in their order."""
    size = partial[0].numel()
    bounds = torch.arange(taps + 1, dtype=torch.int32, device=partial.device) * (len(partial) // taps)
    total = partial.new_empty(taps, *partial.shape[1:])
    _sum_kernel[(triton.cdiv(size, 1024), taps)](partial, total, bounds, size, BLOCK=1024, num_warps=4)
    return total


def block(size: int, most: int) -> int:
    """The power of two that covers `size`, from 16 (the least that a matrix unit takes) to `most`."""
    return min(most, max(16, triton.next_power_of_2(size)))


def split(size: int, most: int) -> tuple[int, int]:
    """Two widths of tile, powers of two (the second may be 0), that cover `size` in equal steps of at most `most`.

    96 = 64 + 32 and 192 = 128 + 64: a single power of two would be a quarter empty.
    """
    each = triton.cdiv(size, triton.cdiv(size, most))
    wide = max(16, triton.next_power_of_2(each))
    return (wide // 2, wide // 4) if wide >= 64 and each <= wide // 2 + wide // 4 else (wide, 0)


def depth_of(channels: int, half: bool) -> int:
    """Input channels of a step: 64 halves fill the lines of shared memory; 32 where 64 would leave half a step empty."""
    if not half:
        return block(channels, 32)
    return 32 if channels % 64 in range(1, 33) else block(channels, 64)
