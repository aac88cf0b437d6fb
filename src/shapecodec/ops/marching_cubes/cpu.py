"""Marching cubes on CPU cores: numba over blocks in two passes, signs as bits.

A row of nine signs along z is one integer, so eight cells without a crossing cost two comparisons. Pass one keeps 3
bytes a voxel (case, place of its first vertex in the block, crossed axes); pass two writes vertices and triangles at
their final place, so the result does not depend on the number of threads.
"""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

from shapecodec.ops.marching_cubes.blocks import SKIPPED, CellBlocks, Level
from shapecodec.ops.marching_cubes.reference import NUDGE
from shapecodec.ops.marching_cubes.tables import tables

BITS_SET = np.array([0, 1, 1, 2, 1, 2, 2, 3], np.int32)


@numba.njit(cache=True, nogil=True)
def _sign_row(
    values: np.ndarray, row: int, x: int, y: int, length: int, threshold: np.float32, below: bool, fill_bits: int
) -> int:
    """Signs of voxels (x, y, 0..length) of a block as bits; an absent block gives the fill's."""
    if row < 0 or row >= len(values):
        return fill_bits & ((1 << length) - 1)
    bits = 0
    for z in range(length):
        value = values[row, x, y, z]
        inside = value < threshold if below else value > threshold
        bits |= int(inside) << z
    return bits


@numba.njit(cache=True, nogil=True)
def _sign_rows(
    values: np.ndarray,
    upper: np.ndarray,
    block: int,
    threshold: np.float32,
    below: bool,
    fill_bits: int,
    rows: np.ndarray,
) -> bool:
    """The 9 x 9 rows of a block and its upper apron; returns whether both signs occur."""
    some, every = 0, 511
    for x in range(9):
        for y in range(9):
            tap = (x >> 3) * 4 + (y >> 3) * 2
            bits = _sign_row(values, upper[block, tap], x & 7, y & 7, 8, threshold, below, fill_bits)
            bits |= _sign_row(values, upper[block, tap + 1], x & 7, y & 7, 1, threshold, below, fill_bits) << 8
            rows[x * 9 + y] = bits
            some |= bits
            every &= bits
    return some != 0 and every != 511


@numba.njit(cache=True, nogil=True)
def _gap_rows(upper: np.ndarray, block: int, gaps: np.ndarray) -> None:
    """The 9 x 9 rows again: bits of voxels that lie in a skipped block."""
    for x in range(9):
        for y in range(9):
            tap = (x >> 3) * 4 + (y >> 3) * 2
            gaps[x * 9 + y] = (255 if upper[block, tap] == SKIPPED else 0) | (
                256 if upper[block, tap + 1] == SKIPPED else 0
            )


@numba.njit(cache=True, nogil=True)
def _classify_block(
    rows: np.ndarray,
    gaps: np.ndarray,
    triangle_counts: np.ndarray,
    cases: np.ndarray,
    packed: np.ndarray,
    totals: np.ndarray,
) -> None:
    """One block from its sign and gap rows: cases (512,), packed (512,), totals (2,) of vertices and triangles."""
    vertices, triangles = 0, 0
    for column in range(64):
        at = (column >> 3) * 9 + (column & 7)
        a, b, c, d = rows[at], rows[at + 1], rows[at + 9], rows[at + 10]
        if (a | b | c | d) == 0 or (a & b & c & d) == 511:
            continue
        along_x, along_y, along_z = ~gaps[at + 9], ~gaps[at + 1], ~(gaps[at] >> 1)
        gap = gaps[at] | gaps[at + 1] | gaps[at + 9] | gaps[at + 10]
        for z in range(8):
            case = (a >> z & 3) | (b >> z & 3) << 2 | (c >> z & 3) << 4 | (d >> z & 3) << 6
            own = case & 1
            flags = (own ^ (case >> 4 & 1)) & (along_x >> z)
            flags |= ((own ^ (case >> 2 & 1)) & (along_y >> z)) << 1 | ((own ^ (case >> 1 & 1)) & (along_z >> z)) << 2
            case = 0 if gap >> z & 3 else case
            cases[column * 8 + z] = case
            packed[column * 8 + z] = vertices << 3 | flags
            vertices += BITS_SET[flags]
            triangles += triangle_counts[case]
    totals[0], totals[1] = vertices, triangles


@numba.njit(cache=True, parallel=True, nogil=True)
def _classify(
    values: np.ndarray,
    upper: np.ndarray,
    threshold: np.float32,
    below: bool,
    fill_bits: int,
    triangle_counts: np.ndarray,
    cases: np.ndarray,
    packed: np.ndarray,
    totals: np.ndarray,
) -> None:
    """Per voxel: case, and (vertices before it in the block) * 8 + crossed axes as bits; per block: both totals."""
    for block in numba.prange(len(upper)):
        rows, gaps = np.zeros(81, np.int32), np.zeros(81, np.int32)
        if _sign_rows(values, upper, block, threshold, below, fill_bits, rows):
            if upper[block].min() == SKIPPED:
                _gap_rows(upper, block, gaps)
            _classify_block(rows, gaps, triangle_counts, cases[block], packed[block], totals[block])


