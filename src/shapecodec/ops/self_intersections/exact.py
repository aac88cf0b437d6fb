"""Exact decisions about triangles on a lattice of 2^30 points an axis, in 64-bit integers (numba).

Bits: differences of coordinates stay below 2^30, products of two below 2^60, a cross product's component below 2^61. A
volume is the sum of three (component times difference); each component is cut into a high part below 2^30 and a low
part of 31 bits, so that both sums of three products stay below 2^63 and nothing is rounded.
"""

from __future__ import annotations

import numpy as np
from numba import njit

CUT = 31
LOW = (1 << CUT) - 1


@njit(cache=True, nogil=True, inline="always")
def cross(q: np.ndarray, a: int, b: int, c: int) -> tuple[int, int, int]:
    """(b - a) x (c - a)."""
    ux, uy, uz = np.int64(q[b, 0]) - q[a, 0], np.int64(q[b, 1]) - q[a, 1], np.int64(q[b, 2]) - q[a, 2]
    vx, vy, vz = np.int64(q[c, 0]) - q[a, 0], np.int64(q[c, 1]) - q[a, 1], np.int64(q[c, 2]) - q[a, 2]
    return uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx


@njit(cache=True, nogil=True, inline="always")
def side_of(normal: tuple[int, int, int], q: np.ndarray, a: int, d: int) -> int:
    """-1, 0, 1: on which side of the plane through a the point d lies."""
    x, y, z = np.int64(q[d, 0]) - q[a, 0], np.int64(q[d, 1]) - q[a, 1], np.int64(q[d, 2]) - q[a, 2]
    high = (normal[0] >> CUT) * x + (normal[1] >> CUT) * y + (normal[2] >> CUT) * z
    low = (normal[0] & LOW) * x + (normal[1] & LOW) * y + (normal[2] & LOW) * z
    high, low = high + (low >> CUT), low & LOW
    return 1 if high > 0 or (high == 0 and low > 0) else (0 if high == 0 and low == 0 else -1)


@njit(cache=True, nogil=True)
def side(q: np.ndarray, a: int, b: int, c: int, d: int) -> int:
    """-1, 0, 1: on which side of the plane abc the point d lies."""
    return side_of(cross(q, a, b, c), q, a, d)


@njit(cache=True, nogil=True, inline="always")
def same_place(q: np.ndarray, a: int, b: int) -> bool:
    """Whether two vertices lie in one place."""
    return a == b or (q[a, 0] == q[b, 0] and q[a, 1] == q[b, 1] and q[a, 2] == q[b, 2])


@njit(cache=True, nogil=True)
def widest_axis(normal: tuple[int, int, int]) -> int:
    """The axis along which a plane is best projected."""
    x, y, z = abs(normal[0]), abs(normal[1]), abs(normal[2])
    return 2 if z > max(x, y) else (0 if x >= max(y, z) else 1)


@njit(cache=True, nogil=True)
def turn(q: np.ndarray, axis: int, a: int, b: int, c: int) -> int:
    """-1, 0, 1: the turn a, b, c seen along an axis."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    x, y = np.int64(q[b, i]) - q[a, i], np.int64(q[b, j]) - q[a, j]
    area = x * (np.int64(q[c, j]) - q[a, j]) - y * (np.int64(q[c, i]) - q[a, i])
    return 1 if area > 0 else (-1 if area < 0 else 0)


@njit(cache=True, nogil=True)
def _between(q: np.ndarray, axis: int, a: int, b: int, c: int) -> bool:
    """Whether c, on the line ab, lies on the closed segment."""
    i, j = (axis + 1) % 3, (axis + 2) % 3
    return min(q[a, i], q[b, i]) <= q[c, i] <= max(q[a, i], q[b, i]) and (
        min(q[a, j], q[b, j]) <= q[c, j] <= max(q[a, j], q[b, j])
    )


@njit(cache=True, nogil=True)
def _cross_flat(q: np.ndarray, axis: int, a: int, b: int, c: int, d: int) -> bool:
    """Whether closed segments ab and cd of one plane meet."""
    s, t, u, v = turn(q, axis, a, b, c), turn(q, axis, a, b, d), turn(q, axis, c, d, a), turn(q, axis, c, d, b)
    if s * t < 0 and u * v < 0:
        return True
    return (
        (s == 0 and _between(q, axis, a, b, c))
        or (t == 0 and _between(q, axis, a, b, d))
        or (u == 0 and _between(q, axis, c, d, a))
        or (v == 0 and _between(q, axis, c, d, b))
    )


@njit(cache=True, nogil=True)
def _flat_hits(q: np.ndarray, axis: int, start: int, end: int, a: int, b: int, c: int) -> bool:
    """Whether a closed segment in the plane of a closed face meets it."""
    s, t, u = turn(q, axis, a, b, start), turn(q, axis, b, c, start), turn(q, axis, c, a, start)
    if (s >= 0 and t >= 0 and u >= 0) or (s <= 0 and t <= 0 and u <= 0):
        return True
    return (
        _cross_flat(q, axis, a, b, start, end)
        or _cross_flat(q, axis, b, c, start, end)
        or _cross_flat(q, axis, c, a, start, end)
    )


@njit(cache=True, nogil=True)
def edge_hits(
    q: np.ndarray, start: int, end: int, below: int, above: int, normal: tuple, a: int, b: int, c: int
) -> bool:
    """Whether a closed segment meets a closed face abc; below, above: the sides of its plane that the ends lie on."""
    if below * above > 0:
        return False
    if below == 0 and above == 0:
        return _flat_hits(q, widest_axis(normal), start, end, a, b, c)
    s = side(q, start, end, a, b)
    t = side(q, start, end, b, c)
    if s * t < 0:
        return False
    u = side(q, start, end, c, a)
    return (s >= 0 and t >= 0 and u >= 0) or (s <= 0 and t <= 0 and u <= 0)
