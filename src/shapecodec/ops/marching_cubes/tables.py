"""The marching-cubes tables, derived by a program from one rule for the faces of a cell.

Corner c = 4 x + 2 y + z of a cell has the bits x, y, z. Edge e = 4 axis + 2 u + v leaves the corner whose bit on `axis`
is 0 and whose bits on the other two axes, in order, are u, v. Bit c of a case says that corner c is inside.

The rule: walk around each face and give every run of inside corners one segment that cuts it off, so two inside corners
on a diagonal are parted. The rule reads only the signs of the face, so the two cells at a face draw the same segments
in opposite directions, and the surface has no holes whatever the field (Duerst 1988 showed the original's).
Segments chain into loops, because each cut edge has two faces; loops are cut into triangles such that no diagonal lies
in a face, where it could coincide with the neighbour's and make an edge of four triangles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

MAX_TRIANGLES = 5
Segments = dict[int, int]  # cut edge -> next cut edge


def corner(place: tuple[int, int, int]) -> int:
    """Index of the corner at (x, y, z) of {0, 1}^3."""
    return 4 * place[0] + 2 * place[1] + place[2]


@cache
def edge_ends(edge: int) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """The low and the high corner of an edge, as places."""
    axis, u, v = edge // 4, edge // 2 % 2, edge % 2
    low = [u, v]
    low.insert(axis, 0)
    high = [u, v]
    high.insert(axis, 1)
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])


@cache
def edge_between(a: tuple[int, int, int], b: tuple[int, int, int]) -> int:
    """The edge of two adjacent corners."""
    return next(edge for edge in range(12) if set(edge_ends(edge)) == {a, b})


@cache
def face_ring(axis: int, side: int) -> tuple[tuple[int, int, int], ...]:
    """The four corners of a face, counter-clockwise seen from outside the cell."""
    ring = []
    for u, v in ((0, 0), (1, 0), (1, 1), (0, 1)):
        place = [0, 0, 0]
        place[axis], place[(axis + 1) % 3], place[(axis + 2) % 3] = side, u, v
        ring.append((place[0], place[1], place[2]))
    return tuple(ring if side == 1 else reversed(ring))


def face_segments(case: int, axis: int, side: int) -> list[tuple[int, int]]:
    """Directed segments (edge, next edge) of a case on one face: one for each run of inside corners around it."""
    ring = face_ring(axis, side)
    inside = [case >> corner(place) & 1 for place in ring]
    segments = []
    for first in range(4):
        if inside[first] and not inside[first - 1]:
            last = first
            while inside[(last + 1) % 4]:
                last += 1
            entering = edge_between(ring[first - 1], ring[first])
            leaving = edge_between(ring[last % 4], ring[(last + 1) % 4])
            segments.append((entering, leaving))
    return segments


def loops_of(case: int) -> list[list[int]]:
    """The closed polygons of a case, as lists of edges, counter-clockwise seen from the outside corners."""
    following: Segments = {}
    for axis, side in product(range(3), range(2)):
        following.update(face_segments(case, axis, side))
    loops = []
    while following:
        start = min(following)
        loop = [start]
        while (edge := following.pop(loop[-1])) != start:
            loop.append(edge)
        loops.append(loop)
    return loops


def share_a_face(a: int, b: int) -> bool:
    """Whether two edges lie in one face of the cell."""
    ends = [*edge_ends(a), *edge_ends(b)]
    return any(len({place[axis] for place in ends}) == 1 for axis in range(3))


def triangulate(loop: list[int]) -> list[tuple[int, int, int]] | None:
    """Triangles of a polygon such that no diagonal lies in a face of the cell; None where there is no such cut."""
    if len(loop) < 3:
        return []
    for apex in range(2, len(loop)):  # of the triangle on the polygon's first side
        left, right = loop[1 : apex + 1], [loop[0], *loop[apex:]]
        if any(len(part) > 2 and share_a_face(part[0], loop[apex]) for part in (left, right)):
            continue
        rest_left, rest_right = triangulate(left), triangulate(right)
        if rest_left is not None and rest_right is not None:
            return [(loop[0], loop[1], loop[apex]), *rest_left, *rest_right]
    return None


@dataclass(frozen=True)
class Tables:
    """What the extraction passes read.

    Args:
        triangles: (256, 16) int8, three edges a triangle, -1 after the last.
        counts: (256,) int32 triangles of each case.
        edges: (12, 4) int32: low corner x, y, z and axis of each edge.
    """

    triangles: np.ndarray
    counts: np.ndarray
    edges: np.ndarray


@cache
def tables() -> Tables:
    """Derive the tables: 256 cases, 820 triangles, at most 5 in a cell; takes about 10 ms, once."""
    triangles = np.full((256, 16), -1, np.int8)
    counts = np.zeros(256, np.int32)
    for case in range(256):
        flat: list[int] = []
        for loop in loops_of(case):
            cut = triangulate(loop)
            if cut is None:
                raise AssertionError(f"case {case}: no cut of {loop} keeps its diagonals off the faces")
            flat += [edge for triangle in cut for edge in triangle]
        triangles[case, : len(flat)] = flat
        counts[case] = len(flat) // 3
    edges = np.array([[*edge_ends(edge)[0], edge // 4] for edge in range(12)], np.int32)
    for array in (triangles, counts, edges):
        array.setflags(write=False)
    return Tables(triangles, counts, edges)
