"""`block_sample` as one Triton kernel: a lane a point, eight table reads and eight value reads."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from shapecodec.grid import SparseGrid
from shapecodec.ops.block_sample import block_table

POINTS = 256  # a program; gathers dominate, so more warps in flight matter more than the size of one


def block_sample(points: Tensor, values: Tensor, grid: SparseGrid, fill: float) -> tuple[Tensor, Tensor]:
    """See the package."""
    value = torch.zeros(len(points), device=points.device)
    gradient = torch.zeros(len(points), 3, device=points.device)
    if len(values) == 0:
        return value.fill_(fill), gradient
    programs = (triton.cdiv(len(points), POINTS),)
    _sample[programs](
        points, values, block_table(grid), value, gradient, len(points), grid.resolution, float(fill), POINTS=POINTS
    )
    return value, gradient


@triton.jit
def _corner(
    values: tl.tensor,
    table: tl.tensor,
    fill: tl.tensor,
    blocks: tl.tensor,
    i: tl.tensor,
    j: tl.tensor,
    k: tl.tensor,
    keep: tl.tensor,
) -> tl.tensor:
    size = blocks * 8
    keep = keep & (i >= 0) & (j >= 0) & (k >= 0) & (i < size) & (j < size) & (k < size)
    cell = ((i >> 3) * blocks + (j >> 3)) * blocks + (k >> 3)
    row = tl.load(table + cell, mask=keep, other=-1)
    keep = keep & (row >= 0)
    inner = ((i & 7) << 6) | ((j & 7) << 3) | (k & 7)
    return tl.load(values + row.to(tl.int64) * 512 + inner, mask=keep, other=fill)


@triton.jit
def _sample(
    points: tl.tensor,
    values: tl.tensor,
    table: tl.tensor,
    value: tl.tensor,
    gradient: tl.tensor,
    count: tl.tensor,
    blocks: tl.tensor,
    fill: tl.tensor,
    POINTS: tl.constexpr,
) -> None:
    lane = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    keep = lane < count
    size = blocks * 8.0
    x = (tl.load(points + lane * 3, mask=keep, other=0.0) + 0.5) * size - 0.5
    y = (tl.load(points + lane * 3 + 1, mask=keep, other=0.0) + 0.5) * size - 0.5
    z = (tl.load(points + lane * 3 + 2, mask=keep, other=0.0) + 0.5) * size - 0.5
    fx, fy, fz = tl.floor(x), tl.floor(y), tl.floor(z)
    near = keep & (tl.abs(fx) < 1e9) & (tl.abs(fy) < 1e9) & (tl.abs(fz) < 1e9)
    i = tl.where(near, fx, 0.0).to(tl.int32)
    j = tl.where(near, fy, 0.0).to(tl.int32)
    k = tl.where(near, fz, 0.0).to(tl.int32)
    x, y, z = tl.where(near, x - fx, 0.0), tl.where(near, y - fy, 0.0), tl.where(near, z - fz, 0.0)
    c000 = _corner(values, table, fill, blocks, i, j, k, near)
    c001 = _corner(values, table, fill, blocks, i, j, k + 1, near)
    c010 = _corner(values, table, fill, blocks, i, j + 1, k, near)
    c011 = _corner(values, table, fill, blocks, i, j + 1, k + 1, near)
    c100 = _corner(values, table, fill, blocks, i + 1, j, k, near)
    c101 = _corner(values, table, fill, blocks, i + 1, j, k + 1, near)
    c110 = _corner(values, table, fill, blocks, i + 1, j + 1, k, near)
    c111 = _corner(values, table, fill, blocks, i + 1, j + 1, k + 1, near)
    low = (c000 * (1 - z) + c001 * z) * (1 - y) + (c010 * (1 - z) + c011 * z) * y
    high = (c100 * (1 - z) + c101 * z) * (1 - y) + (c110 * (1 - z) + c111 * z) * y
    tl.store(value + lane, low * (1 - x) + high * x, mask=keep)
    tl.store(gradient + lane * 3, high - low, mask=keep)
    low = (c010 * (1 - z) + c011 * z) - (c000 * (1 - z) + c001 * z)
    high = (c110 * (1 - z) + c111 * z) - (c100 * (1 - z) + c101 * z)
    tl.store(gradient + lane * 3 + 1, low * (1 - x) + high * x, mask=keep)
    low = (c001 - c000) * (1 - y) + (c011 - c010) * y
    high = (c101 - c100) * (1 - y) + (c111 - c110) * y
    tl.store(gradient + lane * 3 + 2, low * (1 - x) + high * x, mask=keep)
