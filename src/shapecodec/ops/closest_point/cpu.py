"""Closest points on a CPU: a packed tree of triangles, walked once per query (numba; threads change no result).

The walk runs in float32, eight boxes or eight triangles at a time; the answer's distance is then computed in float64
from the user's own coordinates. Queries are visited in Morton order in fixed runs, and each starts from its
predecessor's face: a tight bound from the first step, and the same work whatever the number of threads. Packets of them
share the upper part of the walk (`packets.py`).
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

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

RUN = 256  # queries that share a chain of bounds; also the unit of work of a thread
TRIANGLE = 15  # floats a triangle: origin, first axis, second axis, normal, and its other corners within the plane
LEAF = TRIANGLE * WIDTH
FAR = 1e18  # in units of the mesh's extent: squares stay finite in float32, and every face is equally good
LEVELS = 24  # 8^24 items: never reached


@njit(cache=True, parallel=True, nogil=True)
def _face_boxes(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = np.zeros((len(faces), 3), np.float32), np.zeros((len(faces), 3), np.float32)
    for f in prange(len(faces)):
        for axis in range(3):
            a, b, c = vertices[faces[f, 0], axis], vertices[faces[f, 1], axis], vertices[faces[f, 2], axis]
            low[f, axis], high[f, axis] = min(a, min(b, c)), max(a, max(b, c))
    return low, high


@njit(cache=True)
def _write_frame(vertices: np.ndarray, faces: np.ndarray, face: int, out: np.ndarray, base: int) -> None:
    """The triangle in a frame of its own (float64 inside): corners (0, 0), (length, 0), (cx, cy) with cy >= 0.

    The origin and first axis lie on the longest edge, so that needles and triangles without area keep an exact frame.
    """
    longest, first = -1.0, 0
    for k in range(3):
        square = 0.0
        for axis in range(3):
            edge = np.float64(vertices[faces[face, (k + 1) % 3], axis]) - np.float64(vertices[faces[face, k], axis])
            square += edge * edge
        if square > longest:
            longest, first = square, k
    a, b, c = faces[face, first], faces[face, (first + 1) % 3], faces[face, (first + 2) % 3]
    ax, ay, az = np.float64(vertices[a, 0]), np.float64(vertices[a, 1]), np.float64(vertices[a, 2])
    ux, uy, uz = vertices[b, 0] - ax, vertices[b, 1] - ay, vertices[b, 2] - az
    wx, wy, wz = vertices[c, 0] - ax, vertices[c, 1] - ay, vertices[c, 2] - az
    length = np.sqrt(longest)
    if length > 0.0:
        ux, uy, uz = ux / length, uy / length, uz / length
    else:
        ux, uy, uz = 1.0, 0.0, 0.0
    along = wx * ux + wy * uy + wz * uz
    vx, vy, vz = wx - along * ux, wy - along * uy, wz - along * uz
    height = np.sqrt(vx * vx + vy * vy + vz * vz)
    if height > 1e-14 * length:
        vx, vy, vz = vx / height, vy / height, vz / height
    else:  # no plane of its own: any direction across the longest edge
        height = 0.0
        if abs(ux) < 0.6:
            vx, vy, vz = 0.0, -uz, uy
        else:
            vx, vy, vz = uz, 0.0, -ux
        norm = np.sqrt(vx * vx + vy * vy + vz * vz)
        vx, vy, vz = vx / norm, vy / norm, vz / norm
    values = (
        ax, ay, az, ux, uy, uz, vx, vy, vz,
        uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx, length, along, height,
    )  # fmt: skip
    for k in range(TRIANGLE):
        out[base + k * WIDTH] = np.float32(values[k])


@njit(cache=True, parallel=True, nogil=True, error_model="numpy")
def _leaf_frames(vertices: np.ndarray, faces: np.ndarray, order: np.ndarray) -> np.ndarray:
    frames = np.zeros(len(order) * TRIANGLE, np.float32)
    for slot in prange(len(order)):
        _write_frame(vertices, faces, order[slot], frames, (slot // WIDTH) * LEAF + slot % WIDTH)
    return frames


@njit(cache=True, error_model="numpy")
def _leaf_squares(
    x: np.float32, y: np.float32, z: np.float32, frames: np.ndarray, base: int, squares: np.ndarray
) -> None:
    """Squared distances of a point to the eight triangles of a leaf, without a branch.

    The loop's bound is read from the array: a constant 8 is unrolled before LLVM's vectoriser sees it (3 times slower).
    """
    zero, one, tiny = np.float32(0.0), np.float32(1.0), np.float32(1e-37)
    for k in range(len(squares)):
        i = np.uint64(base + k)
        px, py, pz = x - frames[i], y - frames[i + U[1]], z - frames[i + U[2]]
        s = px * frames[i + U[3]] + py * frames[i + U[4]] + pz * frames[i + U[5]]
        t = px * frames[i + U[6]] + py * frames[i + U[7]] + pz * frames[i + U[8]]
        h = px * frames[i + U[9]] + py * frames[i + U[10]] + pz * frames[i + U[11]]
        length, cx, cy = frames[i + U[12]], frames[i + U[13]], frames[i + U[14]]
        r = s if s > zero else zero
        r = s - (r if r < length else length)
        best = r * r + t * t
        # edge from the origin to the third corner
        w = (s * cx + t * cy) / (cx * cx + cy * cy + tiny)
        w = w if w > zero else zero
        w = w if w < one else one
        r, q = s - w * cx, t - w * cy
        other = r * r + q * q
        best = best if best < other else other
        # edge from the second corner to the third
        bx, sb = cx - length, s - length
        w = (sb * bx + t * cy) / (bx * bx + cy * cy + tiny)
        w = w if w > zero else zero
        w = w if w < one else one
        r, q = sb - w * bx, t - w * cy
        other = r * r + q * q
        best = best if best < other else other
        left, right = s * cy - t * cx, sb * cy - t * bx
        inside = (t >= zero) & (left > zero) & (right < zero)  # strict: never inside a triangle without area
        best = zero if inside else best
        squares[k] = best + h * h


@njit(cache=True, nogil=True, inline="always")
def push_children(
    x: np.float32, y: np.float32, z: np.float32, level: int, group: int, reach: np.float32, tree: PackedTree,
    squares: np.ndarray, nodes: np.ndarray, bounds: np.ndarray, depth: int,
) -> int:  # fmt: skip
    """Put a group's children within `reach` (squared) on the stack, the nearest on top; returns its new depth."""
    box_squares(x, y, z, tree.boxes, (tree.starts[level] + group) * BOX, squares)
    child, bottom = ((level - 1) << CHILD_BITS) + group * WIDTH, depth
    for k in range(WIDTH):
        square = squares[k]
        if square <= reach:
            place = depth
            while place > bottom and bounds[place - 1] < square:
                nodes[place], bounds[place] = nodes[place - 1], bounds[place - 1]
                place -= 1
            nodes[place], bounds[place] = child + k, square
            depth += 1
    return depth


