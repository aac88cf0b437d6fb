"""Area-weighted vertex normals of a triangle mesh."""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose

BACKENDS = ("reference", "cpu")


def vertex_normals(vertices: Tensor, faces: Tensor, *, backend: str = "auto") -> Tensor:
    """Unit normals at the vertices, each face counted by its area; zero where the faces' areas cancel or vanish.

    Sums are exact in fixed point, so the result does not depend on the order in which a GPU adds.

    Args:
        vertices: (V, 3) float32.
        faces: (F, 3) int64 or int32, counter-clockwise outward.
        backend: auto, reference (torch, every device) or cpu (numba).

    Returns:
        (V, 3) float32.

    Raises:
        BadArgument: shapes that are not a mesh's, or a backend that cannot serve the device.
    """
    if vertices.ndim != 2 or vertices.shape[1] != 3 or faces.ndim != 2 or faces.shape[1] != 3:
        raise BadArgument(
            f"expected vertices (V, 3) and faces (F, 3), got {tuple(vertices.shape)} and {tuple(faces.shape)}.",
            where="vertex_normals",
        )
    which = choose(backend, vertices.device, available=BACKENDS, op="vertex_normals")
    vertices = vertices.float().contiguous()
    if len(faces) == 0:
        return torch.zeros_like(vertices)
    if which == "cpu":
        from shapecodec.ops.vertex_normals import cpu

        return cpu.vertex_normals(vertices, faces.contiguous())
    from shapecodec.ops.vertex_normals import reference

    return reference.vertex_normals(vertices, faces)
