"""The exact field of a mesh: what LaGeM's network is to answer."""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.mesh import Mesh
from shapecodec.ops.closest_point import closest_point
from shapecodec.ops.winding_number import inside


def signed_distance(points: Tensor, mesh: Mesh) -> Tensor:
    """(Q,) float32 distances of points (Q, 3) to the mesh, negative inside (`ops.winding_number.inside`)."""
    distance = closest_point(points, mesh.vertices, mesh.faces).distance
    return torch.where(inside(points, mesh.vertices, mesh.faces), -distance, distance)
