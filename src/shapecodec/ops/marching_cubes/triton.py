"""Marching cubes in three Triton kernels and one prefix sum over blocks: one lane a voxel, no atomics.

Kept between the kernels: 3 bytes a voxel (case, and place of its first vertex in the block with the crossed axes as
bits), 0.5 GB at 2048^3. The rest is read and written once: the floor is the bytes of values, vertices and faces.
"""

from __future__ import annotations

from functools import cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from shapecodec.ops.marching_cubes.blocks import SKIPPED, CellBlocks, Level
from shapecodec.ops.marching_cubes.reference import NUDGE
from shapecodec.ops.marching_cubes.tables import tables


@triton.jit
def _locate(
    upper: tl.tensor,
    block: tl.tensor,
    x: tl.tensor,
    y: tl.tensor,
    z: tl.tensor,
    live: tl.tensor,
) -> tuple[tl.tensor, tl.tensor]:
    """Row (int64, below 0 if absent) of the block that holds place (x, y, z) in 0..8 of `block`, and the voxel in it."""
    tap = (x // 8) * 4 + (y // 8) * 2 + z // 8
    row = tl.load(upper + block * 8 + tap, mask=live, other=-1).to(tl.int64)
    return row, ((x % 8) * 8 + y % 8) * 8 + z % 8


@triton.jit(do_not_specialize=["count", "known"])  # else a compilation for each divisibility by 16
def _classify(
    values: tl.tensor,
    upper: tl.tensor,
    triangle_counts: tl.tensor,
    cases: tl.tensor,
    packed: tl.tensor,
    vertex_totals: tl.tensor,
    triangle_totals: tl.tensor,
    count: tl.tensor,
    known: tl.tensor,
    threshold: tl.tensor,
    fill: tl.tensor,
    BELOW: tl.constexpr,
    GAP: tl.constexpr,
    BLOCKS: tl.constexpr,
) -> None:
    # int64: block * 512 passes 2^31 from 4.2M blocks on
    block = (tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS))[:, None]
    voxel = tl.arange(0, 512)[None, :]
    live = block < count
    x, y, z = voxel // 64, (voxel // 8) % 8, voxel % 8
    case = tl.zeros([BLOCKS, 512], dtype=tl.int32)
    gaps = tl.zeros([BLOCKS, 512], dtype=tl.int32)
    for corner in tl.static_range(8):
        row, place = _locate(upper, block, x + corner // 4, y + (corner // 2) % 2, z + corner % 2, live)
        value = tl.load(values + row * 512 + place, mask=live & (row >= 0) & (row < known), other=fill)
        if BELOW:
            inside = value < threshold
        else:
            inside = value > threshold
        case += inside.to(tl.int32) * (1 << corner)
        gaps += (row == GAP).to(tl.int32) * (1 << corner)
    case = tl.where(live, case, 0)
    own = case & 1
    along_x = (own ^ (case >> 4)) & ((gaps >> 4) ^ 1) & 1
    along_y = (own ^ (case >> 2)) & ((gaps >> 2) ^ 1) & 1
    along_z = (own ^ (case >> 1)) & ((gaps >> 1) ^ 1) & 1
    case = tl.where(gaps == 0, case, 0)
    vertices = along_x + along_y + along_z
    triangles = tl.load(triangle_counts + case)
    first = tl.cumsum(vertices, axis=1) - vertices
    flags = along_x + along_y * 2 + along_z * 4
    tl.store(cases + block * 512 + voxel, case.to(tl.uint8), mask=live)
    tl.store(packed + block * 512 + voxel, (first * 8 + flags).to(tl.int16), mask=live)
    tl.store(vertex_totals + block, tl.sum(vertices, axis=1)[:, None], mask=live)
    tl.store(triangle_totals + block, tl.sum(triangles, axis=1)[:, None], mask=live)


@triton.jit(do_not_specialize=["count", "known", "half"])
def _write_vertices(
    values: tl.tensor,
    coords: tl.tensor,
    upper: tl.tensor,
    packed: tl.tensor,
    vertex_starts: tl.tensor,
    out: tl.tensor,
    count: tl.tensor,
    known: tl.tensor,
    half: tl.tensor,
    inverse: tl.tensor,
    threshold: tl.tensor,
    fill: tl.tensor,
    MARGIN: tl.constexpr,
    BLOCKS: tl.constexpr,
) -> None:
    block = (tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS))[:, None]
    voxel = tl.arange(0, 512)[None, :]
    live = block < count
    x, y, z = voxel // 64, (voxel // 8) % 8, voxel % 8
    code = tl.load(packed + block * 512 + voxel, mask=live, other=0).to(tl.int32)
    at = tl.load(vertex_starts + block, mask=live, other=0) + code // 8
    crossed = live & (code % 8 > 0)
    low = tl.load(values + block * 512 + voxel, mask=crossed & (block < known), other=fill)
    centre_x = (tl.load(coords + block * 3, mask=live, other=0) * 8 + x - half).to(tl.float32) + 0.5
    centre_y = (tl.load(coords + block * 3 + 1, mask=live, other=0) * 8 + y - half).to(tl.float32) + 0.5
    centre_z = (tl.load(coords + block * 3 + 2, mask=live, other=0) * 8 + z - half).to(tl.float32) + 0.5
    for axis in tl.static_range(3):
        here = live & ((code >> axis) % 2 > 0)
        row, place = _locate(upper, block, x + (2 - axis) // 2, y + axis % 2, z + axis // 2, here)
        high = tl.load(values + row * 512 + place, mask=here & (row >= 0) & (row < known), other=fill)
        gap = high - low
        usable = here & (tl.abs(gap) < 3e38)  # false for NaN and infinity
        along = tl.where(usable, threshold - low, 0.5) / tl.where(usable, gap, 1.0)
        along = tl.minimum(tl.maximum(along, MARGIN), 1.0 - MARGIN)
        tl.store(out + at * 3, (centre_x + along * ((2 - axis) // 2)) * inverse, mask=here)
        tl.store(out + at * 3 + 1, (centre_y + along * (axis % 2)) * inverse, mask=here)
        tl.store(out + at * 3 + 2, (centre_z + along * (axis // 2)) * inverse, mask=here)
        at += here.to(tl.int64)


@triton.jit(do_not_specialize=["count"])
def _write_faces(
    upper: tl.tensor,
    triangle_table: tl.tensor,
    triangle_counts: tl.tensor,
    cases: tl.tensor,
    packed: tl.tensor,
    vertex_starts: tl.tensor,
    triangle_starts: tl.tensor,
    out: tl.tensor,
    count: tl.tensor,
    BLOCKS: tl.constexpr,
) -> None:
    block = (tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS))[:, None]
    voxel = tl.arange(0, 512)[None, :]
    live = block < count
    x, y, z = voxel // 64, (voxel // 8) % 8, voxel % 8
    case = tl.load(cases + block * 512 + voxel, mask=live, other=0).to(tl.int32)
    triangles = tl.load(triangle_counts + case)
    local = tl.cumsum(triangles, axis=1) - triangles
    at = (tl.load(triangle_starts + block, mask=live, other=0) + local) * 3
    longest = tl.max(triangles)  # 0 in blocks without a surface, rarely the table's 5 elsewhere
    for slot in range(0, longest * 3):
        here = slot < triangles * 3
        edge = tl.load(triangle_table + case * 16 + slot, mask=here, other=0).to(tl.int32)
        axis, u, v = edge // 4, (edge // 2) % 2, edge % 2
        edge_x = x + tl.where(axis == 0, 0, u)
        edge_y = y + tl.where(axis == 0, u, tl.where(axis == 1, 0, v))
        edge_z = z + tl.where(axis == 2, 0, v)
        row, place = _locate(upper, block, edge_x, edge_y, edge_z, here)
        here = here & (row >= 0)  # always so: a crossed edge has an owner
        code = tl.load(packed + row * 512 + place, mask=here, other=0).to(tl.int32)
        before = tl.where(axis > 0, code % 2, 0) + tl.where(axis > 1, (code // 2) % 2, 0)
        vertex = tl.load(vertex_starts + row, mask=here, other=0) + code // 8 + before
        tl.store(out + at + slot, vertex, mask=here)


@cache
def _table_tensors(device: torch.device) -> tuple[Tensor, Tensor]:
    derived = tables()
    return torch.tensor(derived.triangles, device=device), torch.tensor(derived.counts, device=device)


def _blocks_a_program(values: Tensor) -> int:
    """One on a GPU; several under the interpreter, where the number of programs is what costs."""
    return 1 if values.is_cuda else 8


def classify(values: Tensor, blocks: CellBlocks, level: Level) -> tuple[Tensor, Tensor, Tensor]:
    """Cases (M, 512) uint8, packed (M, 512) int16 and the totals of vertices and triangles (2, M) int32."""
    count, device, width = len(blocks.coords), values.device, _blocks_a_program(values)
    cases = torch.empty((count, 512), dtype=torch.uint8, device=device)
    packed = torch.empty((count, 512), dtype=torch.int16, device=device)
    totals = torch.empty((2, count), dtype=torch.int32, device=device)
    _classify[(triton.cdiv(count, width),)](
        values,
        blocks.upper,
        _table_tensors(device)[1],
        cases,
        packed,
        totals[0],
        totals[1],
        count,
        len(values),
        level.threshold,
        level.fill,
        BELOW=level.below,
        GAP=SKIPPED,
        BLOCKS=width,
        num_warps=4,
    )
    return cases, packed, totals


def extract(
    values: Tensor, blocks: CellBlocks, resolution: int, level: Level, index_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """As `reference.extract`."""
    count, device, width = len(blocks.coords), values.device, _blocks_a_program(values)
    programs = (triton.cdiv(count, width),)
    cases, packed, totals = classify(values, blocks, level)
    ends = totals.cumsum(1, dtype=torch.int64)
    starts = ends - totals
    vertex_count, face_count = ends[:, -1].tolist()
    vertices = torch.empty((vertex_count, 3), dtype=torch.float32, device=device)
    faces = torch.empty((face_count, 3), dtype=index_dtype, device=device)
    _write_vertices[programs](
        values,
        blocks.coords.contiguous(),
        blocks.upper,
        packed,
        starts[0],
        vertices,
        count,
        len(values),
        resolution // 2,
        1.0 / resolution,
        level.threshold,
        level.fill,
        MARGIN=NUDGE,
        BLOCKS=width,
        num_warps=4,
    )
    tables_on_device = _table_tensors(device)
    _write_faces[programs](
        blocks.upper, *tables_on_device, cases, packed, *starts, faces, count, BLOCKS=width, num_warps=4
    )
    return vertices, faces
