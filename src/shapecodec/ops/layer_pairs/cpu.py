"""Both operations for CPUs: cells of 16^3-voxel blocks found through a dense table, points copied in the order of cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit, prange
from torch import Tensor

from shapecodec.ops.layer_pairs import REACH, VertexCells
from shapecodec.ops.layer_pairs.cells import WIDTH

Cells = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def opposite_vertices(cells: VertexCells, directions: Tensor, thickness: float, alignment: float) -> Tensor:
    """See the package."""
    place, towards = cells.points.numpy(), directions.numpy()
    found = np.full(len(place), -1, np.int64)
    origin, table, start, order = cells.cells
    limits = np.float32(thickness), np.float32(alignment), np.float32(REACH**2)
    _opposite(place, towards, origin, table, start, order, *limits, found)
    return torch.from_numpy(found)


def covered_vertices(cells: VertexCells, owner: Tensor, asked: Tensor) -> Tensor:
    """See the package."""
    covered = np.zeros(len(owner), np.bool_)
    origin, table, start, order = cells.cells
    asks = cells.points.numpy(), owner.numpy(), asked.numpy()
    _covered(*asks, origin, table, start, order, np.float32(REACH**2), covered)
    return torch.from_numpy(covered)


def list_cells(place: Tensor) -> Cells:
    """Origin (3,) of the cells, block table, start of every cell of every block, and the points in that order."""
    points = place.numpy()
    origin = np.floor(points.min(0) / WIDTH).astype(np.int64) - 1
    size = (np.floor(points.max(0) / WIDTH).astype(np.int64) - origin + 2 >> 3) + 1
    table = np.full(size, -1, np.int32)
    blocks = _number_blocks(points, origin, table)
    start = np.zeros(blocks * 512 + 1, np.int64)
    order = np.zeros(len(points), np.int32)
    _fill_cells(points, origin, table, start, order)
    return origin, table, start, order


@njit(cache=True, nogil=True)
def _cell(value: Any, origin: int) -> int:
    return int(np.floor(value / np.float32(WIDTH))) - origin


@njit(cache=True, nogil=True)
def _number_blocks(points: Any, origin: Any, table: Any) -> int:
    count = 0
    for i in range(len(points)):
        x, y, z = _cell(points[i, 0], origin[0]), _cell(points[i, 1], origin[1]), _cell(points[i, 2], origin[2])
        if table[x >> 3, y >> 3, z >> 3] < 0:
            table[x >> 3, y >> 3, z >> 3] = count
            count += 1
    return count


@njit(cache=True, nogil=True)
def _slot(point: Any, origin: Any, table: Any) -> int:
    x, y, z = _cell(point[0], origin[0]), _cell(point[1], origin[1]), _cell(point[2], origin[2])
    return table[x >> 3, y >> 3, z >> 3] * 512 + ((x & 7) << 6) + ((y & 7) << 3) + (z & 7)


@njit(cache=True, nogil=True)
def _fill_cells(points: Any, origin: Any, table: Any, start: Any, order: Any) -> None:
    for i in range(len(points)):
        start[_slot(points[i], origin, table)] += 1
    total = 0
    for cell in range(len(start)):
        count = start[cell]
        start[cell] = total
        total += count
    for i in range(len(points)):
        cell = _slot(points[i], origin, table)
        order[start[cell]] = i
        start[cell] += 1
    for cell in range(len(start) - 1, 0, -1):
        start[cell] = start[cell - 1]
    start[0] = 0


@njit(cache=True, nogil=True)
def _range(table: Any, start: Any, x: int, y: int, z: int) -> tuple[int, int]:
    block = table[x >> 3, y >> 3, z >> 3]
    if block < 0:
        return 0, 0
    cell = block * 512 + ((x & 7) << 6) + ((y & 7) << 3) + (z & 7)
    return start[cell], start[cell + 1]


@njit(cache=True, parallel=True, nogil=True)
def _opposite(
    points: Any, directions: Any, origin: Any, table: Any, start: Any, order: Any,
    thickness: Any, alignment: Any, reach: Any, found: Any,
) -> None:  # fmt: skip
    near, towards = np.zeros_like(points), np.zeros_like(points)
    for place in prange(len(points)):
        near[place], towards[place] = points[order[place]], directions[order[place]]
    half = np.float32(WIDTH / 2)
    for place in prange(len(points)):  # in the order of cells: what a point reads, the point before it has just read
        i = order[place]
        px, py, pz = points[i, 0], points[i, 1], points[i, 2]
        dx, dy, dz = directions[i, 0], directions[i, 1], directions[i, 2]
        x, y, z = _cell(px - half, origin[0]), _cell(py - half, origin[1]), _cell(pz - half, origin[2])
        best, partner = np.float32(np.inf), -1
        for corner in range(8):
            first, last = _range(table, start, x + (corner >> 2), y + (corner >> 1 & 1), z + (corner & 1))
            for k in range(first, last):
                if dx * towards[k, 0] + dy * towards[k, 1] + dz * towards[k, 2] > alignment:
                    continue
                wx, wy, wz = near[k, 0] - px, near[k, 1] - py, near[k, 2] - pz
                along, square = wx * dx + wy * dy + wz * dz, wx * wx + wy * wy + wz * wz
                if abs(along) > thickness or square > reach:
                    continue
                beside = square - along * along
                if beside < best or (beside == best and order[k] < partner):
                    best, partner = beside, order[k]
        found[i] = partner


@njit(cache=True, parallel=True, nogil=True)
def _covered(
    points: Any, owner: Any, asked: Any, origin: Any, table: Any, start: Any, order: Any, reach: Any, covered: Any
) -> None:
    half = np.float32(WIDTH / 2)
    for place in prange(len(points)):
        i = order[place]
        if asked[i]:
            px, py, pz = points[i, 0], points[i, 1], points[i, 2]
            x, y, z = _cell(px - half, origin[0]), _cell(py - half, origin[1]), _cell(pz - half, origin[2])
            for corner in range(8):
                first, last = _range(table, start, x + (corner >> 2), y + (corner >> 1 & 1), z + (corner & 1))
                for k in range(first, last):
                    j = order[k]
                    wx, wy, wz = points[j, 0] - px, points[j, 1] - py, points[j, 2] - pz
                    if owner[j] >= 0 and owner[j] != owner[i] and wx * wx + wy * wy + wz * wz <= reach:
                        covered[i] = True
                if covered[i]:
                    break
