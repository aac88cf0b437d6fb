"""udf_blocks on the CPU with numba: the frames of `reference`, an octree walk per triangle, one task a run of blocks.

Every block is written by one thread and minima are exact in any order, so the result depends on neither the number of
threads nor the order of the faces.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit, prange
from numpy.typing import NDArray
from torch import Tensor

from shapecodec.grid import morton_decode
from shapecodec.ops.udf_blocks.reference import CULL_SLACK, triangle_frames

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

_TASKS = 256  # runs of blocks with equal numbers of pairs: balances both crowded blocks and uneven cores
_STACK = 512  # nodes waiting in an octree walk: 64 at the start, 7 more a level


@njit(cache=True, nogil=True, inline="always")
def _dot(row: Doubles, k: int, x: float, y: float, z: float) -> float:
    return row[k] * x + row[k + 1] * y + row[k + 2] * z


@njit(cache=True, nogil=True)
def _may_touch(row: Doubles, x: float, y: float, z: float, half: float, reach: float) -> bool:
    """`reference.may_touch` for one frame row and one cube; the cheap tests first."""
    if row[31] - reach > x + half or row[32] - reach > y + half or row[33] - reach > z + half:
        return False
    if row[34] + reach < x - half or row[35] + reach < y - half or row[36] + reach < z - half:
        return False
    plane = _dot(row, 0, x, y, z) - row[21]
    if abs(plane) > reach + half * (abs(row[0]) + abs(row[1]) + abs(row[2])):
        return False
    inside, nearest = True, np.inf
    for edge in range(3):
        k = 12 + 3 * edge
        inward = _dot(row, k, x, y, z) - row[25 + edge]
        if inward < -(reach + half * (abs(row[k]) + abs(row[k + 1]) + abs(row[k + 2]))):
            return False
        along = _dot(row, 3 + 3 * edge, x, y, z) - row[22 + edge]
        beyond = max(-along, along - row[28 + edge], 0.0)
        nearest = min(nearest, inward * inward + beyond * beyond)
        inside = inside and inward > 0
    radius = reach + half * 1.7320508075688774
    return plane * plane + (0.0 if inside else nearest) <= radius * radius


@njit(cache=True, nogil=True)
def _spread(v: int) -> int:
    """Ten bits to every third bit."""
    v = (v | (v << 16)) & 0x30000FF
    v = (v | (v << 8)) & 0x300F00F
    v = (v | (v << 4)) & 0x30C30C3
    return (v | (v << 2)) & 0x9249249


@njit(cache=True, nogil=True)
def _start_level(row: Doubles, resolution: int, reach: float, base: Integers) -> int:
    """The first level of nodes (8 * 2^level voxels) that the reach covers with at most 4 an axis; base: the first."""
    middle, level = resolution / 2, 0
    for axis in range(3):
        if row[34 + axis] + reach < -middle or row[31 + axis] - reach > middle:
            return -1
    while True:
        size, widest = 8 << level, 0
        for axis in range(3):
            first = int(min(max(row[31 + axis] - reach + middle, 0.0), resolution - 1.0)) // size
            last = int(min(max(row[34 + axis] + reach + middle, 0.0), resolution - 1.0)) // size
            base[axis] = first
            widest = max(widest, last - first)
        if widest < 4:
            return level
        level += 1


@njit(cache=True, nogil=True)
def _walk(row: Doubles, resolution: int, reach: float, stack: Integers, keys: Integers, write: bool) -> int:
    """Number of blocks that the triangle may reach; their Morton keys into `keys` where `write`."""
    base, count, top = stack[_STACK - 1], 0, 0
    start = _start_level(row, resolution, reach, base)
    if start < 0:
        return 0
    for lane in range(64):
        stack[top, 0], stack[top, 1] = start, base[0] + (lane >> 4)
        stack[top, 2], stack[top, 3] = base[1] + ((lane >> 2) & 3), base[2] + (lane & 3)
        top += 1
    while top > 0:
        top -= 1
        level, i, j, k = stack[top, 0], stack[top, 1], stack[top, 2], stack[top, 3]
        size = 8 << level
        if i * size >= resolution or j * size >= resolution or k * size >= resolution:
            continue
        shift, half = 0.5 * size - 0.5 * resolution, 0.5 * size - 0.5
        if not _may_touch(row, i * size + shift, j * size + shift, k * size + shift, half, reach):
            continue
        if level == 0:
            if write:
                keys[count] = (_spread(i) << 2) | (_spread(j) << 1) | _spread(k)
            count += 1
            continue
        for child in range(8):
            stack[top, 0], stack[top, 1] = level - 1, 2 * i + (child >> 2)
            stack[top, 2], stack[top, 3] = 2 * j + ((child >> 1) & 1), 2 * k + (child & 1)
            top += 1
    return count


@njit(cache=True, nogil=True, parallel=True)
def _count(frames: Doubles, resolution: int, reach: float, counts: Integers) -> None:
    tasks = min(_TASKS, len(frames))
    for task in prange(tasks):
        stack = np.zeros((_STACK, 4), np.int64)
        nothing = np.zeros(1, np.int64)
        for f in range(task * len(frames) // tasks, (task + 1) * len(frames) // tasks):
            counts[f] = _walk(frames[f], resolution, reach, stack, nothing, False)


@njit(cache=True, nogil=True, parallel=True)
def _fill(frames: Doubles, resolution: int, reach: float, first: Integers, keys: Integers, triangles: Integers) -> None:
    tasks = min(_TASKS, len(frames))
    for task in prange(tasks):
        stack = np.zeros((_STACK, 4), np.int64)
        for f in range(task * len(frames) // tasks, (task + 1) * len(frames) // tasks):
            triangles[first[f] : first[f + 1]] = f
            if first[f + 1] > first[f]:
                _walk(frames[f], resolution, reach, stack, keys[first[f] : first[f + 1]], True)


@njit(cache=True, nogil=True)
def _terms(row: Doubles, x: float, y: float, z: float, at: Floats, across: Floats) -> None:
    """The triangle's h, e, t, l - t at the block's centre (`at`); h, e, t over the 64 (y, z) offsets (`across`)."""
    at[0] = _dot(row, 0, x, y, z) - row[21]
    for edge in range(3):
        along = _dot(row, 3 + 3 * edge, x, y, z) - row[22 + edge]
        at[1 + edge] = _dot(row, 12 + 3 * edge, x, y, z) - row[25 + edge]
        at[4 + edge] = along
        at[7 + edge] = row[28 + edge] - along  # in float64: exact at the far end of long edges too
    for term in range(7):
        column = 0 if term == 0 else (9 + 3 * term if term < 4 else 3 * term - 9)
        step_y, step_z = np.float32(row[column + 1]), np.float32(row[column + 2])
        for k in range(64):
            across[64 * term + k] = step_y * (np.float32(k >> 3) - np.float32(3.5)) + step_z * (
                np.float32(k & 7) - np.float32(3.5)
            )


@njit(cache=True, nogil=True)
def _slab(
    h: float, ea: float, eb: float, ec: float, ta: float, tb: float, tc: float, wa: float, wb: float, wc: float,
    across: Floats, best: Floats,
) -> None:  # fmt: skip
    """best[k] = min(best[k], d^2) over the 64 voxels of one x; a loop without branches, which LLVM turns into SIMD."""
    zero = np.float32(0)
    for k in range(64):
        plane = h + across[k]
        inward_a, inward_b, inward_c = ea + across[64 + k], eb + across[128 + k], ec + across[192 + k]
        step_a, step_b, step_c = across[256 + k], across[320 + k], across[384 + k]
        before, after = -ta - step_a, step_a - wa
        beyond = before if before > after else after
        beyond = beyond if beyond > zero else zero
        nearest = inward_a * inward_a + beyond * beyond
        before, after = -tb - step_b, step_b - wb
        beyond = before if before > after else after
        beyond = beyond if beyond > zero else zero
        edge = inward_b * inward_b + beyond * beyond
        nearest = edge if edge < nearest else nearest
        before, after = -tc - step_c, step_c - wc
        beyond = before if before > after else after
        beyond = beyond if beyond > zero else zero
        edge = inward_c * inward_c + beyond * beyond
        nearest = edge if edge < nearest else nearest
        lowest = inward_a if inward_a < inward_b else inward_b
        lowest = inward_c if inward_c < lowest else lowest
        found = plane * plane + (zero if lowest > zero else nearest)
        best[k] = found if found < best[k] else best[k]


@njit(cache=True, nogil=True)
def _add_triangle(
    row: Doubles, x: float, y: float, z: float, reach: float, at: Floats, across: Floats, best: Floats
) -> None:
    """One triangle into a block's 512 squared distances, skipping the slabs of one x that lie out of its reach."""
    _terms(row, x, y, z, at, across)
    for i in range(8):
        offset = np.float32(i) - np.float32(3.5)
        if row[31] - reach > x + offset or row[34] + reach < x + offset:
            continue
        h = at[0] + np.float32(row[0]) * offset
        if abs(h) > reach + 3.5 * (abs(row[1]) + abs(row[2])):
            continue
        ea, eb = at[1] + np.float32(row[12]) * offset, at[2] + np.float32(row[15]) * offset
        ec = at[3] + np.float32(row[18]) * offset
        if (
            ea < -(reach + 3.5 * (abs(row[13]) + abs(row[14])))
            or eb < -(reach + 3.5 * (abs(row[16]) + abs(row[17])))
            or ec < -(reach + 3.5 * (abs(row[19]) + abs(row[20])))
        ):
            continue
        a, b, c = np.float32(row[3]) * offset, np.float32(row[6]) * offset, np.float32(row[9]) * offset
        _slab(
            h, ea, eb, ec, at[4] + a, at[5] + b, at[6] + c, at[7] - a, at[8] - b, at[9] - c, across,
            best[64 * i : 64 * i + 64],
        )  # fmt: skip


