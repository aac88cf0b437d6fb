"""A mesh with fewer triangles for the browser: edges collapse in the order of their quadric error.

M. Garland and P. Heckbert, Surface simplification using quadric error metrics, SIGGRAPH 1997: a vertex carries the sum of the
squared distances to the planes of its triangles, and an edge becomes the point that both ends' sums like best. Instead of a
heap, rounds: each takes the cheapest edges in order, a vertex at most once, and refuses what would turn a triangle over.
700,000 triangles become 40,000 in 4 s on one core. Clustering by a grid takes a third of it, but tears the thin bars and double
shells that a reconstruction is judged by.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

_PULL = 1e-3  # towards the middle of the edge, as a share of the quadric's size: flat and straight places have no best point
_RIM = 4.0  # weight of a plane that stands on an open edge, in squares of its length
_FIRM = 0.15  # cosine below which a triangle counts as turned over
_NOTHING = 1e-24  # squares of doubled areas, in a cube of side 1: slivers that face nowhere
_SHARE = 0.3  # of the edges are tried in a round: more would spend dear ones while cheap ones wait for their neighbours
_ROUNDS = 100
_MANY = 4_000_000  # triangles that are clustered first, for memory: a round takes 250 bytes a triangle


class Simple(NamedTuple):
    """What `simplify` returns.

    Args:
        vertices: (V, 3) float32.
        faces: (F, 3) int64.
        values: (V,) float32, the mean over the vertices that became one; None where none were given.
    """

    vertices: np.ndarray
    faces: np.ndarray
    values: np.ndarray | None


def simplify(vertices: np.ndarray, faces: np.ndarray, values: np.ndarray | None, max_faces: int) -> Simple:
    """About `max_faces` triangles or fewer, unused vertices removed.

    More are left only where no edge can go, such as in a thousand separate triangles.

    Args:
        vertices: (V, 3) float32.
        faces: (F, 3) integer; left as they are where there are few enough.
        values: (V,) float32 to be carried, or None.
        max_faces: at least 1.
    """
    start = _compact(vertices, faces.astype(np.int64), values)
    if len(start.faces) <= max_faces:
        return start
    if len(start.faces) > _MANY:
        start = _clustered(start)
    centre, size = start.vertices.mean(0, dtype=np.float64), float(np.ptp(start.vertices, axis=0).max()) or 1.0
    points = (start.vertices - centre) / size  # the quadrics' digits are spent on the mesh itself
    corners, weights = start.faces, np.ones(len(points))
    carried = np.zeros(len(points)) if start.values is None else start.values.astype(np.float64)
    ends, once = _edges(corners, len(points))
    quadrics = _quadrics(points, corners, once)
    share = _SHARE
    for _ in range(_ROUNDS):
        cost, target = _prices(points, quadrics, ends)
        tried = np.argsort(cost, kind="stable")[: max(int(share * len(ends)), 64)]
        offsets, incident = _incidence(corners, len(points))
        parent = np.arange(len(points))
        excess = len(corners) - max_faces
        _collapse(
            points, quadrics, carried, weights, corners, offsets, incident, ends[tried], target[tried], excess, parent
        )
        corners = parent[corners]
        a, b, c = corners.T
        kept = corners[(a != b) & (b != c) & (c != a)]
        stuck = len(kept) > 0.98 * len(corners)
        corners = kept
        if len(corners) <= max_faces or (stuck and share == 1.0):
            break
        share = 1.0 if stuck else _SHARE  # when the cheap ones are all refused
        ends, _ = _edges(corners, len(points))
    found = (points * size + centre).astype(np.float32)
    return _compact(found, corners, None if values is None else carried.astype(np.float32))


def _edges(faces: np.ndarray, vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """(E, 2) ends of the undirected edges, and (K, 3) the open ones: their ends and their only face."""
    sides = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    sides.sort(axis=1)
    key, first, count = np.unique(sides[:, 0] * vertices + sides[:, 1], return_index=True, return_counts=True)
    ends = np.stack([key // vertices, key % vertices], 1)
    alone = count == 1
    return ends, np.concatenate([ends[alone], first[alone, None] % len(faces)], 1)


def _incidence(faces: np.ndarray, vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """Faces of each vertex: those of v are incident[offsets[v] : offsets[v + 1]]."""
    corner = faces.reshape(-1)
    offsets = np.zeros(vertices + 1, np.int64)
    offsets[1:] = np.cumsum(np.bincount(corner, minlength=vertices))
    return offsets, np.argsort(corner, kind="stable") // 3


@njit(cache=True, nogil=True)
def _add_plane(q: np.ndarray, x: float, y: float, z: float, d: float, weight: float) -> None:
    """Add weight (x, y, z, d)(x, y, z, d)^T to a quadric of ten numbers."""
    q[0] += weight * x * x
    q[1] += weight * x * y
    q[2] += weight * x * z
    q[3] += weight * y * y
    q[4] += weight * y * z
    q[5] += weight * z * z
    q[6] += weight * x * d
    q[7] += weight * y * d
    q[8] += weight * z * d
    q[9] += weight * d * d


@njit(cache=True, nogil=True)
def _normal(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> tuple[float, float, float]:
    """The cross product of two sides; twice the area long."""
    ux, uy, uz = q[0] - p[0], q[1] - p[1], q[2] - p[2]
    vx, vy, vz = r[0] - p[0], r[1] - p[1], r[2] - p[2]
    return uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx


@njit(cache=True, nogil=True)
def _quadrics(points: np.ndarray, faces: np.ndarray, once: np.ndarray) -> np.ndarray:
    """(V, 10): the planes of the faces, weighted by area, and planes that hold open edges in place."""
    result = np.zeros((len(points), 10))
    for f in range(len(faces)):
        a = points[faces[f, 0]]
        x, y, z = _normal(a, points[faces[f, 1]], points[faces[f, 2]])
        size = np.sqrt(x * x + y * y + z * z)
        if size > 0:
            x, y, z = x / size, y / size, z / size
            for k in range(3):
                _add_plane(result[faces[f, k]], x, y, z, -(x * a[0] + y * a[1] + z * a[2]), size / 2)
    for e in range(len(once)):
        i, j, f = once[e]
        nx, ny, nz = _normal(points[faces[f, 0]], points[faces[f, 1]], points[faces[f, 2]])
        a, dx, dy, dz = points[i], points[j, 0] - points[i, 0], points[j, 1] - points[i, 1], points[j, 2] - points[i, 2]
        x, y, z = ny * dz - nz * dy, nz * dx - nx * dz, nx * dy - ny * dx
        size = np.sqrt(x * x + y * y + z * z)
        if size > 0:
            x, y, z = x / size, y / size, z / size
            for v in (i, j):
                _add_plane(result[v], x, y, z, -(x * a[0] + y * a[1] + z * a[2]), _RIM * (dx * dx + dy * dy + dz * dz))
    return result


@njit(cache=True, nogil=True)
def _prices(points: np.ndarray, quadrics: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(E,) the error of the best point of each edge, and (E, 3) that point."""
    cost, target = np.zeros(len(ends)), np.zeros((len(ends), 3))
    q = np.zeros(10)
    for e in range(len(ends)):
        a, b = ends[e, 0], ends[e, 1]
        for k in range(10):
            q[k] = quadrics[a, k] + quadrics[b, k]
        mx, my = (points[a, 0] + points[b, 0]) / 2, (points[a, 1] + points[b, 1]) / 2
        mz = (points[a, 2] + points[b, 2]) / 2
        reach = (
            (points[a, 0] - points[b, 0]) ** 2 + (points[a, 1] - points[b, 1]) ** 2 + (points[a, 2] - points[b, 2]) ** 2
        )
        pull = _PULL * (q[0] + q[3] + q[5]) + 1e-30
        xx, yy, zz = q[0] + pull, q[3] + pull, q[5] + pull
        rx, ry, rz = pull * mx - q[6], pull * my - q[7], pull * mz - q[8]
        cx, cy, cz = yy * zz - q[4] * q[4], q[2] * q[4] - q[1] * zz, q[1] * q[4] - q[2] * yy
        dy, dz, ez = xx * zz - q[2] * q[2], q[1] * q[2] - xx * q[4], xx * yy - q[1] * q[1]
        det = max(xx * cx + q[1] * cy + q[2] * cz, 1e-300)
        x, y, z = (
            (cx * rx + cy * ry + cz * rz) / det,
            (cy * rx + dy * ry + dz * rz) / det,
            (cz * rx + dz * ry + ez * rz) / det,
        )
        if not (x - mx) ** 2 + (y - my) ** 2 + (z - mz) ** 2 <= reach:
            x, y, z = mx, my, mz
        error = q[0] * x * x + q[3] * y * y + q[5] * z * z + 2 * (q[1] * x * y + q[2] * x * z + q[4] * y * z)
        error += 2 * (q[6] * x + q[7] * y + q[8] * z) + q[9]
        cost[e] = max(error, 0.0) + 1e-7 * reach * reach  # in flat places short edges go first
        target[e, 0], target[e, 1], target[e, 2] = x, y, z
    return cost, target


