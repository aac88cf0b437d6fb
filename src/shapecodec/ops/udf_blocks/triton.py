"""udf_blocks on CUDA: candidate pairs by one culling kernel a level, a sort by block, one program a list of triangles.

Stages (bench/udf_blocks.py times them one by one): `triangle_frames` (float64, torch), `candidate_pairs`,
`sort_pairs`, `nearest` and `finish`. Minima are exact in any order, so the result is the same bit for bit whatever
the order of the faces. The host waits for the device five times, for sizes only.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from shapecodec.grid import morton_decode
from shapecodec.ops.udf_blocks.reference import CULL_SLACK, HIGH, LOW, triangle_frames

LIST = 64  # triangles a program walks at most; longer lists are split, and `finish` takes the minimum over the parts
CONSTANTS = 12  # float32 a pair: h, e (3), t (3), l - t (3), two unused
DIRECTIONS = 21  # float32 a triangle: normal, edge directions, edge normals
_ITEMS = 1 << 24  # culled at a time: 64 bytes of mask an item


@triton.jit
def _column(rows: tl.tensor, row: tl.tensor, index: tl.tensor, live: tl.tensor) -> tl.tensor:
    return tl.load(rows + row * 37 + index, mask=live, other=0.0)


@triton.jit
def _dot(
    rows: tl.tensor, row: tl.tensor, index: tl.tensor, live: tl.tensor, x: tl.tensor, y: tl.tensor, z: tl.tensor
) -> tl.tensor:
    return (
        _column(rows, row, index, live) * x
        + _column(rows, row, index + 1, live) * y
        + _column(rows, row, index + 2, live) * z
    )


@triton.jit
def _extent(rows: tl.tensor, row: tl.tensor, index: tl.tensor, live: tl.tensor) -> tl.tensor:
    a = tl.abs(_column(rows, row, index, live))
    b = tl.abs(_column(rows, row, index + 1, live))
    return a + b + tl.abs(_column(rows, row, index + 2, live))


@triton.jit
def _edge(
    rows: tl.tensor,
    row: tl.tensor,
    edge: tl.tensor,
    live: tl.tensor,
    x: tl.tensor,
    y: tl.tensor,
    z: tl.tensor,
    half: tl.tensor,
    reach: tl.tensor,
) -> tl.tensor:
    """Squared in-plane distance to an edge, its signed distance, whether the cube may be within reach of its line."""
    inward = _dot(rows, row, 12 + 3 * edge, live, x, y, z) - _column(rows, row, 25 + edge, live)
    along = _dot(rows, row, 3 + 3 * edge, live, x, y, z) - _column(rows, row, 22 + edge, live)
    beyond = tl.maximum(tl.maximum(-along, along - _column(rows, row, 28 + edge, live)), 0.0)
    near = inward >= -(reach + half * _extent(rows, row, 12 + 3 * edge, live))
    return inward * inward + beyond * beyond, inward, near


@triton.jit
def _box_axis(
    rows: tl.tensor,
    row: tl.tensor,
    axis: tl.tensor,
    live: tl.tensor,
    centre: tl.tensor,
    half: tl.tensor,
    reach: tl.tensor,
) -> tl.tensor:
    above = _column(rows, row, 31 + axis, live) - reach <= centre + half
    return above & (_column(rows, row, 34 + axis, live) + reach >= centre - half)


@triton.jit(do_not_specialize=["items", "nodes"])  # else a compilation for each divisibility by 16
def _cull_kernel(
    rows_ptr: tl.tensor,
    triangle_ptr: tl.tensor,
    base_ptr: tl.tensor,
    mask_ptr: tl.tensor,
    items: tl.tensor,
    nodes: tl.tensor,
    size: tl.tensor,
    middle: tl.tensor,
    reach: tl.tensor,
    ITEMS: tl.constexpr,
) -> None:
    """mask[item, 16 dx + 4 dy + dz] = whether node base + (dx, dy, dz) may touch the item's triangle (in float64)."""
    item = (tl.program_id(0) * ITEMS + tl.arange(0, ITEMS))[:, None]
    lane = tl.arange(0, 64)[None, :]
    live = item < items
    row = tl.load(triangle_ptr + item, mask=live, other=0).to(tl.int64)
    node_x = tl.load(base_ptr + item * 3, mask=live, other=0) + (lane >> 4)
    node_y = tl.load(base_ptr + item * 3 + 1, mask=live, other=0) + ((lane >> 2) & 3)
    node_z = tl.load(base_ptr + item * 3 + 2, mask=live, other=0) + (lane & 3)
    x = (node_x.to(tl.float64) + 0.5) * size - middle
    y = (node_y.to(tl.float64) + 0.5) * size - middle
    z = (node_z.to(tl.float64) + 0.5) * size - middle
    half = size * 0.5 - 0.5  # to the outermost voxel centres
    plane = _dot(rows_ptr, row, 0, live, x, y, z) - _column(rows_ptr, row, 21, live)
    edge_a, inward_a, near_a = _edge(rows_ptr, row, 0, live, x, y, z, half, reach)
    edge_b, inward_b, near_b = _edge(rows_ptr, row, 1, live, x, y, z, half, reach)
    edge_c, inward_c, near_c = _edge(rows_ptr, row, 2, live, x, y, z, half, reach)
    inside = (inward_a > 0) & (inward_b > 0) & (inward_c > 0)
    outside = tl.minimum(tl.minimum(edge_a, edge_b), edge_c)
    squared = plane * plane + tl.where(inside, 0.0, outside)
    radius = reach + half * 1.7320509
    keep = (node_x < nodes) & (node_y < nodes) & (node_z < nodes) & live
    keep = keep & (squared <= radius * radius) & near_a & near_b & near_c
    keep = keep & (tl.abs(plane) <= reach + half * _extent(rows_ptr, row, 0, live))
    keep = keep & _box_axis(rows_ptr, row, 0, live, x, half, reach)
    keep = keep & _box_axis(rows_ptr, row, 1, live, y, half, reach)
    keep = keep & _box_axis(rows_ptr, row, 2, live, z, half, reach)
    tl.store(mask_ptr + item.to(tl.int64) * 64 + lane, keep.to(tl.int8), mask=live & (lane >= 0))


