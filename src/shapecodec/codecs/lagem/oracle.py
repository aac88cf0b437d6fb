"""The exact field of a mesh: what LaGeM's network is to answer."""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.mesh import Mesh
from shapecodec.ops.closest_point import closest_point
from shapecodec.ops.winding_number import inside
from shapecodec.rng import rng

LEAST_INSIDE = 1e-4  # share of a shape's box below which nothing is taken to be inside


def inside_share(mesh: Mesh, count: int = 20_000) -> float:
    """Share of the mesh's box that is inside, from uniform points and points 1/200 to either side of the surface.

    Thin walls fill so little of their box that uniform points miss them: the points beside the surface find them, and then the
    share is at least `LEAST_INSIDE`.
    """
    device = mesh.vertices.device
    generator = rng(0, purpose="inside", device=device)
    low, high = mesh.bounds()
    uniform = low + (high - low) * torch.rand(count, 3, generator=generator, device=device)
    surface, faces = mesh.sample(count, generator)
    beside = surface + mesh.face_normals()[faces] * (torch.randn(count, 1, generator=generator, device=device) / 200)
    found = inside(torch.cat([uniform, beside]), mesh.vertices, mesh.faces)
    share, near = (float(part.float().mean()) for part in found.split(count))
    return max(share, LEAST_INSIDE) if near > 0.01 else share


def signed_distance(points: Tensor, mesh: Mesh) -> Tensor:
    """(Q,) float32 distances of points (Q, 3) to the mesh, negative inside (`ops.winding_number.inside`)."""
    distance = closest_point(points, mesh.vertices, mesh.faces).distance
    return torch.where(inside(points, mesh.vertices, mesh.faces), -distance, distance)
