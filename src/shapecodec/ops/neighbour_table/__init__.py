"""The table of 3^3 neighbours that sparse layers share, made by one search for each pair of neighbours."""

from __future__ import annotations

from torch import Tensor

from shapecodec.grid import SparseGrid
from shapecodec.ops.dispatch import choose

__all__ = ["neighbour_table"]


def neighbour_table(grid: SparseGrid, *, backend: str = "auto") -> Tensor:
    """`grid.neighbours()`, made by Triton on CUDA; the grid keeps it as its own.

    Args:
        grid: N voxels; that of a grid of `children` is derived from its parent's, as the grid itself does. A table that the
            grid has is taken as it is.
        backend: auto, reference (`grid.neighbours()`) or triton.

    Returns:
        (N, 27) int32 rows in `grid.neighbour_taps` order, -1 where empty.

    Raises:
        BadArgument: a backend that cannot serve the grid's device.
    """
    chosen = choose(backend, grid.device, available=("reference", "triton"), op="neighbour_table")
    if chosen == "reference":
        return grid.neighbours()
    from shapecodec.ops.neighbour_table.triton import (
        derive,
        search,
    )  # imported here: Triton is absent on some platforms

    parent = grid.parent
    if parent is None:
        return grid.cached("neighbours", lambda: search(grid))
    return grid.cached("neighbours", lambda: derive(neighbour_table(parent, backend=backend)))