@numba.njit(cache=True, nogil=True)
def _block_vertices(
    values: np.ndarray,
    upper: np.ndarray,
    block: int,
    corner: np.ndarray,
    inverse: np.float32,
    threshold: np.float32,
    fill: np.float32,
    packed: np.ndarray,
    at: int,
    out: np.ndarray,
) -> None:
    """One block's points, from row `at` of `out` on; corner (3,) is the block's first voxel counted from the middle."""
    place = np.zeros(3, np.int64)
    nudge, half, one = np.float32(NUDGE), np.float32(0.5), np.float32(1.0)
    for voxel in range(512):
        flags = packed[voxel] & 7
        for axis in range(3):
            if not flags >> axis & 1:
                continue
            place[0], place[1], place[2] = voxel >> 6, voxel >> 3 & 7, voxel & 7
            low = values[block, place[0], place[1], place[2]] if block < len(values) else fill
            for d in range(3):
                out[at, d] = np.float32(corner[d] + place[d]) + half
            place[axis] += 1
            row = upper[block, (place[0] >> 3) * 4 + (place[1] >> 3) * 2 + (place[2] >> 3)]
            high = fill
            if 0 <= row < len(values):
                high = values[row, place[0] & 7, place[1] & 7, place[2] & 7]
            gap = high - low
            along = (threshold - low) / gap if abs(gap) < np.float32(3e38) else half
            out[at, axis] += min(max(along, nudge), one - nudge)
            for d in range(3):
                out[at, d] *= inverse
            at += 1


@numba.njit(cache=True, parallel=True, nogil=True)
def _write_vertices(
    values: np.ndarray,
    corners: np.ndarray,
    upper: np.ndarray,
    inverse: np.float32,
    threshold: np.float32,
    fill: np.float32,
    packed: np.ndarray,
    starts: np.ndarray,
    out: np.ndarray,
) -> None:
    """Points where the field, linear along each crossed edge, meets the level."""
    for block in numba.prange(len(upper)):
        if starts[block + 1, 0] > starts[block, 0]:
            _block_vertices(
                values,
                upper,
                block,
                corners[block],
                inverse,
                threshold,
                fill,
                packed[block],
                starts[block, 0],
                out,
            )


@numba.njit(cache=True, nogil=True)
def _block_faces(
    upper: np.ndarray,
    triangle_table: np.ndarray,
    triangle_counts: np.ndarray,
    edges: np.ndarray,
    cases: np.ndarray,
    packed: np.ndarray,
    starts: np.ndarray,
    at: int,
    out: np.ndarray,
) -> None:
    """One block's vertex numbers, from element `at` of `out` on; upper (8,) and cases (512,) are the block's."""
    for voxel in range(512):
        case = cases[voxel]
        for slot in range(3 * triangle_counts[case]):
            edge = triangle_table[case, slot]
            x, y, z = (voxel >> 6) + edges[edge, 0], (voxel >> 3 & 7) + edges[edge, 1], (voxel & 7) + edges[edge, 2]
            row = upper[(x >> 3) * 4 + (y >> 3) * 2 + (z >> 3)]
            first = packed[row, (x & 7) * 64 + (y & 7) * 8 + (z & 7)]
            before = BITS_SET[first & ((1 << edges[edge, 3]) - 1)]
            out[at] = starts[row, 0] + (first >> 3) + before
            at += 1


@numba.njit(cache=True, parallel=True, nogil=True)
def _write_faces(
    upper: np.ndarray,
    triangle_table: np.ndarray,
    triangle_counts: np.ndarray,
    edges: np.ndarray,
    cases: np.ndarray,
    packed: np.ndarray,
    starts: np.ndarray,
    out: np.ndarray,
) -> None:
    """Vertex numbers of each triangle; an edge's vertex belongs to the block and voxel of its low corner."""
    for block in numba.prange(len(upper)):
        at = starts[block, 1] * 3
        if starts[block + 1, 1] * 3 > at:
            _block_faces(upper[block], triangle_table, triangle_counts, edges, cases[block], packed, starts, at, out)


def extract(
    values: Tensor, blocks: CellBlocks, resolution: int, level: Level, index_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """As `reference.extract`."""
    derived, count = tables(), len(blocks.coords)
    field, upper = values.numpy(), blocks.upper.numpy()
    corners = blocks.coords.numpy() * 8 - resolution // 2
    cases, packed = np.zeros((count, 512), np.uint8), np.zeros((count, 512), np.int16)
    totals = np.zeros((count, 2), np.int64)
    threshold, fill = np.float32(level.threshold), np.float32(level.fill)
    fill_bits = 511 if level.fill_is_inside else 0
    _classify(field, upper, threshold, level.below, fill_bits, derived.counts, cases, packed, totals)
    starts = np.zeros((count + 1, 2), np.int64)
    np.cumsum(totals, 0, out=starts[1:])
    vertices = torch.empty((int(starts[-1, 0]), 3), dtype=torch.float32)
    faces = torch.empty((int(starts[-1, 1]), 3), dtype=index_dtype)
    _write_vertices(
        field, corners, upper, np.float32(1.0 / resolution), threshold, fill, packed, starts, vertices.numpy()
    )
    _write_faces(upper, derived.triangles, derived.counts, derived.edges, cases, packed, starts, faces.view(-1).numpy())
    return vertices, faces
