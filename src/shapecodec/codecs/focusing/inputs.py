"""What Focusing's encoder reads: latent voxels that the surface touches, and oriented points within them (section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shapecodec.errors import BadMesh
from shapecodec.grid import SparseGrid
from shapecodec.mesh import Mesh
from shapecodec.ops.voxelise import voxelise


@dataclass(frozen=True, eq=False)
class PointVoxels:
    """Oriented points of one or several shapes, sorted by voxel.

    Args:
        grid: N latent voxels.
        points: (P, 6) float32: the place within its voxel, in [-1, 1]^3, and the unit normal of its face.
        offsets: (N + 1,) int64 on the device; voxel i owns points offsets[i] : offsets[i + 1].
        resolution: voxels an axis of the output.
        mesh: of a single shape, what they were taken from, for `Focusing.oracle`; None for a batch.
    """

    grid: SparseGrid
    points: Tensor
    offsets: Tensor
    resolution: int
    mesh: Mesh | None = None

    @property
    def tokens(self) -> int:
        """Latent voxels of all shapes."""
        return len(self.grid)

    @staticmethod
    def pack(items: Sequence[PointVoxels]) -> PointVoxels:
        """Shapes of one resolution as one batch."""
        starts, first = [items[0].offsets[:1]], 0
        for item in items:
            starts.append(item.offsets[1:] + first)
            first += len(item.points)
        grid = SparseGrid.concatenate([item.grid for item in items])
        return PointVoxels(grid, torch.cat([item.points for item in items]), torch.cat(starts), items[0].resolution)

    def to(self, device: torch.device | str) -> PointVoxels:
        """The same inputs on another device."""
        mesh = None if self.mesh is None else self.mesh.to(device)
        return PointVoxels(self.grid.to(device), self.points.to(device), self.offsets.to(device), self.resolution, mesh)


def latent_voxels(mesh: Mesh, resolution: int, factor: int) -> SparseGrid:
    """The latent voxels of a mesh: those that a triangle comes nearer than one output voxel.

    Raises:
        BadMesh: no part of the surface lies in the unit cube.
    """
    grid = voxelise(mesh.vertices, mesh.faces, resolution // factor, dilation=1.0, fine=factor)
    if len(grid) == 0:
        raise BadMesh("no part of the surface lies in the unit cube.", where=mesh.name, hint="Mesh.normalise() first.")
    return grid


def points_in(grid: SparseGrid, places: Tensor, normals: Tensor, resolution: int) -> PointVoxels:
    """The points that lie in voxels of the grid, one item; the others are left out, never given to a neighbour.

    Args:
        grid: N voxels of one item.
        places: (P, 3) float32 in the unit cube.
        normals: (P, 3) float32.
        resolution: voxels an axis of the output.
    """
    scaled = (places + 0.5) * grid.resolution
    cell = scaled.floor().clamp_(0, grid.resolution - 1)
    row = grid.lookup(cell.to(torch.int32))
    row, order = torch.sort(torch.where(row < 0, len(grid), row), stable=True)  # those left out go last
    offsets = torch.searchsorted(row, torch.arange(len(grid) + 1, device=row.device))
    values = torch.cat([2 * (scaled - cell) - 1, normals], 1)
    inside = int(offsets[-1])
    return PointVoxels(grid, values[order[:inside]], offsets, resolution)