@njit(cache=True, nogil=True, error_model="numpy")
def _walk(
    x: np.float32, y: np.float32, z: np.float32, seed: int, tree: PackedTree, frames: np.ndarray,
    squares: np.ndarray, nodes: np.ndarray, bounds: np.ndarray,
) -> tuple[int, np.float32]:  # fmt: skip
    """The leaf slot of the closest triangle and its squared distance; `seed` is a slot that is likely near."""
    best, reach, slot = np.float32(np.inf), np.float32(np.inf), 0
    nodes[0], bounds[0] = (len(tree.starts) - 1) << CHILD_BITS, np.float32(0.0)
    nodes[1], bounds[1] = seed // WIDTH, np.float32(0.0)  # the seed's leaf first: it sets the bound
    depth = 2
    while depth > 0:
        depth -= 1
        if bounds[depth] > reach:
            continue
        level, group = nodes[depth] >> CHILD_BITS, nodes[depth] & ((1 << CHILD_BITS) - 1)
        if level == 0:
            _leaf_squares(x, y, z, frames, group * LEAF, squares)
            for k in range(WIDTH):
                if squares[k] < best or (squares[k] == best and group * WIDTH + k < slot):
                    best, slot = squares[k], group * WIDTH + k
            reach = reach_of(best)
        else:
            depth = push_children(x, y, z, level, group, reach, tree, squares, nodes, bounds, depth)
    return slot, best


