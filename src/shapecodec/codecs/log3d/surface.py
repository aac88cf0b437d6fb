"""From an unsigned distance field in 8^3 blocks to a mesh.

`shell` is the paper's eps-isosurface: two layers, one voxel off the surface. `snapped` moves its vertices back onto the
surface. `single` keeps one of the two layers. `auto` keeps one layer wherever no part of the surface is lost by it.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from shapecodec.codecs.log3d.single import Layer, single_layer
from shapecodec.codecs.log3d.snap import UnsignedField, growing_directions, snap
from shapecodec.errors import BadArgument, BadMesh
from shapecodec.grid import SparseGrid
from shapecodec.mesh import Mesh
from shapecodec.ops.marching_cubes import marching_cubes

SURFACES = ("shell", "snapped", "single", "auto")
EPSILON = 1.0  # voxels: the level of the shell (supplement: eps = 1 / resolution)
LOST_WEIGHT = {"single": 2.0, "auto": 20.0}  # a lost vertex against a doubled one
DOUBLE = 0.02  # share of doubled vertices up to which a surface still is a single layer


@dataclass(frozen=True)
class SurfaceReport:
    """How a surface was made.

    Args:
        requested: the mode that was asked for.
        mode: shell, snapped or single, or "mixed" where some parts kept both layers.
        reason: why, in words.
        components: connected components of the shell (0 for shell and snapped, which do not look).
        dropped: layers that were dropped.
        double: share of the surface that has two layers.
        lost: vertices of dropped layers that lie farther than a voxel from the surface that was kept.
        patched: small holes that were closed.
    """

    requested: str
    mode: str
    reason: str
    components: int = 0
    dropped: int = 0
    double: float = 1.0
    lost: int = 0
    patched: int = 0


def extract_surface(
    values: Tensor, grid: SparseGrid, resolution: int, *, truncation: float = 4.0, mode: str = "auto"
) -> tuple[Mesh, SurfaceReport]:
    """The surface of a blocked unsigned distance field, in the unit cube.

    Args:
        values: (L, 8, 8, 8) float32 u / tau in [0, 1], indexed [block, x, y, z].
        grid: the L blocks, one item; resolution / 8 blocks an axis.
        resolution: voxels an axis.
        truncation: tau in voxels.
        mode: one of SURFACES. `single` and `auto` separate the layers on the CPU, wherever the field is.

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
    if mode == "shell":
        return Mesh(vertices, faces, "surface"), SurfaceReport(mode, mode, "both layers, one voxel off the surface.")
    field = UnsignedField(values, grid, truncation)
    directions = growing_directions(vertices, faces, field)
    snapped = snap(vertices, directions, EPSILON, field)
    if mode == "snapped":
        return Mesh(snapped, faces, "surface"), SurfaceReport(mode, mode, "both layers, moved onto the surface.")
    device = values.device
    if (
        device.type == "cuda"
    ):  # what follows has run on CPUs only: told in the docstring, measured when it has been tried
        vertices, faces, directions, snapped = (t.cpu() for t in (vertices, faces, directions, snapped))
        field = UnsignedField(values.cpu(), grid.to("cpu"), truncation)
    points = (snapped + 0.5) * resolution
    layer = single_layer(
        vertices,
        faces,
        points,
        directions,
        resolution,
        lambda place: field(place / resolution - 0.5)[0],
        lost_weight=LOST_WEIGHT[mode],
        restore=mode == "auto",
    )
    mesh = Mesh(layer.points / resolution - 0.5, layer.faces, "surface")
    return mesh.to(device), _report(mode, layer)


def _report(requested: str, layer: Layer) -> SurfaceReport:
    if layer.dropped == 0:
        mode, reason = "snapped", "every layer shows a part of the surface that no other layer shows."
    elif layer.double > DOUBLE:
        mode = "mixed"
        reason = (
            f"{layer.double:.0%} of the surface keeps both layers: walls or gaps there are thinner than two voxels."
        )
    else:
        mode, reason = "single", "one layer shows the whole surface."
    if layer.lost:
        reason += f" {layer.lost:,} vertices of dropped layers lie farther than a voxel from it."
    return SurfaceReport(
        requested, mode, reason, layer.components, layer.dropped, layer.double, layer.lost, layer.patched
    )