@njit(cache=True, nogil=True)
def _turns(
    points: np.ndarray, faces: np.ndarray, parent: np.ndarray, a: int, b: int, first: int, last: int,
    incident: np.ndarray, p: np.ndarray,
) -> bool:  # fmt: skip
    """Whether moving a and b to p turns over one of the faces that incident[first : last] names."""
    for k in range(first, last):
        f = incident[k]
        i, j, m = parent[faces[f, 0]], parent[faces[f, 1]], parent[faces[f, 2]]
        if i == j or j == m or m == i:
            continue
        first_moves, second_moves, third_moves = i in (a, b), j in (a, b), m in (a, b)
        if int(first_moves) + int(second_moves) + int(third_moves) != 1:
            continue
        x, y, z = _normal(points[i], points[j], points[m])
        one = p if first_moves else points[i]
        two = p if second_moves else points[j]
        three = p if third_moves else points[m]
        u, v, w = _normal(one, two, three)
        size = x * x + y * y + z * z
        if size > _NOTHING and x * u + y * v + z * w <= _FIRM * np.sqrt(size * (u * u + v * v + w * w)):
            return True
    return False


@njit(cache=True, nogil=True)
def _collapse(
    points: np.ndarray, quadrics: np.ndarray, values: np.ndarray, weights: np.ndarray, faces: np.ndarray,
    offsets: np.ndarray, incident: np.ndarray, ends: np.ndarray, targets: np.ndarray, excess: int, parent: np.ndarray,
) -> None:  # fmt: skip
    """Collapse edges in their order until `excess` faces are gone; a vertex takes part once. `parent` says who became whom."""
    used = np.zeros(len(points), np.bool_)
    for e in range(len(ends)):
        a, b = ends[e]
        if used[a] or used[b]:
            continue
        p = targets[e]
        if _turns(points, faces, parent, a, b, offsets[a], offsets[a + 1], incident, p):
            continue
        if _turns(points, faces, parent, a, b, offsets[b], offsets[b + 1], incident, p):
            continue
        for k in range(offsets[b], offsets[b + 1]):  # faces that have both ends disappear
            f = incident[k]
            i, j, m = parent[faces[f, 0]], parent[faces[f, 1]], parent[faces[f, 2]]
            if i != j and j != m and m != i and (i == a or j == a or m == a):
                excess -= 1
        used[a] = used[b] = True
        parent[b] = a
        points[a] = p
        quadrics[a] += quadrics[b]
        values[a] = (weights[a] * values[a] + weights[b] * values[b]) / (weights[a] + weights[b])
        weights[a] += weights[b]
        if excess <= 0:
            return


def _clustered(mesh: Simple) -> Simple:
    """Vertices of one cell of a fine grid as their mean: about `_MANY` / 2 triangles are left of a smooth surface."""
    low, extent = mesh.vertices.min(0), float(np.ptp(mesh.vertices, axis=0).max())
    cells = int((_MANY / 8) ** 0.5)
    place = ((mesh.vertices - low) * (cells / extent)).astype(np.int64).clip(0, cells - 1)
    _, cluster, count = np.unique(place @ np.array([cells**2, cells, 1]), return_inverse=True, return_counts=True)
    points = np.stack([np.bincount(cluster, mesh.vertices[:, k]) / count for k in range(3)], 1).astype(np.float32)
    values = None if mesh.values is None else (np.bincount(cluster, mesh.values) / count).astype(np.float32)
    a, b, c = (corners := cluster[mesh.faces]).T
    return _compact(points, corners[(a != b) & (b != c) & (c != a)], values)


def _compact(vertices: np.ndarray, faces: np.ndarray, values: np.ndarray | None) -> Simple:
    used = np.zeros(len(vertices), np.bool_)
    used[faces.reshape(-1)] = True
    rank = np.cumsum(used) - 1
    return Simple(vertices[used], rank[faces], None if values is None else values[used])
