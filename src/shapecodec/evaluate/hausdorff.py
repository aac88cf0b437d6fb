"""The largest distance from a surface to another, between bounds that hold for every point and not for samples alone.

Branch and bound, as in Tang, Lee and Kim, "Interactive Hausdorff Distance Computation for General Polygonal Models"
(2009): a triangle lies no farther from the other mesh than the largest distance of its three corners to any single face
of that, because the distance to a triangle is convex. Triangles whose bound does not exceed what some point attains are
done; the others are cut into four.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numba
import numpy as np
import torch
from numba import njit
from torch import Tensor

from shapecodec.mesh import Mesh
from shapecodec.ops.closest_point import closest_point

EXTENT_SHARE, DISTANCE_SHARE = 1e-6, 1e-3  # float32's precision, and more digits than anybody reads
CUTS = 1 << 17  # triangles that are cut in all; then the bounds stay apart, and say so
ASKED = 1 << 16  # small triangles for which a cut into more than four pays
MOST = 1 << 20  # triangles that compete before any is cut; with more none is
_RUN = 1 << 13  # triangles a task


class Bounds(NamedTuple):
    """Two numbers that the largest distance lies between.

    Args:
        lower: attained by a point.
        upper: no point is farther.
    """

    lower: float
    upper: float


class _Triangles(NamedTuple):
    """Triangles of the source, with what is known of them.

    Args:
        corners: (T, 3, 3) float32.
        distance: (T, 3) float32 of the corners to the target.
        face: (T, 3) or (T, 4) int64 faces of the target that are closest to the centre, if that is known, and the corners.
    """

    corners: Tensor
    distance: Tensor
    face: Tensor

    def select(self, chosen: Tensor) -> _Triangles:
        """The chosen rows."""
        return _Triangles(*(part[chosen] for part in self))


def hausdorff(source: Mesh, target: Mesh) -> Bounds:
    """Bounds of the largest distance from a point of `source` to `target`.

    They meet within 1e-6 of the target's extent or a thousandth of the distance, unless too many triangles compete for the
    maximum (`CUTS`, `MOST`): between nearly parallel surfaces, and from triangles much larger than the target's where no
    place stands out. Deterministic.

    Args:
        source: on any device.
        target: on the same device.
    """
    low, high = target.bounds()
    extent = float((high.double() - low.double()).max())
    corners, distance, face = _at_vertices(source, target)
    lower, bound = float(distance.max()), _by_reach(corners, distance)
    open_ = bound > _enough(lower, extent)
    done, left = _largest(bound[~open_]), CUTS
    triangles = _Triangles(corners[open_], distance[open_], face[open_])
    bound = torch.minimum(bound[open_], _by_faces(triangles, target, lower))
    open_ = bound > _enough(lower, extent)
    done, triangles = max(done, _largest(bound[~open_])), triangles.select(open_)
    if len(triangles.corners) > MOST:
        return Bounds(lower, max(lower, float(bound.max())))
    centre = closest_point(triangles.corners.mean(1), target.vertices, target.faces)
    lower = max(lower, _largest(centre.distance))
    triangles = triangles._replace(face=torch.cat([centre.face[:, None], triangles.face], 1))
    while True:
        bound = torch.minimum(_by_reach(triangles.corners, triangles.distance), _by_faces(triangles, target, lower))
        open_ = bound > _enough(lower, extent)
        done = max(done, _largest(bound[~open_]))
        triangles, bound = triangles.select(open_), bound[open_]
        left -= len(bound)
        if len(bound) == 0 or left < 0:
            return Bounds(lower, max(lower, done, _largest(bound)))
        triangles, attained = _cut(triangles, target)
        lower = max(lower, attained)


def _enough(lower: float, extent: float) -> float:
    """Bounds up to here are met well enough."""
    return lower + max(EXTENT_SHARE * extent, DISTANCE_SHARE * lower)


def _largest(values: Tensor) -> float:
    return float(values.max()) if len(values) else 0.0


def _at_vertices(source: Mesh, target: Mesh) -> tuple[Tensor, Tensor, Tensor]:
    """Corners (F, 3, 3), their distances (F, 3) and closest faces (F, 3); each vertex that a face uses is asked once."""
    used = torch.zeros(len(source.vertices), dtype=torch.bool, device=source.vertices.device)
    used[source.faces.reshape(-1)] = True
    rows = (used.cumsum(0) - 1)[source.faces]
    found = closest_point(source.vertices[used], target.vertices, target.faces)
    return source.vertices[source.faces], found.distance[rows], found.face[rows]


def _by_reach(corners: Tensor, distance: Tensor) -> Tensor:
    """(T,) upper bounds: no point of a triangle is farther from its nearest corner than the longest edge over sqrt(3)."""
    edge = (corners - corners.roll(-1, 1)).norm(dim=2).amax(1)
    return distance.amax(1) + edge / math.sqrt(3.0)


def _by_faces(triangles: _Triangles, target: Mesh, enough: float) -> Tensor:
    """(T,) upper bounds: least over the candidate faces of the largest distance of a corner to that face alone.

    Computed on the CPU; a bound that is no larger than `enough` is not improved any more.
    """
    vertices, rows = target.numpy()
    corners, face = triangles.corners.cpu().numpy(), triangles.face.cpu().numpy()
    bound = np.zeros(len(face), np.float32)

    def task(start: int) -> None:
        _face_bounds(corners, face, vertices, rows, enough * enough, start, min(start + _RUN, len(face)), bound)

    with ThreadPoolExecutor(numba.get_num_threads()) as pool:
        list(pool.map(task, range(0, len(face), _RUN)))
    return torch.from_numpy(bound).to(triangles.corners.device)


@njit(cache=True, nogil=True)
def _face_bounds(
    corners: np.ndarray, face: np.ndarray, vertices: np.ndarray, rows: np.ndarray, enough: float, start: int, end: int,
    bound: np.ndarray,
) -> None:  # fmt: skip
    for t in range(start, end):
        best = np.inf
        for k in range(face.shape[1]):
            a, b, c = rows[face[t, k], 0], rows[face[t, k], 1], rows[face[t, k], 2]
            worst = 0.0
            for corner in range(3):
                worst = max(worst, _square(corners[t], corner, vertices, a, b, c))
                if worst >= best:
                    break
            best = min(best, worst)
            if best <= enough:
                break
        bound[t] = np.nextafter(np.float32(np.sqrt(best)), np.float32(np.inf))


@njit(cache=True, nogil=True, inline="always")
def _minus(p: np.ndarray, i: int, q: np.ndarray, j: int) -> tuple[float, float, float]:
    return np.float64(p[i, 0]) - q[j, 0], np.float64(p[i, 1]) - q[j, 1], np.float64(p[i, 2]) - q[j, 2]


@njit(cache=True, nogil=True, inline="always")
def _dot(u: tuple[float, float, float], v: tuple[float, float, float]) -> float:
    return u[0] * v[0] + u[1] * v[1] + u[2] * v[2]


@njit(cache=True, nogil=True, inline="always")
def _beyond(w: tuple[float, float, float], s: float, u: tuple[float, float, float]) -> tuple[float, float, float]:
    """w - s u."""
    return w[0] - s * u[0], w[1] - s * u[1], w[2] - s * u[2]


@njit(cache=True, nogil=True, error_model="numpy")
def _square(p: np.ndarray, i: int, vertices: np.ndarray, a: int, b: int, c: int) -> float:
    """Squared distance (float64) of the point p[i] to a point of the face abc, the nearest one up to rounding."""
    u, v, w = _minus(vertices, b, vertices, a), _minus(vertices, c, vertices, a), _minus(p, i, vertices, a)
    uu, uv, vv, uw, vw = _dot(u, u), _dot(u, v), _dot(v, v), _dot(u, w), _dot(v, w)
    area = uu * vv - uv * uv
    if area > 1e-12 * uu * vv:  # of thinner faces the edges are near enough: heights below 1e-6 of the length
        s, t = (vv * uw - uv * vw) / area, (uu * vw - uv * uw) / area
        if s >= 0.0 and t >= 0.0 and s + t <= 1.0:
            gap = _beyond(_beyond(w, s, u), t, v)
            return _dot(gap, gap)
    edge = (v[0] - u[0], v[1] - u[1], v[2] - u[2])
    best = _to_edge(w, u)
    best = min(best, _to_edge(w, v))
    return min(best, _to_edge(_beyond(w, 1.0, u), edge))


@njit(cache=True, nogil=True, inline="always")
def _to_edge(w: tuple[float, float, float], edge: tuple[float, float, float]) -> float:
    """Squared distance of w to the segment from the origin to `edge`."""
    square = _dot(edge, edge)
    along = min(max(_dot(w, edge) / square, 0.0), 1.0) if square > 0.0 else 0.0
    gap = _beyond(w, along, edge)
    return _dot(gap, gap)


def _cut(triangles: _Triangles, target: Mesh) -> tuple[_Triangles, float]:
    """Each triangle as n x n, and the largest distance that was met on the way.

    A call of `closest_point` builds a tree, a tenth of a second for 100k faces, so few triangles are cut finely at once.
    """
    count = len(triangles.corners)
    n = next((n for n in (8, 4) if count * n * n < ASKED), 2)
    weights, children = (part.to(triangles.corners.device) for part in _grid(n))
    points = torch.einsum("pk,tkc->tpc", weights, triangles.corners)  # (T, P, 3)
    corners = points[:, children]  # (T, n * n, 3, 3)
    asked = torch.cat([points, corners.mean(2)], 1)
    found = closest_point(asked.reshape(-1, 3), target.vertices, target.faces)
    distance, face = found.distance.view(count, -1), found.face.view(count, -1)
    known = face[:, : len(weights)][:, children]
    centres = face[:, len(weights) :, None]
    cut = _Triangles(
        corners.reshape(-1, 3, 3),
        distance[:, : len(weights)][:, children].reshape(-1, 3),
        torch.cat([centres, known], 2).reshape(-1, 4),
    )
    return cut, _largest(found.distance)


def _grid(n: int) -> tuple[Tensor, Tensor]:
    """Barycentric weights (P, 3) of a triangle cut n times along each side, and its small triangles (n * n, 3)."""
    rows = [(i, j) for i in range(n + 1) for j in range(n + 1 - i)]
    place = {point: index for index, point in enumerate(rows)}
    weights = torch.tensor([(n - i - j, i, j) for i, j in rows], dtype=torch.float32) / n
    upright = [(place[i, j], place[i + 1, j], place[i, j + 1]) for i, j in rows if i + j < n]
    turned = [(place[i + 1, j], place[i + 1, j + 1], place[i, j + 1]) for i, j in rows if i + j < n - 1]
    return weights, torch.tensor(upright + turned)
