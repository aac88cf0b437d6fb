"""Marching cubes over sparse 8^3 blocks: no dense volume, no duplicate vertices, no holes between blocks.

Samples are voxel centres; cell (i, j, k) has its corners at the centres i..i+1 on each axis. `tables` derives the
cases, `blocks` finds the cells at the border of active blocks. Vertices are ordered by block, voxel and axis, faces by
block, cell and slot: every backend returns the same arrays up to rounding.
"""

from __future__ import annotations

import math
from importlib import import_module

import numpy as np
import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.ops.dispatch import choose
from shapecodec.ops.marching_cubes.blocks import Level, cell_blocks

BACKENDS = ("reference", "cpu", "triton")


def marching_cubes(
    values: Tensor,
    grid: SparseGrid,
    level: float,
    *,
    fill: float = 1.0,
    absent: str = "fill",
    inside_is_below: bool = True,
    index_dtype: torch.dtype = torch.int64,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """The surface where the field crosses `level`.

    It is watertight: every edge has two faces, also where the surface leaves the active blocks or the cube (beyond both
    everything is `fill`; at the cube's border vertices lie up to half a voxel outside). A vertex keeps 2^-10 voxel from
    the ends of its edge, so a value exactly at the level makes no zero triangle. NaN is outside; next to NaN or
    infinity a vertex lies in the middle of its edge. Not differentiable.

    With absent="skip" nothing is assumed of absent blocks of the cube: cells that touch one are left out, as a solid needs
    whose deep inside is absent like the space around it. The surface then is open where it runs into an absent block,
    and vertices there may belong to no face. Beyond the cube everything still is `fill`.

    Args:
        values: (L, 8, 8, 8) float32, row l is block l of `grid`, index [l, x, y, z].
        grid: L blocks of one item, on the device of `values`; the field has 8 * grid.resolution voxels on an axis.
        level: the value on the surface, in the units of `values`.
        fill: the value of voxels in absent blocks and beyond the cube.
        absent: "fill" or "skip", what becomes of cells at absent blocks within the cube.
        inside_is_below: inside is value < level (distances); False: inside is value > level (occupancy).
        index_dtype: torch.int64 or torch.int32, for the faces.
        backend: auto, reference, cpu or triton.

    Returns:
        vertices (V, 3) float32 in the unit cube, faces (F, 3), counter-clockwise seen from outside.

    Raises:
        BadArgument: wrong shape, type or device, several items, an unknown `absent`, or a backend that cannot serve.
    """
    _check(values, grid, level, fill, index_dtype)
    if absent not in ("fill", "skip"):
        raise BadArgument(f"unknown absent '{absent}'.", where="marching_cubes", hint="fill or skip.")
    chosen = choose(backend, values.device, available=BACKENDS, op="marching_cubes")
    if len(grid) == 0:
        return values.new_zeros((0, 3)), torch.zeros((0, 3), dtype=index_dtype, device=values.device)
    values = values.detach().contiguous()
    spec = Level(float(np.float32(level)), float(np.float32(fill)), inside_is_below)
    blocks = cell_blocks(values, grid, spec, skip=absent == "skip")
    path = import_module(f"{__name__}.{chosen}")
    return path.extract(values, blocks, grid.resolution * 8, spec, index_dtype)


def _check(values: Tensor, grid: SparseGrid, level: float, fill: float, index_dtype: torch.dtype) -> None:
    where = "marching_cubes"
    if tuple(values.shape) != (len(grid), 8, 8, 8):
        raise BadArgument(f"expected values ({len(grid)}, 8, 8, 8), got {tuple(values.shape)}.", where=where)
    if values.dtype != torch.float32:
        raise BadArgument(f"expected float32 values, got {values.dtype}.", where=where, hint="values.float().")
    if values.device != grid.device:
        raise BadArgument(f"values are on {values.device}, the grid on {grid.device}.", where=where)
    if grid.batch_size != 1:
        raise BadArgument(f"expected one item, got a batch of {grid.batch_size}.", where=where)
    if index_dtype not in (torch.int64, torch.int32):
        raise BadArgument(f"index_dtype {index_dtype} is neither int64 nor int32.", where=where)
    if not (math.isfinite(level) and math.isfinite(fill)):
        raise BadArgument(f"level {level} and fill {fill} must be finite.", where=where)