@njit(cache=True, nogil=True, parallel=True)
def _distances(
    frames: Doubles, triangles: Integers, starts: Integers, coords: NDArray[np.int32], tasks: Integers,
    resolution: int, reach: float, scale: np.float32, values: Floats, lowest: Floats,
) -> None:  # fmt: skip
    """values[block] = min(u, tau) / tau and lowest[block] = the block's smallest u in voxels."""
    one = np.float32(1)
    for task in prange(len(tasks) - 1):
        at, across = np.zeros(10, np.float32), np.zeros(448, np.float32)
        for block in range(tasks[task], tasks[task + 1]):
            best = values[block]
            best[:] = np.float32(3e38)
            centre = 8.0 * coords[block] + (4.0 - 0.5 * resolution)
            for pair in range(starts[block], starts[block + 1]):
                _add_triangle(frames[triangles[pair]], centre[0], centre[1], centre[2], reach, at, across, best)
            lowest[block] = np.sqrt(best.min())
            for k in range(512):
                value = np.sqrt(best[k]) * scale
                best[k] = value if value < one else one


def candidate_pairs(frames: Doubles, resolution: int, reach: float) -> tuple[Integers, Integers]:
    """Sorted Morton keys of the blocks (P,) and the triangle of each pair (P,)."""
    counts = np.zeros(len(frames), np.int64)
    _count(frames, resolution, reach, counts)
    first = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    keys, triangles = np.zeros(first[-1], np.int64), np.zeros(first[-1], np.int64)
    _fill(frames, resolution, reach, first, keys, triangles)
    packed = (keys << 32) | triangles  # unique numbers: numpy's vectorised sort orders 1M of them in 10 ms
    packed.sort()
    return packed >> 32, packed & 0xFFFFFFFF


