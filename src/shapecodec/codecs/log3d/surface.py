"""From an unsigned distance field in 8^3 blocks to a mesh.

`shell` is the paper's eps-isosurface (two layers, one voxel off the surface); `snapped` moves its vertices back onto
the surface.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from shapecodec.codecs.log3d.snap import UnsignedField, growing_directions, snap
from shapecodec.errors import BadArgument, BadMesh
from shapecodec.grid import SparseGrid
from shapecodec.mesh import Mesh
from shapecodec.ops.marching_cubes import marching_cubes

SURFACES = ("shell", "snapped")
EPSILON = 1.0  # voxels: the level of the shell (supplement: eps = 1 / resolution)


@dataclass(frozen=True)
class SurfaceReport:
    """How a surface was made.

    Args:
        requested: the mode that was asked for.
        mode: the mode that was used.
        reason: why `mode` differs from what was asked for, or empty.
    """

    requested: str
    mode: str
    reason: str = ""


def extract_surface(
    values: Tensor, grid: SparseGrid, resolution: int, *, truncation: float = 4.0, mode: str = "snapped"
) -> tuple[Mesh, SurfaceReport]:
    """The surface of a blocked unsigned distance field, in the unit cube.

    Args:
        values: (L, 8, 8, 8) float32 u / tau in [0, 1], indexed [block, x, y, z].
        grid: the L blocks, one item; resolution / 8 blocks an axis.
        resolution: voxels an axis.
        truncation: tau in voxels.
        mode: one of SURFACES.

    Raises:
        BadArgument: an unknown mode.
        BadMesh: the field nowhere falls below one voxel.
    """
    if mode not in SURFACES:
        raise BadArgument(f"unknown surface '{mode}'.", where="extract_surface", hint=f"one of {', '.join(SURFACES)}.")
    vertices, faces = marching_cubes(values, grid, EPSILON / truncation)
    if len(faces) == 0:
        raise BadMesh(
            f"the field has no surface: it stays above {EPSILON:g} voxel everywhere.", where="extract_surface"
        )
    if mode == "snapped":
        field = UnsignedField(values, grid, truncation)
        vertices = snap(vertices, growing_directions(vertices, faces, field), EPSILON, field)
    return Mesh(vertices, faces, "surface"), SurfaceReport(mode, mode)
