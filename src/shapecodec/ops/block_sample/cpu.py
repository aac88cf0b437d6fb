"""`block_sample` for CPUs: one pass over the points, every core."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from shapecodec.grid import SparseGrid
from shapecodec.ops.block_sample import block_table


def block_sample(points: Tensor, values: Tensor, grid: SparseGrid, fill: float) -> tuple[Tensor, Tensor]:
    """See the package."""
    value = np.zeros(len(points), np.float32)
    gradient = np.zeros((len(points), 3), np.float32)
    _sample(points.numpy(), values.numpy(), block_table(grid).numpy(), np.float32(fill), value, gradient)
    return torch.from_numpy(value), torch.from_numpy(gradient)


@njit(cache=True, nogil=True)
def _corner(values: Any, table: Any, fill: Any, i: int, j: int, k: int) -> Any:
    size = table.shape[0] * 8
    if i < 0 or j < 0 or k < 0 or i >= size or j >= size or k >= size:
        return fill
    row = table[i >> 3, j >> 3, k >> 3]
    if row < 0:
        return fill
    return values[row, i & 7, j & 7, k & 7]


@njit(cache=True, nogil=True)
def _corners(values: Any, table: Any, fill: Any, i: int, j: int, k: int) -> Any:
    size = table.shape[0] * 8 - 1
    x, y, z = i & 7, j & 7, k & 7
    if x < 7 and y < 7 and z < 7 and 0 <= i < size and 0 <= j < size and 0 <= k < size:
        row = table[i >> 3, j >> 3, k >> 3]  # two thirds of all cells lie inside one block: one look-up
        if row < 0:
            return fill, fill, fill, fill, fill, fill, fill, fill
        near, far = values[row, x], values[row, x + 1]
        return (
            near[y, z], near[y, z + 1], near[y + 1, z], near[y + 1, z + 1],
            far[y, z], far[y, z + 1], far[y + 1, z], far[y + 1, z + 1],
        )  # fmt: skip
    return (
        _corner(values, table, fill, i, j, k),
        _corner(values, table, fill, i, j, k + 1),
        _corner(values, table, fill, i, j + 1, k),
        _corner(values, table, fill, i, j + 1, k + 1),
        _corner(values, table, fill, i + 1, j, k),
        _corner(values, table, fill, i + 1, j, k + 1),
        _corner(values, table, fill, i + 1, j + 1, k),
        _corner(values, table, fill, i + 1, j + 1, k + 1),
    )


@njit(cache=True, parallel=True, nogil=True)
def _sample(points: Any, values: Any, table: Any, fill: Any, value: Any, gradient: Any) -> None:
    size = np.float32(table.shape[0] * 8)
    half, one = np.float32(0.5), np.float32(1.0)
    limit = np.float32(2**30)  # keeps the integer conversion defined for points far outside, which read `fill`
    for q in prange(len(points)):
        x = (points[q, 0] + half) * size - half
        y = (points[q, 1] + half) * size - half
        z = (points[q, 2] + half) * size - half
        fx, fy, fz = np.floor(x), np.floor(y), np.floor(z)
        if not (abs(fx) < limit and abs(fy) < limit and abs(fz) < limit):
            value[q] = fill
            continue
        i, j, k = int(fx), int(fy), int(fz)
        x, y, z = x - fx, y - fy, z - fz
        c000, c001, c010, c011, c100, c101, c110, c111 = _corners(values, table, fill, i, j, k)
        c00 = c000 * (one - z) + c001 * z
        c01 = c010 * (one - z) + c011 * z
        c10 = c100 * (one - z) + c101 * z
        c11 = c110 * (one - z) + c111 * z
        low, high = c00 * (one - y) + c01 * y, c10 * (one - y) + c11 * y
        value[q] = low * (one - x) + high * x
        gradient[q, 0] = high - low
        gradient[q, 1] = (c01 - c00) * (one - x) + (c11 - c10) * x
        low = (c001 - c000) * (one - y) + (c011 - c010) * y
        high = (c101 - c100) * (one - y) + (c111 - c110) * y
        gradient[q, 2] = low * (one - x) + high * x
