"""The packed box tree on CUDA: a launch for the boxes, one for the sort keys, one sort, and one launch a level.

Written with torch alone, the same tree took some 150 launches: with 100k faces more time than the queries that it serves.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from shapecodec.grid import MORTON_BITS

WIDTH = 8  # triangles in a leaf and children in a group
FRAME = 15  # floats a triangle: origin, first axis, second axis, normal, and its other corners within the plane
_ITEMS = 256  # items a program


class Tree(NamedTuple):
    """The packed hierarchy on the device.

    Args:
        order: (n0 * 8,) int64 face of each leaf slot; the last face fills the slots beyond the last one.
        keys: (n0 * 8,) int64 ascending sort keys of the slots.
        frames: (n0, 15, 8) float32 triangles of each leaf.
        boxes: (groups, 6, 8) float32 boxes of each group's children; (inf, -inf) where there is none.
        starts: (levels,) int32 first group of each level; level 0 (the leaves) has no boxes of its own.
        cells: (4,) float64: corner, and cells a length, of the Morton code.
    """

    order: Tensor
    keys: Tensor
    frames: Tensor
    boxes: Tensor
    starts: Tensor
    cells: Tensor


@triton.jit
def _spread(x: tl.tensor) -> tl.tensor:
    """Two zero bits before each of the 20 low bits."""
    x = (x | (x << 32)) & 0x1F00000000FFFF
    x = (x | (x << 16)) & 0x1F0000FF0000FF
    x = (x | (x << 8)) & 0x100F00F00F00F00F
    x = (x | (x << 4)) & 0x10C30C30C30C30C3
    return (x | (x << 2)) & 0x1249249249249249


@triton.jit
def _cell(x: tl.tensor, cells: tl.tensor, axis: tl.constexpr, top: tl.constexpr) -> tl.tensor:
    """The spread cell number (int64) of coordinates (float64) along an axis."""
    place = (x - tl.load(cells + axis)) * tl.load(cells + 3)
    return _spread(tl.minimum(tl.maximum(place, 0.0), top).to(tl.int64))


@triton.jit(do_not_specialize=["count"])
def _point_codes(
    points: tl.tensor, cells: tl.tensor, codes: tl.tensor, count: tl.tensor, TOP: tl.constexpr, BLOCK: tl.constexpr
) -> None:
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = rows < count
    x = tl.load(points + rows * 3, mask=live, other=0.0).to(tl.float64)
    y = tl.load(points + rows * 3 + 1, mask=live, other=0.0).to(tl.float64)
    z = tl.load(points + rows * 3 + 2, mask=live, other=0.0).to(tl.float64)
    code = (_cell(x, cells, 0, TOP) << 2) | (_cell(y, cells, 1, TOP) << 1) | _cell(z, cells, 2, TOP)
    tl.store(codes + rows, code, mask=live)


@triton.jit(do_not_specialize=["count"])
def _face_boxes(
    vertices: tl.tensor, faces: tl.tensor, low: tl.tensor, high: tl.tensor, count: tl.tensor, BLOCK: tl.constexpr
) -> None:
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = rows < count
    a = tl.load(faces + rows * 3, mask=live, other=0) * 3
    b = tl.load(faces + rows * 3 + 1, mask=live, other=0) * 3
    c = tl.load(faces + rows * 3 + 2, mask=live, other=0) * 3
    for axis in tl.static_range(3):
        p = tl.load(vertices + a + axis, mask=live, other=0.0)
        q = tl.load(vertices + b + axis, mask=live, other=0.0)
        r = tl.load(vertices + c + axis, mask=live, other=0.0)
        tl.store(low + rows * 3 + axis, tl.minimum(p, tl.minimum(q, r)), mask=live)
        tl.store(high + rows * 3 + axis, tl.maximum(p, tl.maximum(q, r)), mask=live)


@triton.jit(do_not_specialize=["count"])
def _face_keys(
    low: tl.tensor, high: tl.tensor, cells: tl.tensor, median: tl.tensor, keys: tl.tensor, count: tl.tensor,
    TOP: tl.constexpr, BITS: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Size class, then the Morton code of the box's centre: huge triangles get branches of their own."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = rows < count
    code = tl.zeros((BLOCK,), tl.int64)
    extent = tl.zeros((BLOCK,), tl.float32)
    for axis in tl.static_range(3):
        least = tl.load(low + rows * 3 + axis, mask=live, other=0.0)
        most = tl.load(high + rows * 3 + axis, mask=live, other=0.0)
        extent = tl.maximum(extent, most - least)
        code |= _cell((least.to(tl.float64) + most.to(tl.float64)) * 0.5, cells, axis, TOP) << (2 - axis)
    usual = tl.load(median)
    size = (extent > 8.0 * usual).to(tl.int64) + (extent > 64.0 * usual).to(tl.int64)
    size += (extent > 512.0 * usual).to(tl.int64)
    tl.store(keys + rows, (size << BITS) | code, mask=live)


@triton.jit
def _corner(vertices: tl.tensor, row: tl.tensor, live: tl.tensor) -> tuple:
    x = tl.load(vertices + row * 3, mask=live, other=0.0).to(tl.float64)
    y = tl.load(vertices + row * 3 + 1, mask=live, other=0.0).to(tl.float64)
    z = tl.load(vertices + row * 3 + 2, mask=live, other=0.0).to(tl.float64)
    return x, y, z


@triton.jit
def _square(x: tl.tensor, y: tl.tensor, z: tl.tensor) -> tl.tensor:
    return x * x + y * y + z * z


@triton.jit(do_not_specialize=["count"])
def _leaf_frames(
    vertices: tl.tensor, faces: tl.tensor, order: tl.tensor, frames: tl.tensor, count: tl.tensor, BLOCK: tl.constexpr
) -> None:
    """Triangles in frames of their own, float64 inside; see the CPU path's `_write_frame`."""
    slots = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = slots < count
    face = tl.load(order + slots, mask=live, other=0) * 3
    i = tl.load(faces + face, mask=live, other=0)
    j = tl.load(faces + face + 1, mask=live, other=0)
    k = tl.load(faces + face + 2, mask=live, other=0)
    px, py, pz = _corner(vertices, i, live)
    qx, qy, qz = _corner(vertices, j, live)
    rx, ry, rz = _corner(vertices, k, live)
    one = _square(qx - px, qy - py, qz - pz)
    two = _square(rx - qx, ry - qy, rz - qz)
    three = _square(px - rx, py - ry, pz - rz)
    first = (one >= two) & (one >= three)
    second = (two >= three) & ~first
    ax, ay, az = _corner(vertices, tl.where(first, i, tl.where(second, j, k)), live)
    bx, by, bz = _corner(vertices, tl.where(first, j, tl.where(second, k, i)), live)
    cx, cy, cz = _corner(vertices, tl.where(first, k, tl.where(second, i, j)), live)
    length = tl.sqrt(tl.maximum(one, tl.maximum(two, three)))
    some = length > 0.0
    safe = tl.where(some, length, 1.0)
    ux = tl.where(some, (bx - ax) / safe, 1.0)
    uy = tl.where(some, (by - ay) / safe, 0.0)
    uz = tl.where(some, (bz - az) / safe, 0.0)
    cx, cy, cz = cx - ax, cy - ay, cz - az
    along = cx * ux + cy * uy + cz * uz
    vx, vy, vz = cx - along * ux, cy - along * uy, cz - along * uz
    height = tl.sqrt(_square(vx, vy, vz))
    flat = height <= 1e-14 * length  # no plane of its own: any direction across the longest edge
    upright = tl.abs(ux) < 0.6
    vx = tl.where(flat, tl.where(upright, 0.0, uz), vx)
    vy = tl.where(flat, tl.where(upright, -uz, 0.0), vy)
    vz = tl.where(flat, tl.where(upright, uy, -ux), vz)
    norm = tl.sqrt(_square(vx, vy, vz))
    vx, vy, vz = vx / norm, vy / norm, vz / norm
    height = tl.where(flat, 0.0, height)
    out = frames + (slots // 8) * 120 + slots % 8
    tl.store(out, ax.to(tl.float32), mask=live)
    tl.store(out + 8, ay.to(tl.float32), mask=live)
    tl.store(out + 16, az.to(tl.float32), mask=live)
    tl.store(out + 24, ux.to(tl.float32), mask=live)
    tl.store(out + 32, uy.to(tl.float32), mask=live)
    tl.store(out + 40, uz.to(tl.float32), mask=live)
    tl.store(out + 48, vx.to(tl.float32), mask=live)
    tl.store(out + 56, vy.to(tl.float32), mask=live)
    tl.store(out + 64, vz.to(tl.float32), mask=live)
    tl.store(out + 72, (uy * vz - uz * vy).to(tl.float32), mask=live)
    tl.store(out + 80, (uz * vx - ux * vz).to(tl.float32), mask=live)
    tl.store(out + 88, (ux * vy - uy * vx).to(tl.float32), mask=live)
    tl.store(out + 96, length.to(tl.float32), mask=live)
    tl.store(out + 104, along.to(tl.float32), mask=live)
    tl.store(out + 112, height.to(tl.float32), mask=live)


@triton.jit(do_not_specialize=["children", "groups"])
def _group_boxes(
    low: tl.tensor, high: tl.tensor, order: tl.tensor, boxes: tl.tensor, group_low: tl.tensor, group_high: tl.tensor,
    children: tl.tensor, groups: tl.tensor, ORDERED: tl.constexpr, BLOCK: tl.constexpr,
) -> None:  # fmt: skip
    """Boxes of groups of eight children; the children's own are written to `boxes` unless they are triangles (`ORDERED`)."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    slot = tl.arange(0, 8)
    child = rows[:, None] * 8 + slot[None, :]
    there, live = child < children, rows < groups
    item = tl.load(order + child, mask=there, other=0) if ORDERED else child
    for axis in tl.static_range(3):
        least = tl.load(low + item * 3 + axis, mask=there, other=float("inf"))
        most = tl.load(high + item * 3 + axis, mask=there, other=-float("inf"))
        if not ORDERED:
            place = boxes + rows[:, None] * 48 + axis * 8 + slot[None, :]
            tl.store(place, least, mask=live[:, None])
            tl.store(place + 24, most, mask=live[:, None])
        tl.store(group_low + rows * 3 + axis, tl.min(least, 1), mask=live)
        tl.store(group_high + rows * 3 + axis, tl.max(most, 1), mask=live)


def morton_cells(low: Tensor, high: Tensor) -> Tensor:
    """(4,) float64 corner and cells a length of the box around points (n, 3); nothing waits for the device."""
    corner = low.amin(0).double()
    side = (high.amax(0).double() - corner).amax().clamp_min(1e-300)
    return torch.cat([corner, (1 << MORTON_BITS) / side[None]])


def point_codes(points: Tensor, cells: Tensor) -> Tensor:
    """(Q,) int64 Morton codes of contiguous points (Q, 3) float32."""
    codes = torch.empty(len(points), dtype=torch.int64, device=points.device)
    top = float((1 << MORTON_BITS) - 1)
    grid = (triton.cdiv(len(points), _ITEMS),)
    _point_codes[grid](points, cells, codes, len(points), TOP=top, BLOCK=_ITEMS)
    return codes


def build_tree(vertices: Tensor, faces: Tensor) -> Tree:
    """The hierarchy over triangles of vertices (V, 3) float32 and faces (F, 3) int64, F >= 1, both contiguous."""
    count, device = len(faces), vertices.device
    grid = (triton.cdiv(count, _ITEMS),)
    low, high = vertices.new_empty(count, 3), vertices.new_empty(count, 3)
    _face_boxes[grid](vertices, faces, low, high, count, BLOCK=_ITEMS)
    cells, step = morton_cells(low, high), max(count // 4096, 1)
    median = (high[::step] - low[::step]).amax(1).median()
    keys = torch.empty(count, dtype=torch.int64, device=device)
    top = float((1 << MORTON_BITS) - 1)
    _face_keys[grid](low, high, cells, median, keys, count, TOP=top, BITS=3 * MORTON_BITS, BLOCK=_ITEMS)
    keys, order = keys.sort(stable=True)
    leaves = -(-count // WIDTH)
    spare = leaves * WIDTH - count
    if spare:
        order, keys = (torch.cat([part, part[-1:].expand(spare)]) for part in (order, keys))
    frames = vertices.new_empty(leaves, FRAME, WIDTH)
    _leaf_frames[(triton.cdiv(len(order), _ITEMS),)](vertices, faces, order, frames, len(order), BLOCK=_ITEMS)
    counts, starts = [leaves], [0, 0]
    while counts[-1] > 1:
        counts.append(-(-counts[-1] // WIDTH))
        starts.append(starts[-1] + counts[-1])
    boxes = vertices.new_empty(max(starts[-1], 1), 6, WIDTH)
    children = len(order)
    for level, groups in enumerate(counts):
        group_low, group_high = vertices.new_empty(groups, 3), vertices.new_empty(groups, 3)
        own = boxes[starts[level] :]
        _group_boxes[(triton.cdiv(groups, 64),)](
            low, high, order, own, group_low, group_high, children, groups, ORDERED=level == 0, BLOCK=64
        )
        low, high, children = group_low, group_high, groups
    first = torch.tensor(starts[: len(counts)], dtype=torch.int32).to(device, non_blocking=True)
    return Tree(order, keys, frames, boxes, first, cells)
