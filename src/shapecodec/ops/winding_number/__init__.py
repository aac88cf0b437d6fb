"""Generalised winding numbers: how much of the sphere around a point a triangle soup covers, with signs."""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose

OP = "winding_number"
LEVEL = 0.5  # |w| above which a point is inside


def winding_number(points: Tensor, vertices: Tensor, faces: Tensor, *, backend: str = "auto") -> Tensor:
    """The sum of the signed solid angles of all faces, over 4 pi (Jacobson et al. 2013, eq. 5 and 6); exact.

    For a closed surface with its faces counter-clockwise outward it is 1 inside and 0 outside, -1 inside where they are
    clockwise, and n inside n nested or overlapping surfaces. Holes and missing pieces make it vary smoothly between.
    Every backend defines and handles these alike:

    * Degenerate faces (repeated vertices, no area) add nothing. Faces that occur twice count twice, in opposite
      directions they cancel. Nothing is assumed of edges: non-manifold and unconnected faces are as good as others.
    * On a face the value is the mean of both sides; on an edge or vertex the mean over a small ball around it (0.25 and
      0.125 at an edge and a corner of a cube). Where "on" ends is rounding: 1e-15 of the distances in float64, 4e-7 in
      float32 (triton), within which the triton path may also give the value of either side.

    No gradients. The result does not depend on the number of threads or on the run.

    Args:
        points: (Q, 3) floating point, finite; Q may be 0. Taken as float32.
        vertices: (V, 3) floating point, finite, on the points' device. Taken as float32.
        faces: (F, 3) int64 rows of `vertices`; F may be 0, where the result is 0.
        backend: "cpu" (numba; one ray down a box tree, and each boundary edge: error 1e-9), "triton" (every face at
            every point in float32 on CUDA: error below 1e-4 at a distance above 0.003 of the lengths of the edges
            around), "reference" (torch, float64, Q x F), or "auto".

    Returns:
        (Q,) float32.

    Raises:
        BadArgument: shapes, devices, non-finite coordinates, indices out of range, or a backend that cannot serve.
    """
    _check(points, vertices, faces)
    chosen = choose(backend, points.device, available=("reference", "cpu", "triton"), op=OP)
    points, vertices = points.detach().float(), vertices.detach().float()
    if len(points) == 0 or len(faces) == 0:
        return points.new_zeros(len(points))
    if chosen == "reference":
        from shapecodec.ops.winding_number.reference import winding_number as run

        return run(points, vertices, faces).float()
    if chosen == "triton":
        from shapecodec.ops.winding_number.triton import winding_number as run_triton

        return run_triton(points, vertices, faces)
    from shapecodec.ops.winding_number.cpu import winding_number as run_cpu

    arrays = (points.contiguous().numpy(), vertices.contiguous().numpy(), faces.contiguous().numpy())
    return torch.from_numpy(run_cpu(*arrays))


def inside(points: Tensor, vertices: Tensor, faces: Tensor, *, backend: str = "auto") -> Tensor:
    """The rule by which LaGeM's labels are made: a point is inside where |w| > 0.5.

    * An inverted mesh (w = -1 within) has the same inside as the mesh turned the right way: the sign is not asked.
      A mesh whose parts are turned differently keeps each part's inside, unless parts overlap and cancel.
    * An open sheet has no inside: it covers less than half of the sphere around every point that is not almost on it,
      and of a flat one the half is never reached. So have two coincident sheets turned against each other.
    * A bowl or an open box has one: roughly what a lid put on its rim would close in, where more than half is covered.
    * A point on a closed surface itself has |w| = 0.5, up to rounding, and may be either.

    Args: as `winding_number`.

    Returns:
        (Q,) bool.
    """
    return winding_number(points, vertices, faces, backend=backend).abs() > LEVEL


def outward(points: Tensor, normals: Tensor, vertices: Tensor, faces: Tensor, *, step: float) -> Tensor:
    """Normals of surface points that point out of the solid, whichever way the faces are turned.

    A point is asked `step` to either side. Where both sides are alike, as on a sheet or on a wall within a solid, there is no out
    and the normal becomes 0.

    Args:
        points: (Q, 3) on the surface.
        normals: (Q, 3) unit normals of their faces.
        vertices, faces: as `winding_number`.
        step: distance to either side; thinner walls than it are taken for sheets.

    Returns:
        (Q, 3) of the normals' dtype.
    """
    shift = step * normals.to(points.dtype)
    behind, before = inside(torch.cat([points - shift, points + shift]), vertices, faces).split(len(points))
    return normals * (behind.to(normals.dtype) - before.to(normals.dtype))[:, None]


def _check(points: Tensor, vertices: Tensor, faces: Tensor) -> None:
    for name, tensor in (("points", points), ("vertices", vertices), ("faces", faces)):
        if tensor.ndim != 2 or tensor.shape[1] != 3:
            raise BadArgument(f"{name} must be (n, 3), got {tuple(tensor.shape)}.", where=OP)
        if tensor.device != points.device:
            raise BadArgument(f"{name} are on {tensor.device}, points on {points.device}.", where=OP)
    if faces.dtype != torch.int64:
        raise BadArgument(f"faces must be int64, got {faces.dtype}.", where=OP)
    if not bool(torch.isfinite(vertices).all() & torch.isfinite(points).all()):
        raise BadArgument("points and vertices must be finite.", where=OP)
    if len(faces) == 0:
        return
    low, high = faces.aminmax()
    if int(low) < 0 or int(high) >= len(vertices):
        raise BadArgument(f"faces point outside the {len(vertices):,} vertices ({int(low)} to {int(high)}).", where=OP)
