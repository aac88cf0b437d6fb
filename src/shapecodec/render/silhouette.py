"""Edge blending: a picture's values near an outline made a continuous function of where the outline lies.

Point samples jump when an outline passes a pixel's centre, so they say nothing of how a vertex should move. Here every
pair of neighbouring centres p and q that an outline separates is blended. The outline's edge crosses the line from p to q
at a share t of the way; of the one pixel's length around the middle, the near surface fills t and what is behind it the
rest. So for t > 1/2 it reaches into q's pixel by t - 1/2, for t < 1/2 what is behind reaches into p's by 1/2 - t. Both
vanish at t = 1/2, and when the outline passes a centre (t = 0 or 1) the two sides of the jump agree: 1/2 of each.

An edge counts along one axis only, the one that it crosses more steeply; a row (or column) of centres then measures the
area beside a straight edge by the rule of midpoints, which is exact for it. Rows are blended before columns, so that a
corner's pixel receives the product of its two shares, and a dot smaller than a pixel its area.

Where faces are smaller than pixels the outline belongs to another face than the one in sight. So the search starts on the
face at p and walks towards q, from face to face across shared edges, until it meets an edge where the surface ends or
turns back: on a sphere of 86 thousand faces at 518 x 518 it finds 1370 outlines between columns, 202 of them on the first
face. Edges of more than two faces, and where the near plane cuts, are not blended.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

WALK = 16  # faces between a centre and the outline; longer ways (faces of less than 1/16 pixel) are not blended
BOUNDARY, SEVERAL = -1, -2  # instead of a neighbour: the edge has no other face, or more than one


class Crossings(NamedTuple):
    """Where outlines pass between neighbouring centres: K of them.

    Args:
        near: (K,) int64 pixel that sees the nearer surface, as a row of the flattened (B, H, W) picture.
        far: (K,) int64 its neighbour.
        edge: (K, 2) int64 vertices of the edge that passes between them.
    """

    near: Tensor
    far: Tensor
    edge: Tensor


def edge_neighbours(faces: Tensor) -> Tensor:
    """(F, 3) int64: the face across the edge opposite to each corner of faces (F, 3); BOUNDARY or SEVERAL where not one."""
    start, end = faces.roll(-1, 1).flatten(), faces.roll(-2, 1).flatten()
    vertices = int(faces.max()) + 1 if len(faces) else 0
    key, order = (torch.minimum(start, end) * vertices + torch.maximum(start, end)).sort(stable=True)
    _, run, count = torch.unique_consecutive(key, return_inverse=True, return_counts=True)
    first = count.cumsum(0) - count
    place = torch.arange(len(key), device=faces.device)
    partner = 2 * first[run] + 1 - place  # of two, the other one
    twins = count[run] == 2
    other = order[torch.where(twins, partner, place)] // 3
    other = torch.where(twins, other, torch.where(count[run] == 1, BOUNDARY, SEVERAL))
    return torch.zeros_like(other).scatter_(0, order, other).view(-1, 3)


@torch.no_grad()
def crossings(
    clip: Tensor, faces: Tensor, face: Tensor, depth: Tensor, neighbours: Tensor, axis: int, *, walk: int = WALK
) -> Crossings:
    """Outlines between neighbours in a row (axis 2) or in a column (axis 1).

    Args:
        clip: (B, V, 4) vertices in clip space.
        faces: (F, 3) int64.
        face: (B, H, W) int32 face in sight.
        depth: (B, H, W) its depth, inf on the background.
        neighbours: of `edge_neighbours`.
        axis: 1 or 2.
        walk: the most faces from a centre to the outline.
    """
    size = face.shape[2], face.shape[1]
    pixel = torch.arange(face.numel(), device=face.device).view(face.shape)
    low, high = (pixel.narrow(axis, start, face.shape[axis] - 1).flatten() for start in (0, 1))
    face, depth = face.flatten().long(), depth.flatten()
    apart = (face[low] != face[high]).nonzero().flatten()
    low, high = low[apart], high[apart]
    swap = depth[high] < depth[low]
    near, far = torch.where(swap, high, low), torch.where(swap, low, high)
    current, behind = face[near], face[far]
    found_near, found_far, found_edge = [near[:0]], [far[:0]], [faces[:0, :2]]
    for _ in range(walk):
        corner, share = _exit(clip, faces, current, near, far, size)
        edge = torch.stack([faces[current, (corner + 1) % 3], faces[current, (corner + 2) % 3]], 1)
        other = neighbours[current, corner]
        leaves = (share >= 0) & (share <= 1)
        outline = leaves & (
            (other == BOUNDARY)
            | ((other >= 0) & _folds(clip, faces, current, other, edge, near // (size[0] * size[1])))
        )
        steep = outline & _crosses_steeply(clip, edge, near, size, axis)
        found_near.append(near[steep])
        found_far.append(far[steep])
        found_edge.append(edge[steep])
        onward = (leaves & ~outline & (other >= 0) & (other != behind)).nonzero().flatten()
        near, far, behind, current = near[onward], far[onward], behind[onward], other[onward]
        if len(onward) == 0:
            break
    return Crossings(torch.cat(found_near), torch.cat(found_far), torch.cat(found_edge))


def blend(picture: Tensor, clip: Tensor, found: Crossings) -> Tensor:
    """A picture (B, H, W, C) with its outlines blended; gradients reach its values and the edges' vertices in `clip`."""
    batch, height, width, channels = picture.shape
    values = picture.reshape(-1, channels)
    view = found.near // (height * width)
    corners = _corners(clip, found.edge, view)
    first, second = (
        _cross(*_from_centre(corners, pixel, (width, height)).unbind(1)) for pixel in (found.near, found.far)
    )
    share = first / (first - second)
    reaches = share > 0.5
    target, other = torch.where(reaches, found.far, found.near), torch.where(reaches, found.near, found.far)
    amount = torch.where(reaches, share - 0.5, 0.5 - share)[:, None].to(values.dtype)  # abs() has no slope at 1/2
    return values.index_add(0, target, amount * (values[other] - values[target])).view(batch, height, width, channels)