@njit(cache=True, nogil=True, error_model="numpy")
def _look(
    x: np.float32, y: np.float32, z: np.float32, seed: int, tree: PackedTree, frames: np.ndarray, count: int,
    groups: np.ndarray, boxes: np.ndarray, squares: np.ndarray, nearer: np.ndarray, leaves: np.ndarray,
) -> int:  # fmt: skip
    """The leaf slot of the closest triangle among `count` groups of leaves; `seed` is a slot that is likely near."""
    best, slot, own = np.float32(np.inf), 0, seed // WIDTH
    _leaf_squares(x, y, z, frames, own * LEAF, leaves)
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
                _leaf_squares(x, y, z, frames, leaf * LEAF, leaves)
                for j in range(WIDTH):
                    if leaves[j] < best or (leaves[j] == best and leaf * WIDTH + j < slot):
                        best, slot = leaves[j], leaf * WIDTH + j
                reach = reach_of(best)
    return slot


@njit(cache=True, parallel=True, nogil=True)
def _query(points: np.ndarray, order: np.ndarray, tree: PackedTree, frames: np.ndarray) -> np.ndarray:
    """(Q,) int64 leaf slot of the closest triangle of each point (Q, 3)."""
    slots = np.zeros(len(points), np.int64)
    for run in prange((len(points) + RUN - 1) // RUN):
        squares, nearer, leaves = np.zeros(WIDTH, np.float32), np.zeros(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
        nodes, bounds = np.zeros(LEVELS * WIDTH, np.int64), np.zeros(LEVELS * WIDTH, np.float32)
        groups, boxes, corners = np.zeros(MOST, np.int64), np.zeros(MOST * 6, np.float32), np.zeros(6, np.float32)
        seed, last = 0, min(len(points), (run + 1) * RUN)
        for start in range(run * RUN, last, PACKET):
            end, query = min(last, start + PACKET), order[start]
            x, y, z = points[query, 0], points[query, 1], points[query, 2]
            seed, square = _walk(x, y, z, seed, tree, frames, squares, nodes, bounds)
            slots[query] = seed
            count = -1
            if len(tree.starts) > 2:
                radius = np.sqrt(square) + packet_bounds(points, order, start, end, corners)
                count = gather_groups(corners, radius, tree, squares, nodes, groups, boxes)
            for i in range(start + 1, end):
                query = order[i]
                x, y, z = points[query, 0], points[query, 1], points[query, 2]
                if count < 0:
                    seed, _ = _walk(x, y, z, seed, tree, frames, squares, nodes, bounds)
                else:
                    seed = _look(x, y, z, seed, tree, frames, count, groups, boxes, squares, nearer, leaves)
                slots[query] = seed
    return slots


@njit(cache=True)
def _dot(a: tuple, b: tuple) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@njit(cache=True)
def _minus(a: tuple, b: tuple) -> tuple:
    return (a[0] - b[0], a[1] - b[1], a[2] - b[2])


@njit(cache=True)
def _on_segment(p: tuple, a: tuple, b: tuple) -> tuple:
    edge = _minus(b, a)
    square = _dot(edge, edge)
    t = _dot(_minus(p, a), edge) / square if square > 0.0 else 0.0
    t = min(max(t, 0.0), 1.0)
    return (a[0] + t * edge[0], a[1] + t * edge[1], a[2] + t * edge[2])


@njit(cache=True)
def _on_triangle(p: tuple, a: tuple, b: tuple, c: tuple) -> tuple:
    """The closest point of a triangle in float64; candidates as in the reference."""
    ab, ac, ap = _minus(b, a), _minus(c, a), _minus(p, a)
    n = (ab[1] * ac[2] - ab[2] * ac[1], ab[2] * ac[0] - ab[0] * ac[2], ab[0] * ac[1] - ab[1] * ac[0])
    across = (ap[1] * n[2] - ap[2] * n[1], ap[2] * n[0] - ap[0] * n[2], ap[0] * n[1] - ap[1] * n[0])
    area, v, w = _dot(n, n), -_dot(across, ac), _dot(across, ab)
    best, least = a, _dot(ap, ap)
    if area > 0.0 and v >= 0.0 and w >= 0.0 and v + w <= area:
        v, w = v / area, w / area
        best = (a[0] + v * ab[0] + w * ac[0], a[1] + v * ab[1] + w * ac[1], a[2] + v * ab[2] + w * ac[2])
        d = _minus(p, best)
        least = _dot(d, d)
    for edge in range(3):
        q = _on_segment(p, a, b) if edge == 0 else (_on_segment(p, b, c) if edge == 1 else _on_segment(p, c, a))
        d = _minus(p, q)
        if _dot(d, d) < least:
            best, least = q, _dot(d, d)
    return best


@njit(cache=True, parallel=True, nogil=True)
def _measure(
    points: np.ndarray, vertices: np.ndarray, faces: np.ndarray, slots: np.ndarray, order: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distance (Q,), face (Q,) and point (Q, 3) from the winning leaf slots, in float64 until the end."""
    distance, closest = np.zeros(len(points), np.float32), np.zeros((len(points), 3), np.float32)
    face = np.zeros(len(points), np.int64)
    for i in prange(len(points)):
        f = order[slots[i]]
        p = (np.float64(points[i, 0]), np.float64(points[i, 1]), np.float64(points[i, 2]))
        i0, i1, i2 = faces[f, 0], faces[f, 1], faces[f, 2]
        a = (np.float64(vertices[i0, 0]), np.float64(vertices[i0, 1]), np.float64(vertices[i0, 2]))
        b = (np.float64(vertices[i1, 0]), np.float64(vertices[i1, 1]), np.float64(vertices[i1, 2]))
        c = (np.float64(vertices[i2, 0]), np.float64(vertices[i2, 1]), np.float64(vertices[i2, 2]))
        q = _on_triangle(p, a, b, c)
        d = _minus(p, q)
        distance[i], face[i] = np.sqrt(_dot(d, d)), f
        for axis in range(3):
            closest[i, axis] = q[axis]
    return distance, face, closest


def unit_shift(coordinates: np.ndarray) -> int:
    """The power of two that brings the largest coordinate into [0.5, 1); 0 where all are 0."""
    largest = float(np.abs(coordinates).max())
    return -int(np.frexp(largest)[1]) if largest > 0.0 else 0


def closest_point(
    points: np.ndarray, vertices: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """See the public function; float32 and int64 arrays, at least one point and one face, all finite.

    The walk sees coordinates times a power of two (exact), so that squares neither overflow nor vanish.
    """
    shift = unit_shift(vertices)
    scaled = np.ldexp(vertices, shift)
    with np.errstate(over="ignore"):  # a query beyond float32 in these units is moved to FAR like any other far one
        moved = np.clip(np.ldexp(points, shift), -FAR, FAR)
    tree = build_tree(*_face_boxes(scaled, faces))
    frames = _leaf_frames(scaled, faces, tree.order)
    slots = _query(moved, spatial_order(moved, moved, by_size=False), tree, frames)
    return _measure(points, vertices, faces, slots, tree.order)
