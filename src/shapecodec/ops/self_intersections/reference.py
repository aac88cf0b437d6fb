"""The specification: every pair of faces, in Python's big integers (numpy object arrays: a few hundred faces)."""

from __future__ import annotations

import numpy as np

Corners = tuple[np.ndarray, np.ndarray, np.ndarray]
EDGES = ((0, 1, 2), (1, 2, 0), (2, 0, 1))  # start, end, and the corner across


def count_pairs(lattice: np.ndarray, faces: np.ndarray) -> tuple[int, np.ndarray]:
    """Pairs, and the faces (F,) bool in them; lattice (V, 3) integers, faces (F, 3)."""
    corners = lattice.astype(object)[faces]
    solid = (_cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) != 0).any(1)
    first, second = np.triu_indices(len(faces), 1)
    both = solid[first] & solid[second]
    first, second = first[both], second[both]
    touched = np.zeros(len(faces), bool)
    if len(first) == 0:
        return 0, touched
    meet = _meet(corners[first], corners[second])
    touched[first[meet]] = touched[second[meet]] = True
    return int(meet.sum()), touched


def _meet(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """(n,) bool for pairs of faces (n, 3 corners, 3)."""
    same = (one[:, :, None] == two[:, None, :]).all(-1)  # (n, corner of one, corner of two)
    shared = same.sum((1, 2))
    found = shared == 3
    for a, b, common in ((one, two, same.any(2)), (two, one, same.any(1))):
        for start, end, _ in EDGES:
            free = ~common[:, start] & ~common[:, end]
            found |= free & _edge_hits(a[:, start], a[:, end], (b[:, 0], b[:, 1], b[:, 2]))
    both: np.ndarray = found | ((shared == 2) & _folded(one, two, same))
    return both


def _folded(one: np.ndarray, two: np.ndarray, same: np.ndarray) -> np.ndarray:
    """Neighbours across an edge that lie in one plane, on the same side of it; the rows of two common corners only."""
    folded = np.zeros(len(one), bool)
    for a, b, c in EDGES:
        for d in range(3):
            here = same[:, a].any(1) & same[:, b].any(1) & ~same[:, c].any(1) & ~same[:, :, d].any(1)
            plane = one[:, a], one[:, b], one[:, c]
            flat = _side(*plane, two[:, d]) == 0
            x, y = _flatten(plane, one[:, a], one[:, b], one[:, c], two[:, d])
            together = _turn(x, y, 0, 1, 2) * _turn(x, y, 0, 1, 3) > 0
            folded |= here & flat & together
    return folded


def _edge_hits(p: np.ndarray, q: np.ndarray, face: Corners) -> np.ndarray:
    """Whether closed segments pq meet closed faces."""
    below, above = _side(*face, p), _side(*face, q)
    a, b, c = face
    turns = np.stack([_side(p, q, a, b), _side(p, q, b, c), _side(p, q, c, a)])
    through = (turns >= 0).all(0) | (turns <= 0).all(0)
    flat = (below == 0) & (above == 0)
    return np.where(flat, _flat_hits(p, q, face), (below * above <= 0) & through)


def _flat_hits(p: np.ndarray, q: np.ndarray, face: Corners) -> np.ndarray:
    """The same for segments in the face's plane."""
    x, y = _flatten(face, *face, p, q)
    turns = np.stack([_turn(x, y, k, (k + 1) % 3, 3) for k in range(3)])
    hits = (turns >= 0).all(0) | (turns <= 0).all(0)
    for k in range(3):
        hits = hits | _cross_flat(x, y, k, (k + 1) % 3)
    return np.asarray(hits)


def _cross_flat(x: np.ndarray, y: np.ndarray, a: int, b: int) -> np.ndarray:
    """Whether closed segments (a, b) and (3, 4) of the plane meet."""
    one = _turn(x, y, a, b, 3), _turn(x, y, a, b, 4)
    two = _turn(x, y, 3, 4, a), _turn(x, y, 3, 4, b)
    hits = (one[0] * one[1] < 0) & (two[0] * two[1] < 0)
    for turn, start, end, point in ((one[0], a, b, 3), (one[1], a, b, 4), (two[0], 3, 4, a), (two[1], 3, 4, b)):
        within = [
            (np.minimum(w[start], w[end]) <= w[point]) & (w[point] <= np.maximum(w[start], w[end])) for w in (x, y)
        ]
        hits |= (turn == 0) & within[0] & within[1]
    return np.asarray(hits)


def _flatten(face: Corners, *points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (k, n), (k, n) of points within the face's plane: the axis of the largest normal is dropped."""
    normal = np.abs(_cross(face[1] - face[0], face[2] - face[0]))
    axis = np.where(normal[:, 0] >= np.maximum(normal[:, 1], normal[:, 2]), 0, 1)
    axis = np.where(normal[:, 2] > np.maximum(normal[:, 0], normal[:, 1]), 2, axis)
    rows = np.arange(len(axis))
    stacked = np.stack(points)
    return stacked[:, rows, (axis + 1) % 3], stacked[:, rows, (axis + 2) % 3]


def _turn(x: np.ndarray, y: np.ndarray, a: int, b: int, c: int) -> np.ndarray:
    return _sign((x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a]))


def _side(a: np.ndarray, b: np.ndarray, c: np.ndarray, d: np.ndarray) -> np.ndarray:
    """(n,) -1, 0, 1: on which side of the planes abc the points d lie."""
    return _sign((_cross(b - a, c - a) * (d - a)).sum(1))


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.stack([u[:, i] * v[:, j] - u[:, j] * v[:, i] for i, j in ((1, 2), (2, 0), (0, 1))], 1)


def _sign(values: np.ndarray) -> np.ndarray:
    return (values > 0).astype(np.int64) - (values < 0).astype(np.int64)
