"""Nearest points on a CPU: the packed tree of `closest_point`, with points in its leaves."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from shapecodec.ops.closest_point.cpu import CHILD_BITS, FAR, LEVELS, RUN, U, push_children, unit_shift
from shapecodec.ops.closest_point.tree import WIDTH, PackedTree, build_tree, spatial_order

LEAF = 3 * WIDTH


@njit(cache=True, parallel=True, nogil=True)
def _leaf_points(targets: np.ndarray, order: np.ndarray) -> np.ndarray:
    leaves = np.zeros(len(order) * 3, np.float32)
    for slot in prange(len(order)):
        for axis in range(3):
            leaves[(slot // WIDTH) * LEAF + axis * WIDTH + slot % WIDTH] = targets[order[slot], axis]
    return leaves


@njit(cache=True)
def _leaf_squares(
    x: np.float32, y: np.float32, z: np.float32, leaves: np.ndarray, base: int, squares: np.ndarray
) -> None:
    for k in range(len(squares)):
        i = np.uint64(base + k)
        dx, dy, dz = leaves[i] - x, leaves[i + U[1]] - y, leaves[i + U[2]] - z
        squares[k] = dx * dx + dy * dy + dz * dz


@njit(cache=True, nogil=True)
def _walk(
    x: np.float32, y: np.float32, z: np.float32, seed: int, tree: PackedTree, leaves: np.ndarray,
    squares: np.ndarray, nodes: np.ndarray, bounds: np.ndarray,
) -> int:  # fmt: skip
    """The leaf slot of the nearest target; `seed` is a slot that is likely near."""
    best, slot = np.float32(np.inf), 0
    nodes[0], bounds[0] = (len(tree.starts) - 1) << CHILD_BITS, np.float32(0.0)
    nodes[1], bounds[1] = seed // WIDTH, np.float32(0.0)
    depth = 2
    while depth > 0:
        depth -= 1
        if bounds[depth] >= best:
            continue
        level, group = nodes[depth] >> CHILD_BITS, nodes[depth] & ((1 << CHILD_BITS) - 1)
        if level == 0:
            _leaf_squares(x, y, z, leaves, group * LEAF, squares)
            for k in range(WIDTH):
                if squares[k] < best:
                    best, slot = squares[k], group * WIDTH + k
        else:
            depth = push_children(x, y, z, level, group, best, tree, squares, nodes, bounds, depth)
    return slot


@njit(cache=True, parallel=True, nogil=True)
def _query(
    points: np.ndarray,
    original: np.ndarray,
    targets: np.ndarray,
    order: np.ndarray,
    tree: PackedTree,
    leaves: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    distance, row = np.zeros(len(points), np.float32), np.zeros(len(points), np.int64)
    for run in prange((len(points) + RUN - 1) // RUN):
        squares = np.zeros(WIDTH, np.float32)
        nodes, bounds = np.zeros(LEVELS * WIDTH, np.int64), np.zeros(LEVELS * WIDTH, np.float32)
        seed = 0
        for i in range(run * RUN, min(len(points), (run + 1) * RUN)):
            q = order[i]
            seed = _walk(points[q, 0], points[q, 1], points[q, 2], seed, tree, leaves, squares, nodes, bounds)
            row[q] = tree.order[seed]
            square = 0.0
            for axis in range(3):
                difference = np.float64(original[q, axis]) - np.float64(targets[row[q], axis])
                square += difference * difference
            distance[q] = np.sqrt(square)
    return distance, row


def nearest_point(points: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See the public function; float32 arrays, at least one point and one target, all finite."""
    shift = unit_shift(targets)
    scaled = np.ldexp(targets, shift)
    with np.errstate(over="ignore"):
        moved = np.clip(np.ldexp(points, shift), -FAR, FAR)
    tree = build_tree(scaled, scaled)
    order = spatial_order(moved, moved, by_size=False)
    return _query(moved, points, targets, order, tree, _leaf_points(scaled, tree.order))
