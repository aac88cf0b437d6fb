"""The truncated unsigned distance field of a triangle mesh, straight into active 8^3 blocks (LoG3D's input).

Exact point-to-triangle distances, driven by blocks: memory is proportional to the surface, never to resolution^3.
No gradients: fields are data here.
"""

from __future__ import annotations

from importlib import import_module

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.ops.dispatch import choose

BLOCK = 8
MAX_RESOLUTION = 8192  # ten bits of block coordinate an axis: Morton keys fit in 30 bits


def udf_blocks(
    vertices: Tensor,
    faces: Tensor,
    resolution: int,
    *,
    truncation: float = 4.0,
    activity: float = 4.0,
    backend: str = "auto",
) -> tuple[SparseGrid, Tensor]:
    """Unsigned distance u to the triangles, sampled at voxel centres of the blocks near the surface.

    Voxel i has its centre at (i + 0.5) / resolution - 0.5 in the unit cube. A block of 8^3 voxels is kept where the
    smallest u of its 512 voxels is below activity / resolution. Triangles of zero area count as segments or points;
    whatever lies outside the cube contributes only where it is within reach of a voxel centre. The result does not
    depend on the order of the faces, on the number of threads or on the run.

    Args:
        vertices: (V, 3) float32, unit cube.
        faces: (F, 3) int64; F may be 0.
        resolution: voxels an axis, a multiple of 8, at most 8192.
        truncation: in voxels; tau = truncation / resolution (paper: 4).
        activity: in voxels (paper: 4).
        backend: auto, reference, cpu (numba) or triton.

    Returns:
        The grid of kept blocks (one item, Morton order, resolution / 8 blocks an axis) and the values
        (L, 8, 8, 8) float32 = min(u, tau) / tau in [0, 1], indexed [block, x, y, z]. Both without gradient.

    Raises:
        BadArgument: wrong shapes or types, non-finite vertices, an index out of range, a resolution that is no
            multiple of 8, a distance that is not positive, or a backend that cannot serve the tensors' device.
    """
    _check(vertices, faces, resolution, truncation, activity)
    chosen = choose(backend, vertices.device, available=("reference", "cpu", "triton"), op="udf_blocks")
    if len(faces) == 0:
        coords = torch.zeros(0, 3, dtype=torch.int32, device=vertices.device)
        return block_grid(coords, resolution), vertices.new_zeros(0, BLOCK, BLOCK, BLOCK)
    path = import_module(f"{__name__}.{chosen}")  # only the one that runs: Triton is optional, numba slow to import
    with torch.no_grad():
        coords, values = path.udf_blocks(vertices.detach(), faces, resolution, float(truncation), float(activity))
    return block_grid(coords, resolution), values


def block_grid(coords: Tensor, resolution: int) -> SparseGrid:
    """One item from block coordinates (L, 3) int32 that are in Morton order already."""
    return SparseGrid(coords, torch.tensor([0, len(coords)]), resolution // BLOCK)


def _check(vertices: Tensor, faces: Tensor, resolution: int, truncation: float, activity: float) -> None:
    where = "udf_blocks"
    if vertices.ndim != 2 or vertices.shape[1] != 3 or vertices.dtype != torch.float32:
        raise BadArgument(f"vertices are {tuple(vertices.shape)} {vertices.dtype}, not (V, 3) float32.", where=where)
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype != torch.int64:
        raise BadArgument(f"faces are {tuple(faces.shape)} {faces.dtype}, not (F, 3) int64.", where=where)
    if faces.device != vertices.device:
        raise BadArgument(f"vertices are on {vertices.device}, faces on {faces.device}.", where=where)
    if resolution % BLOCK or not BLOCK <= resolution <= MAX_RESOLUTION:
        raise BadArgument(
            f"resolution {resolution} is not a multiple of 8 in [8, {MAX_RESOLUTION}].",
            where=where,
            hint="256 to 2048.",
        )
    if not (0.0 < truncation < float("inf") and 0.0 < activity < float("inf")):
        raise BadArgument(f"truncation {truncation} and activity {activity} must be positive.", where=where)
    if len(faces) == 0:
        return
    if len(vertices) == 0:
        raise BadArgument("faces without vertices.", where=where)
    low, high = faces.aminmax()
    finite = torch.isfinite(vertices).all()
    if not bool(finite & (low >= 0) & (high < len(vertices))):  # one synchronisation for the three questions
        raise BadArgument(
            f"vertices must be finite and face indices in [0, {len(vertices)}), found {int(low)} to {int(high)}.",
            where=where,
            hint="build a shapecodec.Mesh, which says what is wrong.",
        )
