"""The specification of both operations in torch: every candidate in turn, all points at once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from shapecodec.ops.layer_pairs import REACH, VertexCells
from shapecodec.ops.layer_pairs.cells import CellList, cell_key, corner_cells, list_cells

__all__ = ["covered_vertices", "list_cells", "opposite_vertices"]


def _candidates(cells: CellList) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs (point, other) of int64 vectors that together hold every pair of points in neighbouring cells once."""
    for corner in corner_cells(cells.low.device):
        key = cell_key(cells.low + corner)
        cell = torch.searchsorted(cells.keys, key).clamp_(max=len(cells.keys) - 1)
        point = (cells.keys[cell] == key).nonzero()[:, 0]
        place, end = cells.start[cell[point]], cells.start[cell[point] + 1]
        while len(point):
            yield point, cells.order[place]
            place = place + 1
            more = place < end
            point, place, end = point[more], place[more], end[more]


def opposite_vertices(cells: VertexCells, directions: Tensor, thickness: float, alignment: float) -> Tensor:
    """See the package."""
    points = cells.points
    best = torch.full((len(points),), torch.inf, device=points.device)
    found = torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
    for point, other in _candidates(cells.cells):
        way = points[other] - points[point]
        along = (way * directions[point]).sum(1)
        beside = (way * way).sum(1) - along * along
        fits = (directions[point] * directions[other]).sum(1) <= alignment
        fits &= (along.abs() <= thickness) & ((way * way).sum(1) <= REACH * REACH)
        closer = fits & ((beside < best[point]) | ((beside == best[point]) & (other < found[point])))
        best[point[closer]] = beside[closer]
        found[point[closer]] = other[closer]
    return found


def covered_vertices(cells: VertexCells, owner: Tensor, asked: Tensor) -> Tensor:
    """See the package."""
    points = cells.points
    covered = torch.zeros_like(asked)
    for point, other in _candidates(cells.cells):
        way = points[other] - points[point]
        near = ((way * way).sum(1) <= REACH * REACH) & (owner[other] != owner[point]) & (owner[other] >= 0)
        covered[point[near]] = True
    return covered & asked
