"""voxelise on the CPU with numba: the reference's axes and boxes, triangle by triangle on a few threads.

A triangle whose bounding box meets one voxel needs no axes; one that meets few voxels is tested on each; a large one walks
down boxes that are halved. Keys are sorted and made unique once per run of faces, so threads change no result.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import njit
from torch import Tensor

from shapecodec.ops.voxelise.reference import AXES, ROUNDING, SLACK

RUN = 1 << 14  # faces of a task
FEW = 64  # voxels that are tested one by one
_SEEN = 1 << 12  # recent keys that are not written again: neighbouring triangles share their voxels
_STACK = 1 << 10  # boxes waiting: at most 64 at the start (see `_start_level`) and 7 more a level


@njit(cache=True, nogil=True)
def _spread_bits(v: int) -> int:
    """Twenty bits to every third bit."""
    v = (v | (v << 32)) & 0x1F00000000FFFF
    v = (v | (v << 16)) & 0x1F0000FF0000FF
    v = (v | (v << 8)) & 0x100F00F00F00F00F
    v = (v | (v << 4)) & 0x10C30C30C30C30C3
    return (v | (v << 2)) & 0x1249249249249249


@njit(cache=True, nogil=True)
def _write_axes(p: np.ndarray, table: np.ndarray) -> None:
    """`reference.axes` of one triangle p (3, 3)."""
    largest = 0.0
    for k in range(3):
        for c in range(3):
            largest = max(largest, abs(p[k, c]))
    slack = SLACK + ROUNDING * largest
    for a in range(AXES):
        if a == 0:
            ux, uy, uz = p[1, 0] - p[0, 0], p[1, 1] - p[0, 1], p[1, 2] - p[0, 2]
            vx, vy, vz = p[2, 0] - p[1, 0], p[2, 1] - p[1, 1], p[2, 2] - p[1, 2]
            x, y, z = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        else:
            k, c = (a - 1) % 3, (a - 1) // 3
            n = (k + 1) % 3
            ex, ey, ez = p[n, 0] - p[k, 0], p[n, 1] - p[k, 1], p[n, 2] - p[k, 2]
            x, y, z = (0.0, -ez, ey) if c == 0 else ((ez, 0.0, -ex) if c == 1 else (-ey, ex, 0.0))
        length = max(np.sqrt(x * x + y * y + z * z), 1e-300)
        x, y, z = x / length, y / length, z / length
        table[a, 0], table[a, 1], table[a, 2] = x, y, z
        low, high = np.inf, -np.inf
        for k in range(3):
            place = x * p[k, 0] + y * p[k, 1] + z * p[k, 2]
            low, high = min(low, place), max(high, place)
        table[a, 3], table[a, 4] = low - slack, high + slack


@njit(cache=True, nogil=True)
def _touches(table: np.ndarray, x: float, y: float, z: float, half: float) -> bool:
    """Whether the box of centre x, y, z overlaps on all ten axes."""
    for a in range(AXES):
        place = table[a, 0] * x + table[a, 1] * y + table[a, 2] * z
        radius = half * (abs(table[a, 0]) + abs(table[a, 1]) + abs(table[a, 2]))
        if place + radius < table[a, 3] or place - radius > table[a, 4]:
            return False
    return True


@njit(cache=True, nogil=True)
def _range(p: np.ndarray, size: int, resolution: int, reach: float, box: np.ndarray) -> int:
    """`reference.node_ranges` of one triangle into box (6,): first, then last; returns the number of boxes."""
    count = 1
    for c in range(3):
        low, high = min(p[0, c], min(p[1, c], p[2, c])), max(p[0, c], max(p[1, c], p[2, c]))
        most = (resolution - 1) // size
        first = min(max(np.ceil((low - reach - SLACK) / size - 1), 0.0), most + 1.0)
        last = min(max(np.floor((high + reach + SLACK) / size), -1.0), float(most))
        box[c], box[3 + c] = int(first), int(last)
        count *= max(box[3 + c] - box[c] + 1, 0)
    return count


@njit(cache=True, nogil=True)
def _inside(p: np.ndarray, resolution: int) -> bool:
    for k in range(3):
        for c in range(3):
            if p[k, c] < 0.0 or p[k, c] > resolution:
                return False
    return True


@njit(cache=True, nogil=True)
def _emit(x: int, y: int, z: int, keys: np.ndarray, count: int, seen: np.ndarray) -> int:
    """Append a key unless it was seen lately; `keys` has room. Returns the new count."""
    key = (_spread_bits(x) << 2) | (_spread_bits(y) << 1) | _spread_bits(z)
    slot = (key ^ (key >> 12)) & (_SEEN - 1)
    if seen[slot] == key:
        return count
    seen[slot] = key
    keys[count] = key
    return count + 1


@njit(cache=True, nogil=True)
def _grown(keys: np.ndarray, count: int, more: int) -> np.ndarray:
    """The same keys with room for `more` beyond `count`."""
    if count + more <= len(keys):
        return keys
    wider = np.zeros(max(2 * len(keys), count + more), np.int64)
    wider[:count] = keys[:count]
    return wider


@njit(cache=True, nogil=True)
def _walk(
    p: np.ndarray, table: np.ndarray, resolution: int, reach: float, keys: np.ndarray, count: int,
    seen: np.ndarray, stack: np.ndarray, box: np.ndarray,
) -> tuple[np.ndarray, int]:  # fmt: skip
    """All voxels of a large triangle: boxes that hold it, those that overlap halved down to one voxel."""
    level = 0
    while _range(p, 1 << level, resolution, reach, box) > FEW:
        level += 1
    depth = 0
    for x in range(box[0], box[3] + 1):
        for y in range(box[1], box[4] + 1):
            for z in range(box[2], box[5] + 1):
                stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3] = level, x, y, z
                depth += 1
    while depth > 0:
        depth -= 1
        level, x, y, z = stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3]
        size = 1 << level
        if not _touches(table, (x + 0.5) * size, (y + 0.5) * size, (z + 0.5) * size, size * 0.5 + reach):
            continue
        if level == 0:
            keys = _grown(keys, count, 1)
            count = _emit(x, y, z, keys, count, seen)
            continue
        _range(p, size >> 1, resolution, reach, box)
        for i in range(max(box[0], 2 * x), min(box[3], 2 * x + 1) + 1):
            for j in range(max(box[1], 2 * y), min(box[4], 2 * y + 1) + 1):
                for k in range(max(box[2], 2 * z), min(box[5], 2 * z + 1) + 1):
                    stack[depth, 0], stack[depth, 1], stack[depth, 2], stack[depth, 3] = level - 1, i, j, k
                    depth += 1
    return keys, count


@njit(cache=True, nogil=True)
def _keys(vertices: np.ndarray, faces: np.ndarray, start: int, end: int, resolution: int, reach: float) -> np.ndarray:
    """Morton keys of the faces from `start` to `end`, with some repeats, in no order."""
    keys, count = np.zeros(4 * (end - start), np.int64), 0
    seen, stack = np.full(_SEEN, -1, np.int64), np.zeros((_STACK, 4), np.int64)
    p, table, box = np.zeros((3, 3)), np.zeros((AXES, 5)), np.zeros(6, np.int64)
    for f in range(start, end):
        for k in range(3):
            for c in range(3):
                p[k, c] = (np.float64(vertices[faces[f, k], c]) + 0.5) * resolution
        voxels = _range(p, 1, resolution, reach, box)
        if voxels == 0:
            continue
        if voxels == 1 and _inside(p, resolution):
            keys = _grown(keys, count, 1)
            count = _emit(box[0], box[1], box[2], keys, count, seen)
            continue
        _write_axes(p, table)
        if voxels > FEW:
            keys, count = _walk(p, table, resolution, reach, keys, count, seen, stack, box)
            continue
        keys = _grown(keys, count, voxels)
        for x in range(box[0], box[3] + 1):
            for y in range(box[1], box[4] + 1):
                for z in range(box[2], box[5] + 1):
                    if _touches(table, x + 0.5, y + 0.5, z + 0.5, 0.5 + reach):
                        count = _emit(x, y, z, keys, count, seen)
    return keys[:count]


def touched_keys(vertices: Tensor, faces: Tensor, resolution: int, reach: float) -> Tensor:
    """See `reference.touched_keys`."""
    starts = range(0, len(faces), RUN)
    source = vertices.double() if vertices.dtype not in (torch.float32, torch.float64) else vertices
    arrays = source.contiguous().numpy(), faces.contiguous().numpy()

    def run(start: int) -> Tensor:
        found = _keys(*arrays, start, min(start + RUN, len(faces)), resolution, float(reach))
        return torch.unique(torch.from_numpy(found))

    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        keys = list(pool.map(run, starts))
    return torch.unique(torch.cat([faces.new_zeros(0), *keys]))