def nearest(
    frames: Doubles, keys: Integers, triangles: Integers, resolution: int, truncation: float, activity: float
) -> tuple[Tensor, Tensor]:
    """Coordinates and values of the kept blocks from pairs sorted by block."""
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    coords = morton_decode(torch.from_numpy(keys[starts]))
    starts = np.append(starts, len(keys))
    tasks = np.searchsorted(starts, np.linspace(0, len(keys), _TASKS + 1)).astype(np.int64)
    values = torch.empty(len(coords), 512, dtype=torch.float32)
    lowest = np.zeros(len(coords), np.float32)
    _distances(
        frames, triangles, starts, coords.numpy(), tasks, resolution, max(truncation, activity) + CULL_SLACK,
        np.float32(1 / truncation), values.numpy(), lowest,
    )  # fmt: skip
    keep = torch.from_numpy(lowest < activity)
    return coords[keep], values[keep].reshape(-1, 8, 8, 8)


def udf_blocks(
    vertices: Tensor, faces: Tensor, resolution: int, truncation: float, activity: float
) -> tuple[Tensor, Tensor]:
    """Block coordinates (L, 3) int32 in Morton order and values (L, 8, 8, 8) float32; arguments as in the package."""
    frames = triangle_frames(vertices, faces, resolution).numpy()
    keys, triangles = candidate_pairs(frames, resolution, max(truncation, activity) + CULL_SLACK)
    return nearest(frames, keys, triangles, resolution, truncation, activity)