@triton.jit
def _spread(v: tl.tensor) -> tl.tensor:
    """Ten bits to every third bit."""
    v = (v | (v << 16)) & 0x30000FF
    v = (v | (v << 8)) & 0x300F00F
    v = (v | (v << 4)) & 0x30C30C3
    return (v | (v << 2)) & 0x9249249


@triton.jit(do_not_specialize=["pairs"])
def _key_kernel(
    flat_ptr: tl.tensor, base_ptr: tl.tensor, key_ptr: tl.tensor, pairs: tl.tensor, TILE: tl.constexpr
) -> None:
    """Morton key of the block of each surviving (item, lane)."""
    pair = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    live = pair < pairs
    flat = tl.load(flat_ptr + pair, mask=live, other=0)
    lane = (flat & 63).to(tl.int32)
    base = base_ptr + (flat >> 6) * 3
    x = tl.load(base, mask=live, other=0) + (lane >> 4)
    y = tl.load(base + 1, mask=live, other=0) + ((lane >> 2) & 3)
    z = tl.load(base + 2, mask=live, other=0) + (lane & 3)
    tl.store(key_ptr + pair, (_spread(x) << 2) | (_spread(y) << 1) | _spread(z), mask=live)


@triton.jit(do_not_specialize=["pairs"])
def _constant_kernel(
    rows_ptr: tl.tensor,
    order_ptr: tl.tensor,
    flat_ptr: tl.tensor,
    triangle_ptr: tl.tensor,
    base_ptr: tl.tensor,
    out_ptr: tl.tensor,
    out_triangle_ptr: tl.tensor,
    pairs: tl.tensor,
    middle: tl.tensor,
    TILE: tl.constexpr,
) -> None:
    """Per pair in sorted order: the triangle, and its terms at the block's centre, rounded from float64."""
    pair = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    live = pair < pairs
    flat = tl.load(flat_ptr + tl.load(order_ptr + pair, mask=live, other=0), mask=live, other=0)
    lane = (flat & 63).to(tl.int32)
    triangle = tl.load(triangle_ptr + (flat >> 6), mask=live, other=0)
    base = base_ptr + (flat >> 6) * 3
    x = ((tl.load(base, mask=live, other=0) + (lane >> 4)) * 8 + 4).to(tl.float64) - middle
    y = ((tl.load(base + 1, mask=live, other=0) + ((lane >> 2) & 3)) * 8 + 4).to(tl.float64) - middle
    z = ((tl.load(base + 2, mask=live, other=0) + (lane & 3)) * 8 + 4).to(tl.float64) - middle
    row = triangle.to(tl.int64)
    out = out_ptr + pair * 12
    plane = _dot(rows_ptr, row, 0, live, x, y, z) - _column(rows_ptr, row, 21, live)
    tl.store(out, plane.to(tl.float32), mask=live)
    for edge in tl.static_range(3):
        inward = _dot(rows_ptr, row, 12 + 3 * edge, live, x, y, z) - _column(rows_ptr, row, 25 + edge, live)
        along = _dot(rows_ptr, row, 3 + 3 * edge, live, x, y, z) - _column(rows_ptr, row, 22 + edge, live)
        remaining = (
            _column(rows_ptr, row, 28 + edge, live) - along
        )  # in float64: exact at the far end of long edges too
        tl.store(out + 1 + edge, inward.to(tl.float32), mask=live)
        tl.store(out + 4 + edge, along.to(tl.float32), mask=live)
        tl.store(out + 7 + edge, remaining.to(tl.float32), mask=live)
    tl.store(out_triangle_ptr + pair, triangle, mask=live)


