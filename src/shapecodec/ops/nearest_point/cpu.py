"""Nearest points on a CPU: the packed tree of `closest_point`, with points in its leaves."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from shapecodec.ops.closest_point.cpu import FAR, LEVELS, RUN, push_children, unit_shift
from shapecodec.ops.closest_point.packets import (
    CHILD_BITS,
    MOST,
    PACKET,
    U,
    box_squares,
    gather_groups,
    packet_bounds,
    reach_of,
)
from shapecodec.ops.closest_point.tree import BOX, WIDTH, PackedTree, build_tree, spatial_order

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
) -> tuple[int, np.float32]:  # fmt: skip
    """The leaf slot of the nearest target and its squared distance; `seed` is a slot that is likely near."""
    best, reach, slot = np.float32(np.inf), np.float32(np.inf), 0
    nodes[0], bounds[0] = (len(tree.starts) - 1) << CHILD_BITS, np.float32(0.0)
    nodes[1], bounds[1] = seed // WIDTH, np.float32(0.0)
    depth = 2
    while depth > 0:
        depth -= 1
        if bounds[depth] > reach:
            continue
        level, group = nodes[depth] >> CHILD_BITS, nodes[depth] & ((1 << CHILD_BITS) - 1)
        if level == 0:
            _leaf_squares(x, y, z, leaves, group * LEAF, squares)
            for k in range(WIDTH):
                if squares[k] < best or (squares[k] == best and group * WIDTH + k < slot):
                    best, slot = squares[k], group * WIDTH + k
            reach = reach_of(best)
        else:
            depth = push_children(x, y, z, level, group, reach, tree, squares, nodes, bounds, depth)
    return slot, best


@njit(cache=True, nogil=True)
def _look(
    x: np.float32, y: np.float32, z: np.float32, seed: int, tree: PackedTree, points: np.ndarray, count: int,
    groups: np.ndarray, boxes: np.ndarray, squares: np.ndarray, nearer: np.ndarray, leaves: np.ndarray,
) -> int:  # fmt: skip
    """The leaf slot of the nearest target among `count` groups of leaves; `seed` is a slot that is likely near."""
    best, slot, own = np.float32(np.inf), 0, seed // WIDTH
    _leaf_squares(x, y, z, points, own * LEAF, leaves)
    for k in range(WIDTH):
        if leaves[k] < best:
            best, slot = leaves[k], own * WIDTH + k
    reach = reach_of(best)
    for part in range((count + WIDTH - 1) // WIDTH):
        box_squares(x, y, z, boxes, part * BOX, squares)
        for k in range(WIDTH):
            if squares[k] > reach:
                continue
            group = groups[part * WIDTH + k]
            box_squares(x, y, z, tree.boxes, (tree.starts[1] + group) * BOX, nearer)
            for child in range(WIDTH):
                leaf = group * WIDTH + child
                if nearer[child] > reach or leaf == own:
                    continue
                _leaf_squares(x, y, z, points, leaf * LEAF, leaves)
                for j in range(WIDTH):
                    if leaves[j] < best or (leaves[j] == best and leaf * WIDTH + j < slot):
                        best, slot = leaves[j], leaf * WIDTH + j
                reach = reach_of(best)
    return slot


@njit(cache=True, parallel=True, nogil=True)
def _query(points: np.ndarray, order: np.ndarray, tree: PackedTree, leaf_points: np.ndarray) -> np.ndarray:
    """(Q,) int64 row of the nearest target of each point (Q, 3)."""
    rows = np.zeros(len(points), np.int64)
    for run in prange((len(points) + RUN - 1) // RUN):
        squares, nearer, leaves = np.zeros(WIDTH, np.float32), np.zeros(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
        nodes, bounds = np.zeros(LEVELS * WIDTH, np.int64), np.zeros(LEVELS * WIDTH, np.float32)
        groups, boxes, corners = np.zeros(MOST, np.int64), np.zeros(MOST * 6, np.float32), np.zeros(6, np.float32)
        seed, last = 0, min(len(points), (run + 1) * RUN)
        for start in range(run * RUN, last, PACKET):
            end, query = min(last, start + PACKET), order[start]
            x, y, z = points[query, 0], points[query, 1], points[query, 2]
            seed, square = _walk(x, y, z, seed, tree, leaf_points, squares, nodes, bounds)
            rows[query] = tree.order[seed]
            count = -1
            if len(tree.starts) > 2:
                radius = np.sqrt(square) + packet_bounds(points, order, start, end, corners)
                count = gather_groups(corners, radius, tree, squares, nodes, groups, boxes)
            for i in range(start + 1, end):
                query = order[i]
                x, y, z = points[query, 0], points[query, 1], points[query, 2]
                if count < 0:
                    seed, _ = _walk(x, y, z, seed, tree, leaf_points, squares, nodes, bounds)
                else:
                    seed = _look(x, y, z, seed, tree, leaf_points, count, groups, boxes, squares, nearer, leaves)
                rows[query] = tree.order[seed]
    return rows


@njit(cache=True, parallel=True, nogil=True)
def _measure(points: np.ndarray, targets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(Q,) float32 distances, in float64 from the user's own coordinates."""
    distance = np.zeros(len(points), np.float32)
    for i in prange(len(points)):
        square = 0.0
        for axis in range(3):
            difference = np.float64(points[i, axis]) - np.float64(targets[rows[i], axis])
            square += difference * difference
        distance[i] = np.sqrt(square)
    return distance


def nearest_point(points: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See the public function; float32 arrays, at least one point and one target, all finite."""
    shift = unit_shift(targets)
    scaled = np.ldexp(targets, shift)
    with np.errstate(over="ignore"):
        moved = np.clip(np.ldexp(points, shift), -FAR, FAR)
    tree = build_tree(scaled, scaled)
    rows = _query(moved, spatial_order(moved, moved, by_size=False), tree, _leaf_points(scaled, tree.order))
    return _measure(points, targets, rows), rows
