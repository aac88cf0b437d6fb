"""The tables of dual marching cubes, derived by a program from the rule of `marching_cubes.tables` for the faces of a cell.

Corners, edges and cases are numbered as there: corner 4 x + 2 y + z, edge 4 axis + 2 u + v, bit c of a case says that corner
c is inside. Each closed polygon that marching cubes draws in a cell becomes one dual vertex (Nielson, Dual Marching Cubes,
2004), so a dual vertex owns the cut edges of its polygon and its faces make one fan around it.

Two cells that share a face are joined by one dual edge for each segment in that face. A face with inside corners on one
diagonal only has two segments; where both lie in one polygon in both cells, the two dual edges coincide and four quads
meet in them. Parting the outside corners instead splits the polygon in both. Such cases have one ambiguous face, so the
other neighbours see no difference: `switch` names the face, and the polygons of the other rule are those of case 255 - c.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import product

import numpy as np

from shapecodec.ops.marching_cubes.tables import corner, edge_ends, face_segments, loops_of

MOST_EDGES = 7  # of one dual vertex
MOST_GROUPS = 4  # dual vertices of one cell
FACES = tuple(product(range(3), range(2)))  # (axis, side), numbered 2 * axis + side


def ambiguous_faces(case: int) -> list[int]:
    """The faces 2 * axis + side whose inside corners are the ends of one diagonal."""
    return [2 * axis + side for axis, side in FACES if len(face_segments(case, axis, side)) == 2]


def doubled_faces(case: int) -> list[int]:
    """The ambiguous faces both of whose segments lie in one polygon of the case."""
    loop_of = {edge: number for number, loop in enumerate(loops_of(case)) for edge in loop}
    doubled = []
    for face in ambiguous_faces(case):
        (first, _), (second, _) = face_segments(case, face // 2, face % 2)
        if loop_of[first] == loop_of[second]:
            doubled.append(face)
    return doubled


def switch_face(case: int) -> int:
    """The face across which the case may have to take the other rule, -1 for most cases.

    It does when the face is the case's only ambiguous one, and the other rule parts the polygon that doubles there.
    """
    ambiguous = ambiguous_faces(case)
    parts = len(ambiguous) == 1 and doubled_faces(case) == ambiguous and doubled_faces(255 - case) == []
    return ambiguous[0] if parts else -1


@dataclass(frozen=True)
class Tables:
    """What the extraction reads.

    Args:
        group: (256, 12) int64, the dual vertex of each edge of a case, -1 where the edge is not cut.
        slot: (256, 12) int64, the place of each edge among those of its dual vertex, below `MOST_EDGES`; 0 where not cut.
        counts: (256,) int64, dual vertices of each case.
        switch: (256,) int64, see `switch_face`.
        ends: (12, 2) int64, the low and the high corner of each edge; the edge lies on axis edge // 4.
        corners: (8, 3) int64, the place of each corner.
        normals: (6, 3) int64, the outward direction of each face 2 * axis + side.
    """

    group: np.ndarray
    slot: np.ndarray
    counts: np.ndarray
    switch: np.ndarray
    ends: np.ndarray
    corners: np.ndarray
    normals: np.ndarray


@cache
def tables() -> Tables:
    """Derive the tables: 358 dual vertices over 256 cases, 36 cases that may switch; takes about 20 ms, once."""
    group = np.full((256, 12), -1, np.int64)
    slot = np.zeros((256, 12), np.int64)
    counts = np.zeros(256, np.int64)
    for case in range(256):
        loops = loops_of(case)
        counts[case] = len(loops)
        for number, loop in enumerate(loops):
            group[case, loop] = number
            slot[case, loop] = np.arange(len(loop))
    switch = np.array([switch_face(case) for case in range(256)])
    ends = np.array([[corner(place) for place in edge_ends(edge)] for edge in range(12)])
    corners = np.array(list(product(range(2), repeat=3)))
    normals = np.array([(2 * side - 1) * np.eye(3, dtype=np.int64)[axis] for axis, side in FACES])
    arrays = group, slot, counts, switch, ends, corners, normals
    for array in arrays:
        array.setflags(write=False)
    return Tables(*arrays)