@triton.jit
def _edge_squared(
    constants: tl.tensor, directions: tl.tensor, edge: tl.constexpr, x: tl.tensor, y: tl.tensor, z: tl.tensor
) -> tl.tensor:
    along = tl.load(directions + 3 + 3 * edge) * x
    along += tl.load(directions + 4 + 3 * edge) * y
    along += tl.load(directions + 5 + 3 * edge) * z
    inward = tl.load(constants + 1 + edge) + tl.load(directions + 12 + 3 * edge) * x
    inward += tl.load(directions + 13 + 3 * edge) * y
    inward += tl.load(directions + 14 + 3 * edge) * z
    before = -along - tl.load(constants + 4 + edge)
    after = along - tl.load(constants + 7 + edge)
    beyond = tl.maximum(tl.maximum(before, after), 0.0)
    return inward * inward + beyond * beyond, inward


@triton.jit
def _nearest_kernel(
    constant_ptr: tl.tensor,
    triangle_ptr: tl.tensor,
    direction_ptr: tl.tensor,
    start_ptr: tl.tensor,
    stop_ptr: tl.tensor,
    squared_ptr: tl.tensor,
    lowest_ptr: tl.tensor,
) -> None:
    """Squared distances of a block's 512 voxels to one list of triangles, and their minimum."""
    part = tl.program_id(0).to(tl.int64)
    voxel = tl.arange(0, 512)
    x = (voxel >> 6).to(tl.float32) - 3.5
    y = ((voxel >> 3) & 7).to(tl.float32) - 3.5
    z = (voxel & 7).to(tl.float32) - 3.5
    best = tl.full([512], 3.0e38, tl.float32)
    start = tl.load(start_ptr + part)
    stop = tl.load(stop_ptr + part)
    for pair in range(start, stop):
        constants = constant_ptr + pair * 12
        directions = direction_ptr + tl.load(triangle_ptr + pair).to(tl.int64) * 21
        plane = tl.load(constants) + tl.load(directions) * x
        plane += tl.load(directions + 1) * y
        plane += tl.load(directions + 2) * z
        edge_a, inward_a = _edge_squared(constants, directions, 0, x, y, z)
        edge_b, inward_b = _edge_squared(constants, directions, 1, x, y, z)
        edge_c, inward_c = _edge_squared(constants, directions, 2, x, y, z)
        inside = tl.minimum(tl.minimum(inward_a, inward_b), inward_c) > 0.0
        outside = tl.minimum(tl.minimum(edge_a, edge_b), edge_c)
        best = tl.minimum(best, plane * plane + tl.where(inside, 0.0, outside))
    tl.store(squared_ptr + part * 512 + voxel, best)
    tl.store(lowest_ptr + part, tl.min(best, axis=0))


