"""Near vertices of a double-layered surface: who lies on the other layer, and who is covered by somebody else.

Points are in voxels. Neighbours are looked for within `REACH`, through a list of cells of twice that size, which is made
once and asked several times.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose

BACKENDS = ("reference", "cpu", "triton")
REACH = 1.0  # voxels: farther apart, two vertices are not the same place of a surface


@dataclass(frozen=True)
class VertexCells:
    """Points (V, 3) float32 in voxels, and their cells as `backend` lists them."""

    points: Tensor
    backend: str
    cells: Any


def vertex_cells(points: Tensor, *, backend: str = "auto") -> VertexCells:
    """Sorts points into cells.

    Args:
        points: (V, 3) float32, voxels.
        backend: auto, reference, cpu or triton; it also answers the questions below.

    Raises:
        BadArgument: not (V, 3), or a backend that cannot serve the device.
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise BadArgument(f"expected points (V, 3), got {tuple(points.shape)}.", where="vertex_cells")
    which = choose(backend, points.device, available=BACKENDS, op="vertex_cells")
    points = points.float().contiguous()
    if len(points) == 0:
        return VertexCells(points, which, None)
    return VertexCells(points, which, _path(which).list_cells(points))


def _path(backend: str) -> Any:
    return import_module(f"{__name__}.{backend}")


def opposite_vertices(
    cells: VertexCells, directions: Tensor, *, thickness: float = 0.5, alignment: float = -0.8
) -> Tensor:
    """For every vertex the one that lies closest beside it among those of the opposite direction.

    Args:
        cells: from `vertex_cells`.
        directions: (V, 3) float32 unit vectors.
        thickness: voxels between the two along the first one's direction.
        alignment: largest cosine between the two directions.

    Returns:
        (V,) int64; -1 where no such vertex lies within REACH. "Closest" ignores the distance along the direction; of
        equal ones the lowest index wins. Not symmetric.

    Raises:
        BadArgument: directions that are not (V, 3).
    """
    if directions.shape != cells.points.shape:
        raise BadArgument(
            f"expected directions {tuple(cells.points.shape)}, got {tuple(directions.shape)}.",
            where="opposite_vertices",
        )
    if len(directions) == 0:
        return torch.zeros(0, dtype=torch.int64, device=directions.device)
    found: Tensor = _path(cells.backend).opposite_vertices(cells, directions.float().contiguous(), thickness, alignment)
    return found


def covered_vertices(cells: VertexCells, owner: Tensor, asked: Tensor) -> Tensor:
    """Whether a vertex of another owner lies within REACH.

    Args:
        cells: from `vertex_cells`.
        owner: (V,) integer; owners below zero cover nobody.
        asked: (V,) bool, whom to answer for; the others get False.

    Returns:
        (V,) bool.

    Raises:
        BadArgument: shapes that do not fit.
    """
    if owner.shape != cells.points.shape[:1] or asked.shape != owner.shape:
        raise BadArgument(
            f"expected owner and asked ({len(cells.points)},), got {tuple(owner.shape)} and {tuple(asked.shape)}.",
            where="covered_vertices",
        )
    if not bool(asked.any()):
        return torch.zeros_like(asked)
    covered: Tensor = _path(cells.backend).covered_vertices(
        cells, owner.to(torch.int64).contiguous(), asked.contiguous()
    )
    return covered
