"""`vertex_normals` for CPUs: one pass over the faces (0.3 s for 14M), sums in float64 in face order."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """See the package."""
    normals = np.zeros(vertices.shape, np.float32)
    _accumulate(vertices.numpy(), faces.numpy(), np.zeros(vertices.shape, np.float64), normals)
    return torch.from_numpy(normals)


@njit(cache=True, nogil=True)
def _accumulate(vertices: Any, faces: Any, total: Any, normals: Any) -> None:
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        vx, vy, vz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for corner in (a, b, c):
            total[corner, 0] += nx
            total[corner, 1] += ny
            total[corner, 2] += nz
    for v in range(len(total)):
        length = np.sqrt(total[v, 0] ** 2 + total[v, 1] ** 2 + total[v, 2] ** 2)
        if length > 0.0:
            normals[v, 0] = total[v, 0] / length
            normals[v, 1] = total[v, 1] / length
            normals[v, 2] = total[v, 2] / length