@triton.jit
def _finish_kernel(
    squared_ptr: tl.tensor,
    block_ptr: tl.tensor,
    part_ptr: tl.tensor,
    out_ptr: tl.tensor,
    inverse_truncation: tl.tensor,
    PARTS: tl.constexpr,
) -> None:
    """min over a block's lists, square root, truncation."""
    row = tl.program_id(0).to(tl.int64)
    block = tl.load(block_ptr + row)
    start = tl.load(part_ptr + block)
    stop = tl.load(part_ptr + block + 1)
    voxel = tl.arange(0, 512)
    best = tl.full([512], 3.0e38, tl.float32)
    for first in range(start, stop, PARTS):
        part = first + tl.arange(0, PARTS)[:, None]
        tile = tl.load(
            squared_ptr + part * 512 + voxel[None, :], mask=(part < stop) & (voxel >= 0)[None, :], other=3.0e38
        )
        best = tl.minimum(best, tl.min(tile, axis=0))
    value = tl.minimum(tl.sqrt_rn(best) * inverse_truncation, 1.0)
    tl.store(out_ptr + row * 512 + voxel, value)


class Pairs(NamedTuple):
    """Surviving (item, lane) pairs: flat (P,) int64 = 64 item + lane; items are 4^3 blocks at base (I, 3) int32."""

    flat: Tensor
    triangle: Tensor  # (I,) int32
    base: Tensor  # (I, 3) int32


class Lists(NamedTuple):
    """Pairs sorted by block and cut into lists of at most LIST triangles."""

    keys: Tensor  # (M,) int32 Morton keys of the M candidate blocks
    constants: Tensor  # (P, 12) float32
    triangle: Tensor  # (P,) int32
    start: Tensor  # (K,) int64 bounds of the lists within the pairs
    stop: Tensor
    parts: Tensor  # (M + 1,) int64 bounds of the blocks within the lists
    block: Tensor  # (K,) int64 block of each list


