"""`rasterise` on a CPU: bands of rows side by side, each walking all faces (numba without loops of its own in parallel)."""

from __future__ import annotations

import numpy as np
from numba import njit
from torch import Tensor

from shapecodec.ops.rasterise.bands import in_bands
from shapecodec.ops.rasterise.lattice import BITS, DEEPEST, DEPTH_STEPS, HALF, OUTSIDE, UNIT


def draw(
    points: Tensor, depth: Tensor, faces: Tensor, names: Tensor | None, size: tuple[int, int], buffer: Tensor
) -> None:
    """See the reference."""
    width, height = size
    xy, triangles = points.contiguous().numpy(), faces.contiguous().numpy()
    scene = (xy, depth.contiguous().numpy(), triangles)
    written = np.arange(0) if names is None else names.contiguous().numpy()
    rows = _rows(xy, triangles, height)
    image = buffer.numpy().reshape(height, width)
    in_bands(height, lambda top, bottom: _draw(*scene, written, rows, top, bottom, image))


@njit(cache=True, nogil=True)
def _rows(points: np.ndarray, faces: np.ndarray, height: int) -> np.ndarray:
    """(T, 2) int16 first and last row whose centres a face may cover; (1, 0) for none."""
    rows = np.zeros((len(faces), 2), np.int16)
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        low = int(min(points[a, 1], min(points[b, 1], points[c, 1])))
        high = int(max(points[a, 1], max(points[b, 1], points[c, 1])))
        first, last = max((low + HALF - 1) >> BITS, 0), min((high - HALF) >> BITS, height - 1)
        lost = points[a, 0] == OUTSIDE or points[b, 0] == OUTSIDE or points[c, 0] == OUTSIDE
        if lost or first > last:
            first, last = 1, 0
        rows[f, 0], rows[f, 1] = first, last
    return rows


@njit(cache=True, nogil=True)
def _draw(
    points: np.ndarray,
    depth: np.ndarray,
    faces: np.ndarray,
    names: np.ndarray,
    rows: np.ndarray,
    top: int,
    bottom: int,
    image: np.ndarray,
) -> None:
    """All faces, in the rows from `top` up to `bottom`."""
    for f in range(len(faces)):
        first, last = max(int(rows[f, 0]), top), min(int(rows[f, 1]), bottom - 1)
        if first <= last:
            name = names[f] if len(names) > 0 else f
            _draw_face(points, depth, faces[f, 0], faces[f, 1], faces[f, 2], name, first, last, image)


@njit(cache=True, nogil=True)
def _least(dx: int, dy: int) -> int:
    """The least value of an edge's function inside: centres on top and left edges belong to the face."""
    return 0 if dy < 0 or (dy == 0 and dx > 0) else 1


@njit(cache=True, nogil=True)
def _draw_face(
    points: np.ndarray, depth: np.ndarray, a: int, b: int, c: int, name: int, first: int, last: int, image: np.ndarray
) -> None:
    ax, ay = int(points[a, 0]), int(points[a, 1])
    bx, by = int(points[b, 0]), int(points[b, 1])
    cx, cy = int(points[c, 0]), int(points[c, 1])
    za, zb, zc = depth[a], depth[b], depth[c]
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    if area == 0:
        return
    if area < 0:
        area, bx, by, zb, cx, cy, zc = -area, cx, cy, zc, bx, by, zb
    left = max((min(ax, min(bx, cx)) + HALF - 1) >> BITS, 0)
    right = min((max(ax, max(bx, cx)) - HALF) >> BITS, image.shape[1] - 1)
    least_u, least_v, least_w = _least(cx - bx, cy - by), _least(ax - cx, ay - cy), _least(bx - ax, by - ay)
    x = left * UNIT + HALF
    for i in range(first, last + 1):
        y = i * UNIT + HALF
        u = (cx - bx) * (y - by) - (cy - by) * (x - bx)
        v = (ax - cx) * (y - cy) - (ay - cy) * (x - cx)
        w = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
        for j in range(left, right + 1):
            if u >= least_u and v >= least_v and w >= least_w:
                z = (float(u) * za + float(v) * zb + float(w) * zc) / float(area)
                if z >= -1.0 and z <= 1.0:
                    steps = min(int((z + 1.0) * DEPTH_STEPS), DEEPEST)
                    image[i, j] = min(image[i, j], (steps << 32) | name)
            u -= (cy - by) * UNIT
            v -= (ay - cy) * UNIT
            w -= (by - ay) * UNIT
