"""The list of cells, twice REACH wide, that all paths walk: within REACH of a point lie at most two cells an axis."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shapecodec.ops.layer_pairs import REACH

WIDTH = 2 * REACH
SHIFT = 21  # bits an axis of a cell's key


@dataclass(frozen=True)
class CellList:
    """Points sorted by cell.

    Args:
        order: (V,) int64, the points in the order of their cells, ascending within a cell.
        keys: (C,) int64 ascending, the occupied cells.
        start: (C + 1,) int64, cell c holds order[start[c] : start[c + 1]].
        low: (V, 3) int64 the lower of the two cells an axis that each point's reach touches.
    """

    order: Tensor
    keys: Tensor
    start: Tensor
    low: Tensor


def cell_key(cells: Tensor) -> Tensor:
    """(..., 3) int64 cell coordinates from -1 on -> (...,) int64."""
    shifted = cells + 1
    return (shifted[..., 0] << (2 * SHIFT)) | (shifted[..., 1] << SHIFT) | shifted[..., 2]


def list_cells(points: Tensor) -> CellList:
    """Sorts points (V, 3) into cells; coordinates count from the lowest point's cell."""
    place = points / WIDTH
    origin = place.amin(0).floor()
    cells = (place.floor() - origin).long()
    key = cell_key(cells)
    key, order = torch.sort(key, stable=True)
    keys, count = torch.unique_consecutive(key, return_counts=True)
    start = torch.cat([count.new_zeros(1), count.cumsum(0)])
    low = ((place - 0.5).floor() - origin).long()
    return CellList(order, keys, start, low)


def corner_cells(device: torch.device) -> Tensor:
    """(8, 3) int64 offsets of the cells that a reach can touch."""
    axis = torch.arange(2, device=device)
    return torch.cartesian_prod(axis, axis, axis)