def _first_items(frames: Tensor, resolution: int, reach: float) -> list[tuple[Tensor, Tensor]]:
    """Per level k (nodes of 8 * 4^k voxels): (triangle, base) of those whose reach covers at most 4 nodes an axis."""
    sizes = [8]
    while -(-resolution // sizes[-1]) > 4:
        sizes.append(sizes[-1] * 4)
    low = frames[:, LOW] + (resolution / 2 - reach)
    high = frames[:, HIGH] + (resolution / 2 + reach)
    outside = ((high < 0) | (low > resolution)).any(1)
    size = torch.tensor(sizes, dtype=torch.float64, device=frames.device)[:, None, None]
    first = (low.clamp(0, resolution - 1) / size).floor()  # (levels, F, 3)
    span = (high.clamp(0, resolution - 1) / size).floor() - first
    level = (span > 3).any(2).sum(0).masked_fill_(outside, len(sizes))
    order = torch.argsort(level, stable=True)
    counts = torch.bincount(level, minlength=len(sizes) + 1).tolist()
    return [
        (members.to(torch.int32), first[k, members].to(torch.int32))
        for k, members in enumerate(order.split(counts)[: len(sizes)])
    ]


def _cull(
    frames: Tensor, triangle: Tensor, base: Tensor, size: int, resolution: int, reach: float, tile: int = 4
) -> Tensor:
    """(P,) int64 = 64 item + lane of the nodes that the items' triangles may reach."""
    found = []
    for first in range(0, len(triangle), _ITEMS):
        items = min(_ITEMS, len(triangle) - first)
        mask = torch.empty(items * 64, dtype=torch.int8, device=frames.device)
        launch = (triton.cdiv(items, tile),)
        _cull_kernel[launch](
            frames, triangle[first:], base[first:], mask, items, -(-resolution // size), float(size), resolution / 2,
            reach, ITEMS=tile, num_warps=4,
        )  # fmt: skip
        found.append(mask.nonzero().flatten() + 64 * first)
    return found[0] if len(found) == 1 else torch.cat(found)


def candidate_pairs(frames: Tensor, resolution: int, reach: float) -> Pairs:
    """Triangles and the blocks they may reach, coarse to fine: each level splits its nodes 4^3, so 2048 takes four."""
    triangle = torch.zeros(0, dtype=torch.int32, device=frames.device)
    base = triangle.reshape(0, 3)
    flat = torch.zeros(0, dtype=torch.int64, device=frames.device)
    levels = _first_items(frames, resolution, reach)
    for k in range(len(levels) - 1, -1, -1):
        if len(flat):  # survivors of the level above: their 4^3 children
            item, lane = flat >> 6, (flat & 63).to(torch.int32)
            step = torch.stack([lane >> 4, (lane >> 2) & 3, lane & 3], 1)
            triangle, base = triangle[item], (base[item] + step) * 4
        else:
            triangle, base = triangle[:0], base[:0]
        triangle, base = torch.cat([triangle, levels[k][0]]), torch.cat([base, levels[k][1]])
        flat = _cull(frames, triangle, base, 8 * 4**k, resolution, reach) if len(triangle) else flat[:0]
    return Pairs(flat, triangle, base)


def sort_pairs(pairs: Pairs, frames: Tensor, resolution: int) -> Lists:
    """Pairs by block, the constants of each, and the lists that programs walk."""
    count, device = len(pairs.flat), frames.device
    keys = torch.empty(count, dtype=torch.int32, device=device)
    grid = (triton.cdiv(count, 256),)
    _key_kernel[grid](pairs.flat, pairs.base, keys, count, TILE=256)
    keys, order = torch.sort(keys, stable=True)
    constants = torch.empty(count, CONSTANTS, dtype=torch.float32, device=device)
    triangle = torch.empty(count, dtype=torch.int32, device=device)
    _constant_kernel[grid](
        frames, order, pairs.flat, pairs.triangle, pairs.base, constants, triangle, count, resolution / 2, TILE=256
    )
    fresh = torch.ones(count, dtype=torch.bool, device=device)
    torch.ne(keys[1:], keys[:-1], out=fresh[1:])
    first = fresh.nonzero().flatten()
    last = torch.cat([first[1:], first.new_full((1,), count)])
    parts = torch.zeros(len(first) + 1, dtype=torch.int64, device=device)
    torch.cumsum((last - first + (LIST - 1)) // LIST, 0, out=parts[1:])
    total = int(parts[-1])
    block = torch.repeat_interleave(parts.diff(), output_size=total)
    start = first[block] + (torch.arange(total, device=device) - parts[block]) * LIST
    stop = torch.minimum(start + LIST, last[block])
    return Lists(keys[first], constants, triangle, start, stop, parts, block)


def nearest(lists: Lists, frames: Tensor) -> tuple[Tensor, Tensor]:
    """(K, 512) float32 squared distances in voxels to each list's triangles, and their minimum (K,)."""
    directions = frames[:, :DIRECTIONS].float().contiguous()
    squared = torch.empty(len(lists.block), 512, dtype=torch.float32, device=frames.device)
    lowest = torch.empty(len(lists.block), dtype=torch.float32, device=frames.device)
    # Two warps: 8 voxels a thread hide the 31 uniform loads of a triangle behind 330 arithmetic instructions.
    _nearest_kernel[(len(lists.block),)](
        lists.constants, lists.triangle, directions, lists.start, lists.stop, squared, lowest, num_warps=2
    )
    return squared, lowest


def finish(lists: Lists, squared: Tensor, lowest: Tensor, truncation: float, activity: float) -> tuple[Tensor, Tensor]:
    """Block coordinates (L, 3) int32 and values (L, 8, 8, 8) float32 of the blocks with a voxel below `activity`."""
    closest = torch.full((len(lists.keys),), float("inf"), device=squared.device)
    closest.scatter_reduce_(0, lists.block, lowest, "amin")
    kept = (closest.sqrt() < activity).nonzero().flatten()
    values = torch.empty(len(kept), 8, 8, 8, dtype=torch.float32, device=squared.device)
    if len(kept):
        _finish_kernel[(len(kept),)](squared, kept, lists.parts, values, 1.0 / truncation, PARTS=4, num_warps=4)
    return morton_decode(lists.keys[kept].long()), values


def udf_blocks(
    vertices: Tensor, faces: Tensor, resolution: int, truncation: float, activity: float
) -> tuple[Tensor, Tensor]:
    """Block coordinates (L, 3) int32 in Morton order and values (L, 8, 8, 8) float32; arguments as in the package."""
    frames = triangle_frames(vertices, faces, resolution)
    pairs = candidate_pairs(frames, resolution, max(truncation, activity) + CULL_SLACK)
    if len(pairs.flat) == 0:
        coords = torch.zeros(0, 3, dtype=torch.int32, device=vertices.device)
        return coords, vertices.new_zeros(0, 8, 8, 8)
    lists = sort_pairs(pairs, frames, resolution)
    squared, lowest = nearest(lists, frames)
    return finish(lists, squared, lowest, truncation, activity)
