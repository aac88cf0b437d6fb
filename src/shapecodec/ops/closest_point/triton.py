"""Closest points on CUDA: the packed tree of the CPU path built by torch, one program a packet of 32 sorted queries.

A packet walks the tree once for all of its queries. Instead of a stack it keeps, in one int64, a byte a level: the
children that some query of the packet must still see. Each query first tests the leaf at its own place in Morton order,
so that the walk starts with bounds of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from shapecodec.grid import MORTON_BITS, morton_encode
from shapecodec.ops.closest_point.reference import on_triangles

WIDTH = 8  # triangles in a leaf and children in a group
PACKET = 32  # queries a program: one warp, whose reductions need no shared memory
FAR = 1e18  # in units of the mesh's extent: squares stay finite in float32, and every face is equally good
_CHUNK = 1 << 22  # queries or faces whose float64 intermediates are alive at a time


class Tree(NamedTuple):
    """The packed hierarchy on the device.

    Args:
        order: (n0 * 8,) int64 face of each leaf slot.
        keys: (n0 * 8,) int64 ascending sort keys of the slots.
        frames: (n0, 15, 8) float32 triangles of each leaf.
        boxes: (groups, 6, 8) float32 boxes of each group's children; (inf, -inf) where there is none.
        starts: (levels,) int32 first group of each level; level 0 (the leaves) has no boxes of its own.
        corner: (3,) float64 and cells: from coordinates to Morton cells.
    """

    order: Tensor
    keys: Tensor
    frames: Tensor
    boxes: Tensor
    starts: Tensor
    corner: Tensor
    cells: float


def _triangle_frames(corners: Tensor) -> Tensor:
    """(F, 15) float32 frames of triangles (F, 3, 3) float64; see the CPU path's `_write_frame`."""
    rows = torch.arange(len(corners), device=corners.device)
    longest = (corners.roll(-1, 1) - corners).square().sum(-1).argmax(1)
    a, b, c = (corners[rows, (longest + k) % 3] for k in range(3))
    length = (b - a).norm(dim=1, keepdim=True)
    x_axis = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64, device=corners.device)
    u = torch.where(length > 0, (b - a) / length.where(length > 0, 1.0), x_axis)
    along = ((c - a) * u).sum(1, keepdim=True)
    across = c - a - along * u
    height = across.norm(dim=1, keepdim=True)
    flat = height <= 1e-14 * length
    any_x = torch.stack([torch.zeros_like(u[:, 0]), -u[:, 2], u[:, 1]], 1)
    any_y = torch.stack([u[:, 2], torch.zeros_like(u[:, 0]), -u[:, 0]], 1)
    other = torch.nn.functional.normalize(torch.where(u[:, :1].abs() < 0.6, any_x, any_y), dim=1)
    v = torch.where(flat, other, across / height.where(~flat, 1.0))
    height = height.where(~flat, 0.0)
    return torch.cat([a, u, v, torch.linalg.cross(u, v), length, along, height], 1).float()


def _cells(points: Tensor, corner: Tensor, cells: float) -> Tensor:
    top = float((1 << MORTON_BITS) - 1)
    return morton_encode(((points.double() - corner) * cells).clamp(0.0, top).long())


