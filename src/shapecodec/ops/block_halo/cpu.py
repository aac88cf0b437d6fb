"""The halo on CPU cores: numba over blocks, rows of z copied whole. Numbers in bench/marching_cubes.py."""

from __future__ import annotations

import numba
import numpy as np
import torch
from torch import Tensor

SIDE = 8


@numba.njit(cache=True, parallel=True, nogil=True)
def _gather(values: np.ndarray, neighbours: np.ndarray, pad: int, fill: np.float32, out: np.ndarray) -> None:
    size = 8 + 2 * pad
    for block in numba.prange(len(out)):
        for a in range(size):
            x = a - pad + 8
            for b in range(size):
                y = b - pad + 8
                for side in range(3):
                    row = neighbours[block, (x // 8) * 9 + (y // 8) * 3 + side]
                    low, high = max(0, side * 8 - 8 + pad), min(size, side * 8 + pad)
                    for c in range(low, high):
                        if row < 0:
                            out[block, a, b, c] = fill
                        else:
                            out[block, a, b, c] = values[row, x % 8, y % 8, c - pad + 8 - side * 8]


@numba.njit(cache=True, nogil=True)
def _sides(place: int, pad: int) -> int:
    """The second block that covers this place on one axis: -1, 1, or 0 for none."""
    if place < pad:
        return -1
    return 1 if place >= 8 - pad else 0


@numba.njit(cache=True, parallel=True, nogil=True)
def _collect(values: np.ndarray, neighbours: np.ndarray, pad: int, mean: bool, out: np.ndarray) -> None:
    for block in numba.prange(len(out)):
        for x in range(8):
            for y in range(8):
                for z in range(8):
                    sx, sy, sz = _sides(x, pad), _sides(y, pad), _sides(z, pad)
                    total, count = np.float32(0.0), np.float32(0.0)
                    for i in range(1 + abs(sx)):
                        for j in range(1 + abs(sy)):
                            for k in range(1 + abs(sz)):
                                dx, dy, dz = i * sx, j * sy, k * sz
                                row = neighbours[block, 13 + dx * 9 + dy * 3 + dz]
                                if row >= 0:
                                    count += np.float32(1.0)
                                    total += values[row, x - 8 * dx + pad, y - 8 * dy + pad, z - 8 * dz + pad]
                    out[block, x, y, z] = total / count if mean else total


@numba.njit(cache=True, parallel=True, nogil=True)
def _divide(values: np.ndarray, neighbours: np.ndarray, pad: int, out: np.ndarray) -> None:
    for block in numba.prange(len(out)):
        for x in range(8):
            for y in range(8):
                for z in range(8):
                    sx, sy, sz = _sides(x, pad), _sides(y, pad), _sides(z, pad)
                    count = 0
                    for i in range(1 + abs(sx)):
                        for j in range(1 + abs(sy)):
                            for k in range(1 + abs(sz)):
                                count += neighbours[block, 13 + i * sx * 9 + j * sy * 3 + k * sz] >= 0
                    out[block, x, y, z] = values[block, x, y, z] / np.float32(count)


def _array(values: Tensor) -> np.ndarray:
    return values.detach().float().contiguous().numpy()


def _output(count: int, size: int) -> Tensor:
    return torch.empty((count, size, size, size), dtype=torch.float32)


def gather(values: Tensor, neighbours: Tensor, pad: int, fill: float) -> Tensor:
    """As `reference.gather`."""
    out = _output(len(values), SIDE + 2 * pad)
    _gather(_array(values), neighbours.contiguous().numpy(), pad, np.float32(fill), out.numpy())
    return out.to(values.dtype)


def collect(values: Tensor, neighbours: Tensor, pad: int, mean: bool) -> Tensor:
    """As `reference.collect`."""
    out = _output(len(values), SIDE)
    _collect(_array(values), neighbours.contiguous().numpy(), pad, mean, out.numpy())
    return out


def divide_by_cover(values: Tensor, neighbours: Tensor, pad: int) -> Tensor:
    """As `reference.divide_by_cover`."""
    out = _output(len(values), SIDE)
    _divide(_array(values), neighbours.contiguous().numpy(), pad, out.numpy())
    return out
