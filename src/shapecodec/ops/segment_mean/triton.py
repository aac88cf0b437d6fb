"""Triton twins: one program a run and stretch of channels, so that nothing is added by atomics and results repeat."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

ROWS = 16  # rows that a program holds at a time: runs of about 20 points a voxel take two steps
MOST_COLUMNS = 256


@triton.jit
def _mean_kernel(
    values: tl.tensor,
    offsets: tl.tensor,
    out: tl.tensor,
    channels: tl.tensor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """One run's sum, ROWS rows a step; the rows of the block are added last."""
    run = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    first = tl.load(offsets + run)
    last = tl.load(offsets + run + 1)
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < last)[:, None] & (column < channels)[None, :]
        total += tl.load(values + row[:, None] * channels + column[None, :], mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(total, 0) / tl.maximum(last - first, 1).to(tl.float32)
    here = out + run.to(tl.int64) * channels + column
    tl.store(here, mean.to(out.dtype.element_ty), mask=column < channels)


@triton.jit
def _spread_kernel(
    grad: tl.tensor,
    offsets: tl.tensor,
    out: tl.tensor,
    channels: tl.tensor,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:
    """One run's gradient, divided by its length, into each of its rows."""
    run = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    first = tl.load(offsets + run)
    last = tl.load(offsets + run + 1)
    share = tl.load(grad + run.to(tl.int64) * channels + column, mask=column < channels, other=0.0).to(tl.float32)
    share = (share / tl.maximum(last - first, 1).to(tl.float32)).to(out.dtype.element_ty)
    for start in range(first, last, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < last)[:, None] & (column < channels)[None, :]
        everywhere = tl.broadcast_to(share[None, :], (ROWS, COLUMNS))
        tl.store(out + row[:, None] * channels + column[None, :], everywhere, mask=inside)


def mean(values: Tensor, offsets: Tensor) -> Tensor:
    """See `reference.mean`; values and offsets contiguous."""
    out = values.new_empty(len(offsets) - 1, values.shape[1])  # every run is written, empty ones too
    _launch(_mean_kernel, values, offsets, out, values.shape[1])
    return out


def spread(grad: Tensor, offsets: Tensor, rows: int) -> Tensor:
    """See `reference.spread`; grad and offsets contiguous, the runs cover all rows."""
    out = grad.new_empty(rows, grad.shape[1])
    _launch(_spread_kernel, grad, offsets, out, grad.shape[1])
    return out


def _launch(kernel: triton.JITFunction, source: Tensor, offsets: Tensor, out: Tensor, channels: int) -> None:
    runs = len(offsets) - 1
    if runs == 0 or channels == 0:
        return
    columns = min(MOST_COLUMNS, max(16, triton.next_power_of_2(channels)))
    grid = (runs, triton.cdiv(channels, columns))
    kernel[grid](source, offsets, out, channels, ROWS=ROWS, COLUMNS=columns, num_warps=4 if columns > 64 else 2)
