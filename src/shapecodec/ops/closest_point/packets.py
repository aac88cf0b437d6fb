"""What a packet of neighbouring queries can share of a walk: the few groups of leaves that any of them may need.

A walk from the root meets some 17 groups of boxes for a query near a mesh of 100k faces, most of them far above the
leaves and the same for the whole neighbourhood. If the first query of a packet lies at distance d from the target and
the others at most r from it, none of them is farther from the target than d + r: the groups just above the leaves that
lie nearer than that to the packet's box are all that its queries have to look at.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from shapecodec.ops.closest_point.tree import BOX, WIDTH, PackedTree

PACKET = 32  # queries
MOST = 64  # groups; a packet that needs more walks from the root
BLUR = np.float32(2e-7)  # lengths that float32 may lose in a distance
SLACK = np.float32(1e-6)  # lengths and share by which radii are enlarged: float32 rounds squares of coordinates up to 1
CHILD_BITS = 40
U = tuple(np.uint64(row * WIDTH) for row in range(15))  # unsigned: a signed index costs a wrap-around test


@njit(cache=True, nogil=True, inline="always")
def reach_of(best: np.float32) -> np.float32:
    """The squared distance up to which boxes are looked into.

    A little more than the best so far, so that rounding never hides the winner: which face wins, and of equally near ones
    the one in the first slot, then depends on nothing but the query, whatever is asked in the same call.
    """
    reach = np.sqrt(best) + BLUR
    return reach * reach


@njit(cache=True)
def box_squares(x: np.float32, y: np.float32, z: np.float32, boxes: np.ndarray, base: int, squares: np.ndarray) -> None:
    """Squared distances of a point to the eight boxes of a group; inf for empty ones.

    The loop's bound is read from the array: a constant 8 is unrolled before LLVM's vectoriser sees it (3 times slower).
    """
    zero = np.float32(0.0)
    for k in range(len(squares)):
        i = np.uint64(base + k)
        dx, ex = boxes[i] - x, x - boxes[i + U[3]]
        dy, ey = boxes[i + U[1]] - y, y - boxes[i + U[4]]
        dz, ez = boxes[i + U[2]] - z, z - boxes[i + U[5]]
        dx = dx if dx > ex else ex
        dy = dy if dy > ey else ey
        dz = dz if dz > ez else ez
        dx = dx if dx > zero else zero
        dy = dy if dy > zero else zero
        dz = dz if dz > zero else zero
        squares[k] = dx * dx + dy * dy + dz * dz


@njit(cache=True)
def _gap_squares(bounds: np.ndarray, boxes: np.ndarray, base: int, squares: np.ndarray) -> None:
    """Squared distances of the box `bounds` (low corner, high corner) to the eight boxes of a group."""
    zero = np.float32(0.0)
    x, y, z, u, v, w = bounds[0], bounds[1], bounds[2], bounds[3], bounds[4], bounds[5]
    for k in range(len(squares)):
        i = np.uint64(base + k)
        dx, ex = boxes[i] - u, x - boxes[i + U[3]]
        dy, ey = boxes[i + U[1]] - v, y - boxes[i + U[4]]
        dz, ez = boxes[i + U[2]] - w, z - boxes[i + U[5]]
        dx = dx if dx > ex else ex
        dy = dy if dy > ey else ey
        dz = dz if dz > ez else ez
        dx = dx if dx > zero else zero
        dy = dy if dy > zero else zero
        dz = dz if dz > zero else zero
        squares[k] = dx * dx + dy * dy + dz * dz


@njit(cache=True, nogil=True)
def packet_bounds(points: np.ndarray, order: np.ndarray, start: int, end: int, bounds: np.ndarray) -> np.float32:
    """Box of the packet's queries, into `bounds` (6,); returns the largest distance of one of them from the first."""
    first, square = order[start], np.float32(0.0)
    for axis in range(3):
        bounds[axis], bounds[axis + 3] = points[first, axis], points[first, axis]
    for i in range(start + 1, end):
        own = np.float32(0.0)
        for axis in range(3):
            value = points[order[i], axis]
            bounds[axis], bounds[axis + 3] = min(bounds[axis], value), max(bounds[axis + 3], value)
            own += (value - points[first, axis]) * (value - points[first, axis])
        square = max(square, own)
    return np.sqrt(square)


@njit(cache=True, nogil=True)
def gather_groups(
    bounds: np.ndarray, radius: np.float32, tree: PackedTree, squares: np.ndarray, nodes: np.ndarray, groups: np.ndarray,
    boxes: np.ndarray,
) -> int:  # fmt: skip
    """Groups of level 1 that lie within `radius` of a box.

    Args:
        bounds: (6,) low and high corner of the box.
        radius: in units of the tree; enlarged here by what float32 may lose.
        tree: with at least three levels.
        squares: (8,) scratch.
        nodes: scratch of the walk.
        groups: (MOST,) int64, receives the groups' numbers.
        boxes: (MOST / 8 * 48,) float32, receives their boxes, eight side by side, the rest empty.

    Returns:
        How many there are; -1 if they are more than MOST.
    """
    reach = (radius + SLACK) * (np.float32(1.0) + SLACK)
    reach = reach * reach
    count, depth = 0, 1
    nodes[0] = (len(tree.starts) - 1) << CHILD_BITS
    while depth > 0:
        depth -= 1
        level, group = nodes[depth] >> CHILD_BITS, nodes[depth] & ((1 << CHILD_BITS) - 1)
        base = (tree.starts[level] + group) * BOX
        _gap_squares(bounds, tree.boxes, base, squares)
        for k in range(WIDTH):
            if not squares[k] <= reach:
                continue
            if level > 2:
                nodes[depth] = ((level - 1) << CHILD_BITS) + group * WIDTH + k
                depth += 1
                continue
            if count == MOST:
                return -1
            groups[count] = group * WIDTH + k
            place = (count // WIDTH) * BOX + count % WIDTH
            for row in range(6):
                boxes[place + row * WIDTH] = tree.boxes[base + row * WIDTH + k]
            count += 1
    for spare in range(count, (count + WIDTH - 1) // WIDTH * WIDTH):
        place = (spare // WIDTH) * BOX + spare % WIDTH
        for row in range(6):
            boxes[place + row * WIDTH] = np.inf if row < 3 else -np.inf
    return count