def build_tree(vertices: Tensor, faces: Tensor) -> Tree:
    """The hierarchy over triangles; all work is sorts, gathers and reductions of torch."""
    corners = vertices[faces]
    low, high = corners.amin(1), corners.amax(1)
    corner, far = low.amin(0).double(), high.amax(0).double()
    cells = (1 << MORTON_BITS) / max(float((far - corner).max()), 1e-300)
    extent = (high - low).amax(1)
    median = extent[:: max(len(extent) // 4096, 1)].median()
    size = sum((extent > factor * median).long() for factor in (8.0, 64.0, 512.0))
    keys, order = ((size << (3 * MORTON_BITS)) | _cells((low.double() + high.double()) / 2, corner, cells)).sort(
        stable=True
    )
    leaves = -(-len(order) // WIDTH)
    spare = leaves * WIDTH - len(order)
    order, keys = (torch.cat([part, part[-1:].expand(spare)]) for part in (order, keys))
    frames = torch.cat([_triangle_frames(vertices[faces[part]].double()) for part in order.split(_CHUNK)])
    frames = frames.view(leaves, WIDTH, 15).transpose(1, 2).contiguous()
    low, high = (box[order].view(leaves, WIDTH, 3) for box in (low, high))
    low, high = low.amin(1), high.amax(1)
    boxes, starts = [], [0, 0]
    while len(low) > 1:
        groups = -(-len(low) // WIDTH)
        spare = groups * WIDTH - len(low)
        low = torch.cat([low, low.new_full((spare, 3), float("inf"))]).view(groups, WIDTH, 3)
        high = torch.cat([high, high.new_full((spare, 3), -float("inf"))]).view(groups, WIDTH, 3)
        boxes.append(torch.cat([low, high], 2).transpose(1, 2))
        starts.append(starts[-1] + groups)
        low, high = low.amin(1), high.amax(1)
    packed = torch.cat(boxes).contiguous() if boxes else low.new_zeros(1, 6, WIDTH)
    first = torch.tensor(starts[: len(boxes) + 1], dtype=torch.int32, device=vertices.device)
    return Tree(order, keys, frames, packed, first, corner, cells)


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
    best = tl.where(live, tl.min(squares, 1), -1.0)  # a lane without a query needs nothing
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
            wanted = (dx * dx + dy * dy + dz * dz < best[:, None]).to(tl.int32)
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
                slot = tl.where(nearest < best, below * 8 + tl.argmin(squares, 1), slot)
                best = tl.minimum(nearest, best)
            else:
                group = below
                level = level - 1
                fresh = root * 0 + 1
    tl.store(slots + rows, slot, mask=live)


def closest_faces(points: Tensor, vertices: Tensor, faces: Tensor) -> Tensor:
    """(Q,) int64 face closest to each point, chosen in float32 in coordinates times a power of two (exact)."""
    largest = float(vertices.abs().max())
    scale = 2.0 ** -torch.tensor(largest, dtype=torch.float64).frexp().exponent.item() if largest > 0.0 else 1.0
    scaled = (vertices.double() * scale).float()
    moved = (points.double() * scale).clamp(-FAR, FAR).float()
    tree = build_tree(scaled, faces)
    corner = moved.amin(0).double()
    cells = (1 << MORTON_BITS) / max(float((moved.amax(0).double() - corner).max()), 1e-300)
    by_place = _cells(moved, corner, cells).argsort()
    moved = moved[by_place].contiguous()
    seeds = torch.searchsorted(tree.keys, _cells(moved, tree.corner, tree.cells)).clamp_(max=len(tree.keys) - 1)
    slots = torch.zeros(len(moved), dtype=torch.int32, device=points.device)
    _packet_walk[(triton.cdiv(len(moved), PACKET),)](
        moved,
        (seeds // WIDTH).int(),
        tree.frames,
        tree.boxes,
        tree.starts,
        slots,
        len(moved),
        len(tree.starts) - 1,
        BLOCK=PACKET,
        num_warps=1,
    )
    found = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    return found.scatter_(0, by_place, tree.order[slots.long()])


def closest_point(points: Tensor, vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """See the public function; at least one point and one face. Distances in float64 from the user's coordinates."""
    face = closest_faces(points, vertices, faces)
    distances, closest = [], []
    for part, chosen in zip(points.split(_CHUNK), face.split(_CHUNK), strict=True):
        foot = on_triangles(part.double(), *vertices[faces[chosen]].double().unbind(1))
        distances.append((foot - part.double()).norm(dim=1).float())
        closest.append(foot.float())
    return torch.cat(distances), face, torch.cat(closest)
