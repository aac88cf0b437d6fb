"""The specification: the signed solid angle of every triangle at every point, summed in float64 (torch, chunked)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

PAIRS = 1 << 20  # point-triangle pairs at a time: about 200 MB of float64 intermediates
IN_PLANE = 1e-15  # relative height under which a point counts as in a triangle's plane: a few roundings of float64


def half_angles(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Half the signed solid angles (...) of triangles whose corners are a, b, c (..., 3) seen from the origin.

    tan(angle / 2) = det(a, b, c) / (|a||b||c| + (a.b)|c| + (b.c)|a| + (c.a)|b|), van Oosterom and Strackee 1983,
    eq. 6 of Jacobson et al. 2013. Zero where the origin lies in the triangle's plane: on the triangle that is the mean
    of both sides, beside it the value itself. A triangle without area is in a plane with everything.
    """
    la, lb, lc = a.norm(dim=-1), b.norm(dim=-1), c.norm(dim=-1)
    determinant = (torch.linalg.cross(a, b) * c).sum(-1)
    volume = la * lb * lc
    below = volume + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return torch.where(determinant.abs() <= IN_PLANE * volume, 0.0, torch.atan2(determinant, below))


def winding_number(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """(Q,) float64 winding numbers, eq. 5 of Jacobson et al. 2013; arguments as in the public function, F >= 1.

    Computed on the CPU for tensors of a device without float64 (MPS), and then returned in float32.
    """
    if points.device.type == "mps":
        return winding_number(points.cpu(), vertices.cpu(), faces.cpu()).float().to(points.device)
    corners = vertices.double()[faces]
    total = []
    for chunk in points.double().split(max(PAIRS // len(faces), 1)):
        a, b, c = (corners[:, k] - chunk[:, None] for k in range(3))
        total.append(half_angles(a, b, c).sum(1) / (2.0 * math.pi))
    return torch.cat(total)
