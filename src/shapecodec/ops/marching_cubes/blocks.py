"""Which blocks own cells, and their neighbours on the upper side: shared by all paths.

A cell belongs to the block of its low corner, so a block looks only at neighbours with offsets in {0, 1}^3. Cells
between an absent block and an active one above it belong to the absent block; those that the surface crosses are few
or none, and their blocks are appended here, so that the surface closes where an active block touches the outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shapecodec.grid import SparseGrid, morton_decode, morton_encode

SKIPPED = -2  # stands for the row of an absent block whose cells are left out; -1 is one that reads `fill`


@dataclass(frozen=True)
class Level:
    """What counts as inside. Comparisons are in float32, so `threshold` is rounded to it once."""

    threshold: float
    fill: float
    below: bool

    def inside(self, values: Tensor) -> Tensor:
        """Bool of the shape of `values`; NaN is outside."""
        return values < self.threshold if self.below else values > self.threshold

    @property
    def fill_is_inside(self) -> bool:
        """Whether absent blocks are inside."""
        return self.fill < self.threshold if self.below else self.fill > self.threshold


@dataclass(frozen=True)
class CellBlocks:
    """M >= L blocks that own cells; the first L are the grid's, the others read `fill` everywhere.

    Args:
        coords: (M, 3) int32 block coordinates, from -1 on.
        upper: (M, 8) int32, row of the block at offset (x, y, z) in column 4 x + 2 y + z, -1 where there is none, or
            SKIPPED.
    """

    coords: Tensor
    upper: Tensor


def cell_blocks(values: Tensor, grid: SparseGrid, level: Level, *, skip: bool = False) -> CellBlocks:
    """The grid's blocks, then the absent ones in which cells are crossed, in Morton order; `skip`: only beyond the cube."""
    offsets = torch.cartesian_prod(*[torch.arange(2, device=grid.device)] * 3).int()
    taps = (offsets * offsets.new_tensor([9, 3, 1])).sum(1)  # integer products do not run on CUDA
    neighbours = grid.neighbours()
    absent = neighbours[:, (13 - taps).long()] < 0
    wanted = absent & _differs_at_low_border(values, level)
    if skip:
        wanted &= (grid.coords[:, None] < offsets).any(-1)
    wanted = wanted.nonzero()
    if len(wanted) == 0:
        upper = neighbours[:, (13 + taps).long()]
        return CellBlocks(grid.coords, _upper(upper, grid.coords, offsets, grid.resolution, skip))
    missing = grid.coords[wanted[:, 0]] - offsets[wanted[:, 1]] + 1  # one more: coordinates can be -1
    coords = torch.cat([grid.coords + 1, morton_decode(torch.unique(morton_encode(missing)))])
    extended, order = SparseGrid.build(coords, grid.resolution + 1)
    row = extended.lookup(coords[:, None] + offsets)
    upper = torch.where(row >= 0, order[row.clamp(min=0)], -1)
    return CellBlocks(coords - 1, _upper(upper.to(torch.int32), coords - 1, offsets, grid.resolution, skip))


def _upper(upper: Tensor, coords: Tensor, offsets: Tensor, resolution: int, skip: bool) -> Tensor:
    """The table for the kernels: with `skip`, -1 becomes SKIPPED where the absent block lies in the cube."""
    if skip:
        place = coords[:, None] + offsets
        in_cube = ((place >= 0) & (place < resolution)).all(-1)
        upper = torch.where((upper < 0) & in_cube, SKIPPED, upper)
    return upper.contiguous()


def _differs_at_low_border(values: Tensor, level: Level) -> Tensor:
    """(L, 8) bool: whether a voxel that touches the block at offset -(x, y, z) has the other sign than `fill`."""
    x, y, z = (level.inside(values.select(axis, 0)) != level.fill_is_inside for axis in (1, 2, 3))  # each (L, 8, 8)
    own = torch.zeros(len(values), dtype=torch.bool, device=values.device)
    columns = [
        own,
        z.flatten(1).any(1),
        y.flatten(1).any(1),
        y[:, :, 0].any(1),
        x.flatten(1).any(1),
        x[:, :, 0].any(1),
        x[:, 0, :].any(1),
        x[:, 0, 0],
    ]
    return torch.stack(columns, 1)
