"""Closest points on CUDA: the CPU path's packed tree, one program a packet of 32 sorted queries.

A packet walks the tree once for all of its queries. Instead of a stack it keeps, in one int64, a byte a level: the
children that some query of the packet must still see. Each query first tests the leaf at its own place in Morton order,
so that the walk starts with bounds of its own.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from shapecodec.ops.closest_point.triton_tree import WIDTH, build_tree, morton_cells, point_codes

PACKET = 32  # queries a program: one warp, whose reductions need no shared memory
BLUR = 2e-7  # lengths that float32 may lose in a distance: see the CPU path's `reach_of`
FAR = 1e18  # in units of the mesh's extent: squares stay finite in float32, and every face is equally good
_ITEMS = 128  # queries a program where each is measured by itself


@triton.jit
def _leaf_squares(x: tl.tensor, y: tl.tensor, z: tl.tensor, base: tl.tensor) -> tl.tensor:
    """Squared distances of points (B, 1) to eight triangles whose frames start at the pointers `base` (1 or B, 8)."""
    px = x - tl.load(base)
    py = y - tl.load(base + 8)
    pz = z - tl.load(base + 16)
    s = px * tl.load(base + 24) + py * tl.load(base + 32) + pz * tl.load(base + 40)
    t = px * tl.load(base + 48) + py * tl.load(base + 56) + pz * tl.load(base + 64)
    h = px * tl.load(base + 72) + py * tl.load(base + 80) + pz * tl.load(base + 88)
    length = tl.load(base + 96)
    cx = tl.load(base + 104)
    cy = tl.load(base + 112)
    r = s - tl.minimum(tl.maximum(s, 0.0), length)
    best = r * r + t * t
    w = tl.minimum(tl.maximum((s * cx + t * cy) / (cx * cx + cy * cy + 1e-37), 0.0), 1.0)
    r = s - w * cx
    q = t - w * cy
    best = tl.minimum(best, r * r + q * q)
    bx = cx - length
    sb = s - length
    w = tl.minimum(tl.maximum((sb * bx + t * cy) / (bx * bx + cy * cy + 1e-37), 0.0), 1.0)
    r = sb - w * bx
    q = t - w * cy
    best = tl.minimum(best, r * r + q * q)
    inside = (t >= 0.0) & (s * cy - t * cx > 0.0) & (sb * cy - t * bx < 0.0)
    return tl.where(inside, 0.0, best) + h * h


@triton.jit(do_not_specialize=["count", "root"])
def _packet_walk(
    points: tl.tensor,
    seeds: tl.tensor,
    frames: tl.tensor,
    boxes: tl.tensor,
    starts: tl.tensor,
    slots: tl.tensor,
    count: tl.tensor,
    root: tl.tensor,
    BLUR: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """Leaf slots (Q,) int32 of the closest triangles of sorted points (Q, 3); `root` is the level of the one top group."""
    rows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    live = rows < count
    x = tl.load(points + rows * 3, mask=live, other=0.0)[:, None]
    y = tl.load(points + rows * 3 + 1, mask=live, other=0.0)[:, None]
    z = tl.load(points + rows * 3 + 2, mask=live, other=0.0)[:, None]
    seed = tl.load(seeds + rows, mask=live, other=0)
    k = tl.arange(0, 8)
    squares = _leaf_squares(x, y, z, frames + seed.to(tl.int64)[:, None] * 120 + k[None, :])
    best = tl.min(squares, 1)
    slot = seed * 8 + tl.argmin(squares, 1)
    level = tl.where(root > 0, root, 1)  # a single leaf has been seen: level 1 is above its root
    group = root * 0
    fresh = root * 0 + 1
    masks = tl.zeros((), tl.int64)
    while level <= root:
        shift = (level - 1).to(tl.int64) * 8
        if fresh == 1:
            base = boxes + (tl.load(starts + level) + group).to(tl.int64) * 48 + k[None, :]
            dx = tl.maximum(tl.maximum(tl.load(base) - x, x - tl.load(base + 24)), 0.0)
            dy = tl.maximum(tl.maximum(tl.load(base + 8) - y, y - tl.load(base + 32)), 0.0)
            dz = tl.maximum(tl.maximum(tl.load(base + 16) - z, z - tl.load(base + 40)), 0.0)
            reach = tl.sqrt(best) + BLUR
            wanted = ((dx * dx + dy * dy + dz * dz <= (reach * reach)[:, None]) & live[:, None]).to(tl.int32)
            bits = tl.sum(tl.max(wanted, 0) << k, 0).to(tl.int64)
            masks = (masks & ~(tl.full((), 255, tl.int64) << shift)) | (bits << shift)
            fresh = root * 0
        pending = ((masks >> shift) & 255).to(tl.int32)
        if pending == 0:
            group = group // 8
            level = level + 1
        else:
            child = tl.min(tl.where(((pending >> k) & 1) == 1, k, 8), 0)
            masks = masks & ~(tl.full((), 1, tl.int64) << (shift + child.to(tl.int64)))
            below = group * 8 + child
            if level == 1:
                squares = _leaf_squares(x, y, z, frames + below.to(tl.int64) * 120 + k[None, :])
                nearest = tl.min(squares, 1)
                found = below * 8 + tl.argmin(squares, 1)
                slot = tl.where((nearest < best) | ((nearest == best) & (found < slot)), found, slot)
                best = tl.minimum(nearest, best)
            else:
                group = below
                level = level - 1
                fresh = root * 0 + 1
    tl.store(slots + rows, slot, mask=live)


@triton.jit
def _load_point(base: tl.tensor, rows: tl.tensor, live: tl.tensor) -> tuple:
    x = tl.load(base + rows * 3, mask=live, other=0.0).to(tl.float64)
    y = tl.load(base + rows * 3 + 1, mask=live, other=0.0).to(tl.float64)
    z = tl.load(base + rows * 3 + 2, mask=live, other=0.0).to(tl.float64)
    return x, y, z


@triton.jit
def _dot(ax: tl.tensor, ay: tl.tensor, az: tl.tensor, bx: tl.tensor, by: tl.tensor, bz: tl.tensor) -> tl.tensor:
    return ax * bx + ay * by + az * bz


@triton.jit
def _nearer_on_segment(
    px: tl.tensor, py: tl.tensor, pz: tl.tensor, ax: tl.tensor, ay: tl.tensor, az: tl.tensor,
    bx: tl.tensor, by: tl.tensor, bz: tl.tensor, qx: tl.tensor, qy: tl.tensor, qz: tl.tensor, least: tl.tensor,
) -> tuple:  # fmt: skip
    """Of q, whose squared distance to p is `least`, and p's closest point of the segment ab, the nearer one."""
    ex, ey, ez = bx - ax, by - ay, bz - az
    square = _dot(ex, ey, ez, ex, ey, ez)
    t = _dot(px - ax, py - ay, pz - az, ex, ey, ez) / tl.where(square > 0.0, square, 1.0)
    t = tl.minimum(tl.maximum(t, 0.0), 1.0)
    x, y, z = ax + t * ex, ay + t * ey, az + t * ez
    other = _dot(px - x, py - y, pz - z, px - x, py - y, pz - z)
    better = other < least
    least = tl.where(better, other, least)
    return tl.where(better, x, qx), tl.where(better, y, qy), tl.where(better, z, qz), least


