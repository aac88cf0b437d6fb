"""Self-intersections on a CPU: leaves of eight faces of the packed box tree against each other, then exact decisions.

Threads come from Python and the kernels release its lock: loops that numba runs in parallel take many times as long to
compile. Counts are sums of integers, so the threads do not show.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from numba import njit

from shapecodec.ops.closest_point.tree import BOX, WIDTH, PackedTree, build_tree
from shapecodec.ops.self_intersections.exact import cross, edge_hits, same_place, side_of, turn, widest_axis

STACK = 24 * WIDTH
RUN = 512  # leaves a task


def count_pairs(lattice: np.ndarray, faces: np.ndarray) -> tuple[int, np.ndarray]:
    """See the reference; lattice (V, 3) int32, faces (F, 3) int64, F >= 1."""
    touched = np.zeros(len(faces), np.bool_)
    solid = np.flatnonzero(_with_area(lattice, faces))
    if len(solid) < 2:
        return 0, touched
    low, high = _boxes(lattice, faces, solid)
    # int32 does not fit float32: one step outwards covers the rounding, and pairs are checked in integers again
    tree = build_tree(np.nextafter(low.astype(np.float32), -np.inf), np.nextafter(high.astype(np.float32), np.inf))
    slots = tree.order[: len(solid)]  # what follows fills the last leaf
    low, high, rows, hit = low[slots], high[slots], faces[solid[slots]], np.zeros(len(slots), np.bool_)
    leaves = -(-len(slots) // WIDTH)

    def task(start: int) -> int:
        return int(_leaf_pairs(lattice, rows, low, high, tree, start, min(start + RUN, leaves), hit))

    with ThreadPoolExecutor(numba.get_num_threads()) as pool:
        pairs = sum(pool.map(task, range(0, leaves, RUN)))
    touched[solid[slots[hit]]] = True
    return pairs, touched


@njit(cache=True, nogil=True)
def _with_area(q: np.ndarray, faces: np.ndarray) -> np.ndarray:
    solid = np.zeros(len(faces), np.bool_)
    for f in range(len(faces)):
        x, y, z = cross(q, faces[f, 0], faces[f, 1], faces[f, 2])
        solid[f] = x != 0 or y != 0 or z != 0
    return solid


@njit(cache=True, nogil=True)
def _boxes(q: np.ndarray, faces: np.ndarray, chosen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.zeros((len(chosen), 3), np.int32), np.zeros((len(chosen), 3), np.int32)
    for i in range(len(chosen)):
        f = chosen[i]
        for axis in range(3):
            a, b, c = q[faces[f, 0], axis], q[faces[f, 1], axis], q[faces[f, 2], axis]
            low[i, axis], high[i, axis] = min(a, min(b, c)), max(a, max(b, c))
    return low, high


@njit(cache=True, nogil=True)
def _leaf_pairs(
    q: np.ndarray, faces: np.ndarray, low: np.ndarray, high: np.ndarray, tree: PackedTree, start: int, end: int,
    hit: np.ndarray,
) -> int:  # fmt: skip
    """Pairs of faces between leaves start..end and themselves or later leaves; marks the faces in `hit`."""
    nodes, found = np.zeros(STACK, np.int64), np.zeros(len(tree.order) // WIDTH, np.int32)
    corner, far, pairs = np.zeros(3), np.zeros(3), 0
    for leaf in range(start, end):
        first, last = leaf * WIDTH, min(leaf * WIDTH + WIDTH, len(faces))
        for axis in range(3):
            corner[axis], far[axis] = low[first:last, axis].min(), high[first:last, axis].max()
        for k in range(_overlapping(tree, leaf, corner, far, nodes, found)):
            other, stop = found[k] * WIDTH, min(found[k] * WIDTH + WIDTH, len(faces))
            for i in range(first, last):
                for j in range(max(other, i + 1), stop):
                    if (
                        low[i, 0] <= high[j, 0] and low[j, 0] <= high[i, 0]
                        and low[i, 1] <= high[j, 1] and low[j, 1] <= high[i, 1]
                        and low[i, 2] <= high[j, 2] and low[j, 2] <= high[i, 2]
                        and _meet(q, faces, i, j)
                    ):  # fmt: skip
                        hit[i] = hit[j] = True
                        pairs += 1
    return pairs


@njit(cache=True, nogil=True)
def _overlapping(
    tree: PackedTree, leaf: int, low: np.ndarray, high: np.ndarray, nodes: np.ndarray, found: np.ndarray
) -> int:
    """Writes the leaves from `leaf` on whose boxes meet a box into `found`; returns how many."""
    count, depth, top = 0, 1, len(tree.starts) - 1
    nodes[0] = 0
    levels = np.zeros(STACK, np.int64)
    levels[0] = top
    while depth > 0:
        depth -= 1
        level, group = levels[depth], nodes[depth]
        if level == 0:
            found[count] = group
            count += 1
            continue
        base = (tree.starts[level] + group) * BOX
        span = 1  # leaves below a child
        for _ in range(level - 1):
            span *= WIDTH
        for k in range(WIDTH):
            child = group * WIDTH + k
            if (
                (child + 1) * span > leaf
                and tree.boxes[base + k] <= high[0] and tree.boxes[base + 3 * WIDTH + k] >= low[0]
                and tree.boxes[base + WIDTH + k] <= high[1] and tree.boxes[base + 4 * WIDTH + k] >= low[1]
                and tree.boxes[base + 2 * WIDTH + k] <= high[2] and tree.boxes[base + 5 * WIDTH + k] >= low[2]
            ):  # fmt: skip
                nodes[depth], levels[depth] = child, level - 1
                depth += 1
    return count


@njit(cache=True, nogil=True)
def _meet(q: np.ndarray, faces: np.ndarray, i: int, j: int) -> bool:
    """Whether faces i and j meet in more than common vertices and edges."""
    a, b, c = faces[i, 0], faces[i, 1], faces[i, 2]
    d, e, f = faces[j, 0], faces[j, 1], faces[j, 2]
    shared = 0
    for k in range(3):  # turn both so that the common vertices come first
        if same_place(q, a, d) or same_place(q, a, e) or same_place(q, a, f):
            shared += 1
            while not same_place(q, a, d):
                d, e, f = e, f, d
            break
        if k < 2:
            a, b, c = b, c, a
    if shared == 0:
        return _meet_apart(q, a, b, c, d, e, f)
    # a and d are one; put a second common vertex into b and e
    if same_place(q, c, e) or same_place(q, c, f):
        b, c = c, b
    if same_place(q, b, f):
        e, f = f, e
    if same_place(q, b, e):
        return same_place(q, c, f) or _folded(q, a, b, c, f)
    normal = cross(q, d, e, f)
    u, v = side_of(normal, q, d, b), side_of(normal, q, d, c)
    if u * v > 0:
        return False
    other = cross(q, a, b, c)
    s, t = side_of(other, q, a, e), side_of(other, q, a, f)
    if s * t > 0:
        return False
    return edge_hits(q, b, c, u, v, normal, d, e, f) or edge_hits(q, e, f, s, t, other, a, b, c)


@njit(cache=True, nogil=True)
def _folded(q: np.ndarray, a: int, b: int, c: int, d: int) -> bool:
    """Whether the faces abc and abd lie in one plane on the same side of ab."""
    normal = cross(q, a, b, c)
    if side_of(normal, q, a, d) != 0:
        return False
    axis = widest_axis(normal)
    return turn(q, axis, a, b, c) * turn(q, axis, a, b, d) > 0


@njit(cache=True, nogil=True)
def _meet_apart(q: np.ndarray, a: int, b: int, c: int, d: int, e: int, f: int) -> bool:
    """Whether closed faces abc and def without a common vertex meet: an edge of one then meets the other."""
    normal = cross(q, d, e, f)
    u, v, w = side_of(normal, q, d, a), side_of(normal, q, d, b), side_of(normal, q, d, c)
    if (u > 0 and v > 0 and w > 0) or (u < 0 and v < 0 and w < 0):
        return False
    other = cross(q, a, b, c)
    r, s, t = side_of(other, q, a, d), side_of(other, q, a, e), side_of(other, q, a, f)
    if (r > 0 and s > 0 and t > 0) or (r < 0 and s < 0 and t < 0):
        return False
    return (
        edge_hits(q, a, b, u, v, normal, d, e, f)
        or edge_hits(q, b, c, v, w, normal, d, e, f)
        or edge_hits(q, c, a, w, u, normal, d, e, f)
        or edge_hits(q, d, e, r, s, other, a, b, c)
        or edge_hits(q, e, f, s, t, other, a, b, c)
        or edge_hits(q, f, d, t, r, other, a, b, c)
    )
