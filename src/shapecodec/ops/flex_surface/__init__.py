"""Dual marching cubes with learnt weights on active voxels only: SparseFlex (He et al. 2025) over FlexiCubes (Shen et al. 2023).

`tables` derives the cases, `corners` shares values between voxels, `reference` extracts. Values live at the corners of
active voxels, negative inside; nothing is assumed of voxels that are not active, so a surface ends where they end.
Corner s of a voxel is 4 x + 2 y + z, edge e is 4 axis + 2 u + v with u, v its bits on the other axes in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.ops.dispatch import choose
from shapecodec.ops.flex_surface.corners import Corners, average_corners, voxel_corners

__all__ = ["Corners", "FlexSurface", "average_corners", "flex_surface", "voxel_corners"]

BACKENDS = ("reference", "triton")
SPLITS = ("centre", "diagonal")


@dataclass(frozen=True, eq=False)
class FlexSurface:
    """An extracted surface; both tensors of floats are differentiable.

    Args:
        vertices: (V, 3) in the unit cube, each used by a face: dual vertices by voxel, then the centres of quads, if any.
        faces: (F, 3) int64, counter-clockwise seen from outside (where sdf is positive).
        deviation: scalar, the regulariser, in lengths of the unit cube.
    """

    vertices: Tensor
    faces: Tensor
    deviation: Tensor


def flex_surface(
    grid: SparseGrid,
    sdf: Tensor,
    deformation: Tensor,
    alpha: Tensor,
    beta: Tensor,
    gamma: Tensor,
    *,
    split: str = "centre",
    backend: str = "auto",
) -> FlexSurface:
    """The surface sdf = 0 in the active voxels, differentiable in all five inputs.

    FlexiCubes, section 4: edge e of voxel n crosses zero at u_e, found linearly with sdf scaled by alpha at its ends
    (eq. 4); a dual vertex is the mean of its u_e with weights beta (eq. 5). Each grid edge with a change of sign whose
    four voxels are all active gives a quad of their dual vertices; with fewer the surface is open there. Quads are
    split by gamma: with "centre" into four triangles around the mean of the two diagonals' midpoints with weights
    gamma_0 gamma_2 and gamma_1 gamma_3, with "diagonal" into two along the diagonal of the larger product.
    At most two quads meet in an edge, whatever the signs: cells that would share a doubled edge are switched together.

    The regulariser (eq. 8) is the mean absolute deviation of the distances between a dual vertex and its crossings taken
    with alpha = 1: of each dual vertex from its own mean distance, averaged over all pairs of dual vertex and edge, those
    without a quad too. It is 0 where there is no surface.

    Args:
        grid: N active voxels of one item.
        sdf: (C,) float32 (or float64, for tests) at the corners of `voxel_corners(grid)`, finite, inside is below zero.
        deformation: (C, 3) displacement of the corners in voxels; the caller keeps it below 0.5.
        alpha: (N, 8) positive weights of the corners of each voxel.
        beta: (N, 12) positive weights of the edges of each voxel.
        gamma: (N,) positive weights of the diagonals' ends.
        split: "centre" in training, "diagonal" for the final mesh.
        backend: auto, reference or triton.

    Returns:
        The surface, empty if no voxel holds a change of sign; always part of the graph.

    Raises:
        BadArgument: wrong shape, type or device, several items, an unknown `split` or backend.
    """
    corners = voxel_corners(grid)
    shapes = {
        "sdf": (sdf, (len(corners),)),
        "deformation": (deformation, (len(corners), 3)),
        "alpha": (alpha, (len(grid), 8)),
        "beta": (beta, (len(grid), 12)),
        "gamma": (gamma, (len(grid),)),
    }
    for name, (value, shape) in shapes.items():
        _check(name, value, shape, sdf.dtype, grid.device)
    if split not in SPLITS:
        raise BadArgument(f"unknown split '{split}'.", where="flex_surface", hint="centre or diagonal.")
    chosen = choose(backend, grid.device, available=BACKENDS, op="flex_surface")
    path = import_module(f"{__name__}.{chosen}")
    vertices, faces, deviation = path.extract(grid, corners, sdf, deformation, alpha, beta, gamma, split == "centre")
    return FlexSurface(vertices, faces, deviation)


def _check(name: str, value: Tensor, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
    where = "flex_surface"
    if tuple(value.shape) != shape:
        raise BadArgument(f"expected {name} {shape}, got {tuple(value.shape)}.", where=where)
    if dtype not in (torch.float32, torch.float64) or value.dtype != dtype:
        raise BadArgument(
            f"{name} is {value.dtype} (sdf {dtype}), expected float32 throughout.", where=where, hint=f"{name}.float()."
        )
    if value.device != device:
        raise BadArgument(f"{name} is on {value.device}, the grid on {device}.", where=where)