@triton.jit(do_not_specialize=["count"])
def _measure(
    points: tl.tensor, vertices: tl.tensor, faces: tl.tensor, rows: tl.tensor, slots: tl.tensor, order: tl.tensor,
    distance: tl.tensor, face: tl.tensor, closest: tl.tensor, count: tl.tensor, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Distance, face and closest point of each query in float64 from the user's coordinates; candidates as in the reference.

    Programs go through the queries in sorted order, in which neighbours share their triangles, and write to `rows`.
    """
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = at < count
    query = tl.load(rows + at, mask=live, other=0)
    chosen = tl.load(order + tl.load(slots + at, mask=live, other=0).to(tl.int64), mask=live, other=0)
    px, py, pz = _load_point(points, query, live)
    ax, ay, az = _load_point(vertices, tl.load(faces + chosen * 3, mask=live, other=0), live)
    bx, by, bz = _load_point(vertices, tl.load(faces + chosen * 3 + 1, mask=live, other=0), live)
    cx, cy, cz = _load_point(vertices, tl.load(faces + chosen * 3 + 2, mask=live, other=0), live)
    ux, uy, uz = bx - ax, by - ay, bz - az
    vx, vy, vz = cx - ax, cy - ay, cz - az
    wx, wy, wz = px - ax, py - ay, pz - az
    nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
    gx, gy, gz = wy * nz - wz * ny, wz * nx - wx * nz, wx * ny - wy * nx
    area = _dot(nx, ny, nz, nx, ny, nz)
    s, t = -_dot(gx, gy, gz, vx, vy, vz), _dot(gx, gy, gz, ux, uy, uz)
    inside = (area > 0.0) & (s >= 0.0) & (t >= 0.0) & (s + t <= area)
    area = tl.where(area > 0.0, area, 1.0)
    s, t = tl.where(inside, s / area, 0.0), tl.where(inside, t / area, 0.0)
    qx, qy, qz = ax + s * ux + t * vx, ay + s * uy + t * vy, az + s * uz + t * vz
    least = _dot(px - qx, py - qy, pz - qz, px - qx, py - qy, pz - qz)
    qx, qy, qz, least = _nearer_on_segment(px, py, pz, ax, ay, az, bx, by, bz, qx, qy, qz, least)
    qx, qy, qz, least = _nearer_on_segment(px, py, pz, bx, by, bz, cx, cy, cz, qx, qy, qz, least)
    qx, qy, qz, least = _nearer_on_segment(px, py, pz, cx, cy, cz, ax, ay, az, qx, qy, qz, least)
    tl.store(distance + query, tl.sqrt(least).to(tl.float32), mask=live)
    tl.store(face + query, chosen, mask=live)
    tl.store(closest + query * 3, qx.to(tl.float32), mask=live)
    tl.store(closest + query * 3 + 1, qy.to(tl.float32), mask=live)
    tl.store(closest + query * 3 + 2, qz.to(tl.float32), mask=live)


def find_slots(points: Tensor, vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries in Morton order, and their closest faces, chosen in float32 in coordinates times a power of two (exact).

    Returns:
        rows (Q,) int64 of the queries in the order of the walk; slots (Q,) int32 leaf slot of each of them; order (n0 * 8,)
        int64 face of each slot.
    """
    largest = float(vertices.abs().max())
    scale = 2.0 ** -torch.tensor(largest, dtype=torch.float64).frexp().exponent.item() if largest > 0.0 else 1.0
    moved = (points.double() * scale).clamp_(-FAR, FAR).float()
    tree = build_tree((vertices.double() * scale).float(), faces)
    rows = point_codes(moved, morton_cells(moved, moved)).argsort()
    moved = moved[rows]
    seeds = torch.searchsorted(tree.keys, point_codes(moved, tree.cells), out_int32=True).clamp_(max=len(tree.keys) - 1)
    slots = torch.empty(len(moved), dtype=torch.int32, device=points.device)
    _packet_walk[(triton.cdiv(len(moved), PACKET),)](
        moved,
        seeds // WIDTH,
        tree.frames,
        tree.boxes,
        tree.starts,
        slots,
        len(moved),
        len(tree.starts) - 1,
        BLUR=BLUR,
        BLOCK=PACKET,
        num_warps=1,
    )
    return rows, slots, tree.order


def closest_faces(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """(Q,) int64 face closest to each point (Q, 3); all contiguous, at least one point and one face."""
    rows, slots, order = find_slots(points, vertices, faces)
    return torch.empty_like(rows).scatter_(0, rows, order[slots])


def closest_point(points: Tensor, vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See the public function; at least one point and one face, all contiguous."""
    rows, slots, order = find_slots(points, vertices, faces)
    distance, face, closest = points.new_empty(len(points)), torch.empty_like(rows), torch.empty_like(points)
    _measure[(triton.cdiv(len(points), _ITEMS),)](
        points, vertices, faces, rows, slots, order, distance, face, closest, len(points), BLOCK=_ITEMS
    )
    return distance, face, closest
