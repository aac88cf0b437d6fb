"""The rule of `rasterise` in torch: every pixel of every face's box is tested."""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.ops.rasterise.lattice import BITS, DEEPEST, DEPTH_STEPS, HALF, OUTSIDE, UNIT

_CHUNK = 1 << 21  # pairs of pixels and faces at a time: about 0.4 GB


def draw(
    points: Tensor, depth: Tensor, faces: Tensor, names: Tensor | None, size: tuple[int, int], buffer: Tensor
) -> None:
    """Take the minimum of one view's z-buffer and the faces' packed depths, in place.

    Args:
        points: (V, 2) int32 on the lattice; faces with a corner whose x is `OUTSIDE` are left out.
        depth: (V,) float64.
        faces: (T, 3) int64.
        names: (T,) int64 the index that is written for each face; its own if None.
        size: (width, height).
        buffer: (height * width,) int64, row by row.
    """
    a, b, c = points.long()[faces].unbind(1)
    za, zb, zc = depth[faces].unbind(1)
    area = _cross(b - a, c - a)
    # Turned so that the area is positive: clockwise where y points down.
    turned = area < 0
    b, c = torch.where(turned[:, None], c, b), torch.where(turned[:, None], b, c)
    zb, zc = torch.where(turned, zc, zb), torch.where(turned, zb, zc)
    area = area.abs()
    largest = points.new_tensor(size).long() - 1
    low = ((torch.minimum(a, torch.minimum(b, c)) + HALF - 1) >> BITS).clamp_min(0)
    high = torch.minimum((torch.maximum(a, torch.maximum(b, c)) - HALF) >> BITS, largest)
    extent = (high - low + 1).clamp_min(0)
    drawn = (points[faces][..., 0] != OUTSIDE).all(1) & (area != 0)
    counts = extent.prod(1) * drawn
    ends = counts.cumsum(0)
    total = int(ends[-1])
    for start in range(0, total, _CHUNK):
        pair = torch.arange(start, min(start + _CHUNK, total), device=points.device)
        t = torch.searchsorted(ends, pair, right=True)
        within = pair - (ends[t] - counts[t])
        pixel = torch.stack([low[t, 0] + within % extent[t, 0], low[t, 1] + within // extent[t, 0]], 1)
        centre = pixel * UNIT + HALF
        weights = [_edge(p[t], q[t], centre) for p, q in ((b, c), (c, a), (a, b))]
        inside = torch.stack([value >= least for value, least in weights]).all(0)
        u, v, w = (value.double() for value, _ in weights)
        z = (u * za[t] + v * zb[t] + w * zc[t]) / area[t].double()
        inside &= (z >= -1) & (z <= 1)
        steps = ((z[inside] + 1) * DEPTH_STEPS).long().clamp_max(DEEPEST)
        name = t[inside] if names is None else names[t[inside]]
        place = pixel[inside, 1] * size[0] + pixel[inside, 0]
        buffer.scatter_reduce_(0, place, (steps << 32) | name, "amin")


def _cross(p: Tensor, q: Tensor) -> Tensor:
    return p[..., 0] * q[..., 1] - p[..., 1] * q[..., 0]


def _edge(start: Tensor, end: Tensor, point: Tensor) -> tuple[Tensor, Tensor]:
    """Twice the area of (start, end, point), and the least value inside: 0 on top and left edges, 1 on others."""
    along = end - start
    owned = (along[:, 1] < 0) | ((along[:, 1] == 0) & (along[:, 0] > 0))
    return _cross(along, point - start), (~owned).long()
