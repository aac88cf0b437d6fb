"""The closest point of a triangle mesh, exactly."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose

OP = "closest_point"


class ClosestPoint(NamedTuple):
    """What `closest_point` finds for Q points.

    Args:
        distance: (Q,) float32, in units of the input.
        face: (Q,) int64 closest face; of several equally close ones (at an edge, in coincident
            layers), the same one whatever else is asked in the call.
        point: (Q, 3) float32, on that face.
    """

    distance: Tensor
    face: Tensor
    point: Tensor


def closest_point(points: Tensor, vertices: Tensor, faces: Tensor, *, backend: str = "auto") -> ClosestPoint:
    """The closest point of a mesh to each query.

    Exact: no face is skipped unless a bound proves it farther; distances are computed in float64 from the inputs.
    The fast paths choose the face in float32, so it may be one that is farther by about 1e-7 of the mesh's extent.
    Faces without area count as the segments or points that they are. Results do not depend on the number of threads.

    Args:
        points: (Q, 3) floating point, finite; Q may be 0.
        vertices: (V, 3) float32, finite, on the points' device.
        faces: (F, 3) int64 rows of `vertices`, F >= 1.
        backend: "cpu" (numba, packed box tree; 1M points near 100k faces in half a second on 2 cores), "triton"
            (the same tree on CUDA), "reference" (torch, Q x F: small problems only), or "auto".

    Raises:
        BadArgument: shapes, devices, non-finite coordinates, indices out of range, or a backend that cannot serve.
    """
    _check(points, vertices, faces)
    chosen = choose(backend, points.device, available=("reference", "cpu", "triton"), op=OP)
    points, vertices = points.detach().float(), vertices.detach().float()
    if len(points) == 0:
        return ClosestPoint(points.new_zeros(0), faces.new_zeros(0), points.new_zeros(0, 3))
    if chosen == "reference":
        from shapecodec.ops.closest_point.reference import closest_point as run

        return ClosestPoint(*run(points, vertices, faces))
    if chosen == "triton":
        from shapecodec.ops.closest_point.triton import closest_point as run_triton

        return ClosestPoint(*run_triton(points.contiguous(), vertices.contiguous(), faces.contiguous()))
    from shapecodec.ops.closest_point.cpu import closest_point as run_cpu

    arrays = (points.contiguous().numpy(), vertices.contiguous().numpy(), faces.contiguous().numpy())
    return ClosestPoint(*(torch.from_numpy(array) for array in run_cpu(*arrays)))


def _check(points: Tensor, vertices: Tensor, faces: Tensor) -> None:
    for name, tensor in (("points", points), ("vertices", vertices), ("faces", faces)):
        if tensor.ndim != 2 or tensor.shape[1] != 3:
            raise BadArgument(f"{name} must be (n, 3), got {tuple(tensor.shape)}.", where=OP)
        if tensor.device != points.device:
            raise BadArgument(f"{name} are on {tensor.device}, points on {points.device}.", where=OP)
    if faces.dtype != torch.int64:
        raise BadArgument(f"faces must be int64, got {faces.dtype}.", where=OP)
    if len(faces) == 0:
        raise BadArgument("the mesh has no faces.", where=OP)
    if not bool(torch.isfinite(vertices).all() & torch.isfinite(points).all()):
        raise BadArgument("points and vertices must be finite.", where=OP)
    low, high = faces.aminmax()
    if int(low) < 0 or int(high) >= len(vertices):
        raise BadArgument(f"faces point outside the {len(vertices):,} vertices ({int(low)} to {int(high)}).", where=OP)
