"""The specification: every point against every triangle, in float64 (torch, any device, chunked)."""

from __future__ import annotations

import torch
from torch import Tensor

PAIRS = 1 << 20  # point-triangle pairs at a time: about 1 GB of float64 intermediates


def _on_segment(p: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Closest points (..., 3) of segments ab; a segment without length is its end."""
    edge = b - a
    square = (edge * edge).sum(-1, keepdim=True)
    t = ((p - a) * edge).sum(-1, keepdim=True) / square.where(square > 0, 1.0)
    return a + t.clamp(0.0, 1.0) * edge


def on_triangles(p: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """Closest points (..., 3) float64 of triangles abc to p: the nearest of a point on each edge and the foot inside.

    The foot is written in barycentric coordinates: where rounding makes the normal of a needle meaningless, it is still
    a point of the triangle, and an edge as near as the needle is thin stands beside it.
    """
    ab, ac, ap = b - a, c - a, p - a
    normal = torch.linalg.cross(ab, ac)
    area = (normal * normal).sum(-1, keepdim=True)
    across = torch.linalg.cross(ap, normal)
    v, w = -(across * ac).sum(-1, keepdim=True), (across * ab).sum(-1, keepdim=True)
    inside = (area > 0) & (v >= 0) & (w >= 0) & (v + w <= area)
    area = area.where(area > 0, 1.0)
    foot = torch.where(inside, a + v / area * ab + w / area * ac, a)
    candidates = torch.stack([foot, _on_segment(p, a, b), _on_segment(p, b, c), _on_segment(p, c, a)], -2)
    nearest = (candidates - p[..., None, :]).square().sum(-1).argmin(-1)
    return candidates.take_along_dim(nearest[..., None, None], -2).squeeze(-2)


def closest_point(points: Tensor, vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See the public function. Ties go to the lowest face."""
    a, b, c = vertices.double()[faces][None].unbind(2)
    distances, found, closest = [], [], []
    for chunk in points.double().split(max(PAIRS // len(faces), 1)):
        foot = on_triangles(chunk[:, None], a, b, c)
        distance, face = (foot - chunk[:, None]).norm(dim=-1).min(1)
        distances.append(distance)
        found.append(face)
        closest.append(foot[torch.arange(len(chunk), device=chunk.device), face])
    return torch.cat(distances).float(), torch.cat(found), torch.cat(closest).float()