def _from_centre(corners: Tensor, pixel: Tensor, size: tuple[int, int]) -> Tensor:
    """Corners (K, n, 3: x, y, w) as (K, n, 2) seen from a pixel's centre and times w, in half images.

    Differences are taken here, where they are small, and not in the products of `_cross`, where digits would be lost.
    """
    width, height = size
    within = pixel % (width * height)
    column, row = ((part.to(corners.dtype) + 0.5) for part in (within % width, within // width))
    centre = torch.stack([column * (2 / width) - 1, 1 - row * (2 / height)], 1)
    return corners[..., :2] - centre[:, None] * corners[..., 2:]


def _cross(p: Tensor, q: Tensor) -> Tensor:
    return p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]


def _corners(clip: Tensor, vertices: Tensor, view: Tensor) -> Tensor:
    """(K, n, 3) x, y, w of vertices (K, n) in the views (K,)."""
    rows = (view[:, None] * clip.shape[1] + vertices).flatten()
    chosen = clip.flatten(0, 1).index_select(0, rows).view(*vertices.shape, 4)
    return torch.cat([chosen[..., :2], chosen[..., 3:]], -1)


def _exit(
    clip: Tensor, faces: Tensor, current: Tensor, near: Tensor, far: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Through which edge (opposite to that corner) the way from near to far leaves a face, and at which share of it."""
    corners = _corners(clip, faces[current], near // (size[0] * size[1]))
    here, there = (_weights(_from_centre(corners, pixel, size)) for pixel in (near, far))
    turned = here.sum(1, keepdim=True).sign()
    falls = (here - there) * turned
    share = torch.where(falls > 0, here * turned / torch.where(falls > 0, falls, 1.0), torch.inf)
    least = share.min(1)
    return least.indices, least.values.clamp_min(0.0)  # the centre itself may be outside by rounding


def _weights(corners: Tensor) -> Tensor:
    """(K, 3) weights of the corners (K, 3, 2) at the origin, up to a common factor."""
    a, b, c = corners.unbind(1)
    return torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], 1)


def _folds(clip: Tensor, faces: Tensor, current: Tensor, other: Tensor, edge: Tensor, view: Tensor) -> Tensor:
    """Whether two faces lie, in the picture, on the same side of their common edge."""
    ends = edge.sum(1)
    opposite = torch.where(other >= 0, faces[other.clamp_min(0)].sum(1) - ends, edge[:, 0])
    tips = torch.stack([faces[current].sum(1) - ends, opposite], 1)
    a, b = _corners(clip, edge, view).unbind(1)
    points = _corners(clip, tips, view)
    side = (torch.linalg.cross(a, b)[:, None] * points).sum(2) * points[..., 2].sign()
    return side[:, 0] * side[:, 1] > 0


def _crosses_steeply(clip: Tensor, edge: Tensor, near: Tensor, size: tuple[int, int], axis: int) -> Tensor:
    """Whether the edge is more upright than level for pairs in a row, or more level than upright for pairs in a column."""
    a, b = _corners(clip, edge, near // (size[0] * size[1])).unbind(1)
    line = torch.linalg.cross(a, b)  # x line_0 + y line_1 + line_2 = 0 in half images
    upright = line[:, 0].abs() * size[1] >= line[:, 1].abs() * size[0]
    return upright if axis == 2 else ~upright
