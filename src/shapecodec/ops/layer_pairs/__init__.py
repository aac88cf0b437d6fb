"""Near vertices of a double-layered surface: who lies on the other layer, and who is covered by somebody else.

Points are in voxels. Neighbours are looked for within `REACH`, through a list of cells of twice that size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose

BACKENDS = ("reference", "cpu", "triton")
REACH = 1.0  # voxels: farther apart, two vertices are not the same place of a surface


def opposite_vertices(
    points: Tensor, directions: Tensor, *, thickness: float = 0.5, alignment: float = -0.8, backend: str = "auto"
) -> Tensor:
    """For every vertex the one that lies closest beside it among those of the opposite direction.

    Args:
        points: (V, 3) float32, voxels.
        directions: (V, 3) float32 unit vectors.
        thickness: voxels between the two along the first one's direction.
        alignment: largest cosine between the two directions.
        backend: auto, reference, cpu or triton.

    Returns:
        (V,) int64; -1 where no such vertex lies within REACH. "Closest" ignores the distance along the direction; of
        equal ones the lowest index wins. Not symmetric.

    Raises:
        BadArgument: shapes that do not fit, or a backend that cannot serve the device.
    """
    if points.ndim != 2 or points.shape[1] != 3 or directions.shape != points.shape:
        raise BadArgument(
            f"expected points and directions (V, 3), got {tuple(points.shape)} and {tuple(directions.shape)}.",
            where="opposite_vertices",
        )
    which = choose(backend, points.device, available=BACKENDS, op="opposite_vertices")
    if len(points) == 0:
        return torch.zeros(0, dtype=torch.int64, device=points.device)
    points, directions = points.float().contiguous(), directions.float().contiguous()
    if which == "cpu":
        from shapecodec.ops.layer_pairs import cpu

        return cpu.opposite_vertices(points, directions, thickness, alignment)
    if which == "triton":
        from shapecodec.ops.layer_pairs import triton

        return triton.opposite_vertices(points, directions, thickness, alignment)
    from shapecodec.ops.layer_pairs import reference

    return reference.opposite_vertices(points, directions, thickness, alignment)


def covered_vertices(points: Tensor, owner: Tensor, asked: Tensor, *, backend: str = "auto") -> Tensor:
    """Whether a vertex of another owner lies within REACH.

    Args:
        points: (V, 3) float32, voxels.
        owner: (V,) integer; owners below zero cover nobody.
        asked: (V,) bool, whom to answer for; the others get False.
        backend: auto, reference, cpu or triton.

    Returns:
        (V,) bool.

    Raises:
        BadArgument: shapes that do not fit, or a backend that cannot serve the device.
    """
    if points.ndim != 2 or points.shape[1] != 3 or owner.shape != points.shape[:1] or asked.shape != owner.shape:
        raise BadArgument(
            f"expected points (V, 3), owner and asked (V,), got {[tuple(x.shape) for x in (points, owner, asked)]}.",
            where="covered_vertices",
        )
    which = choose(backend, points.device, available=BACKENDS, op="covered_vertices")
    points, owner, asked = points.float().contiguous(), owner.to(torch.int64).contiguous(), asked.contiguous()
    if len(points) == 0 or not bool(asked.any()):
        return torch.zeros_like(asked)
    if which == "cpu":
        from shapecodec.ops.layer_pairs import cpu

        return cpu.covered_vertices(points, owner, asked)
    if which == "triton":
        from shapecodec.ops.layer_pairs import triton

        return triton.covered_vertices(points, owner, asked)
    from shapecodec.ops.layer_pairs import reference

    return reference.covered_vertices(points, owner, asked)
