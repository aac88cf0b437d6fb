"""The halo in two Triton kernels, both bound by bytes: one program a block, one lane a voxel, no atomics."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

SIDE = 8
SUM, MEAN, DIVIDE = 0, 1, 2


@triton.jit
def _gather_kernel(values: Any, neighbours: Any, out: Any, fill: Any, PAD: tl.constexpr, LANES: tl.constexpr) -> None:
    size: tl.constexpr = 8 + 2 * PAD
    total: tl.constexpr = size * size * size
    block = tl.program_id(0).to(tl.int64)  # block * total passes 2^31 from 1.2M blocks on
    lane = tl.arange(0, LANES)
    live = lane < total
    x = lane // (size * size) + (8 - PAD)  # eight more than the voxel's place in the block: never negative
    y = (lane // size) % size + (8 - PAD)
    z = lane % size + (8 - PAD)
    tap = (x // 8) * 9 + (y // 8) * 3 + z // 8
    row = tl.load(neighbours + block * 27 + tap, mask=live, other=-1).to(tl.int64)
    voxel = ((x % 8) * 8 + y % 8) * 8 + z % 8
    value = tl.load(values + row * 512 + voxel, mask=live & (row >= 0), other=fill)
    tl.store(out + block * total + lane, value, mask=live)


@triton.jit
def _collect_kernel(values: Any, neighbours: Any, out: Any, PAD: tl.constexpr, MODE: tl.constexpr) -> None:
    """MODE 0: sum over the padded blocks that cover a voxel, 1: their mean, 2: own value divided by their count."""
    size: tl.constexpr = 8 + 2 * PAD
    block = tl.program_id(0).to(tl.int64)
    voxel = tl.arange(0, 512)
    x, y, z = voxel // 64, (voxel // 8) % 8, voxel % 8
    # on one axis a voxel is covered by its own block and by at most one more (pad <= 3)
    side_x = tl.where(x < PAD, -1, tl.where(x >= 8 - PAD, 1, 0))
    side_y = tl.where(y < PAD, -1, tl.where(y >= 8 - PAD, 1, 0))
    side_z = tl.where(z < PAD, -1, tl.where(z >= 8 - PAD, 1, 0))
    total = tl.zeros([512], dtype=tl.float32)
    count = tl.zeros([512], dtype=tl.float32)
    for corner in tl.static_range(8):
        dx = side_x * (corner // 4)
        dy = side_y * ((corner // 2) % 2)
        dz = side_z * (corner % 2)
        # a side of 0 would count the own block twice
        live = (side_x != 0) | (corner // 4 == 0)
        live = live & ((side_y != 0) | ((corner // 2) % 2 == 0))
        live = live & ((side_z != 0) | (corner % 2 == 0))
        row = tl.load(neighbours + block * 27 + 13 + dx * 9 + dy * 3 + dz, mask=live, other=-1).to(tl.int64)
        live = live & (row >= 0)
        count += live.to(tl.float32)
        if MODE != 2:
            inside = ((x - 8 * dx + PAD) * size + (y - 8 * dy + PAD)) * size + (z - 8 * dz + PAD)
            total += tl.load(values + row * (size * size * size) + inside, mask=live, other=0.0).to(tl.float32)
    if MODE == 2:
        total = tl.load(values + block * 512 + voxel).to(tl.float32)
    if MODE != 0:
        total = total / count
    tl.store(out + block * 512 + voxel, total)


def gather(values: Tensor, neighbours: Tensor, pad: int, fill: float) -> Tensor:
    """As `reference.gather`."""
    size = SIDE + 2 * pad
    out = torch.empty((len(values), size, size, size), dtype=values.dtype, device=values.device)
    if len(values):
        lanes = triton.next_power_of_2(size**3)
        _gather_kernel[(len(values),)](
            values.contiguous(), neighbours.contiguous(), out, float(fill), pad, lanes, num_warps=8
        )
    return out


def _launch_collect(values: Tensor, neighbours: Tensor, pad: int, mode: int) -> Tensor:
    out = torch.empty((len(values), SIDE, SIDE, SIDE), dtype=torch.float32, device=values.device)
    if len(values):
        _collect_kernel[(len(values),)](values.contiguous(), neighbours.contiguous(), out, pad, mode, num_warps=4)
    return out


def collect(values: Tensor, neighbours: Tensor, pad: int, mean: bool) -> Tensor:
    """As `reference.collect`."""
    return _launch_collect(values, neighbours, pad, MEAN if mean else SUM)


def divide_by_cover(values: Tensor, neighbours: Tensor, pad: int) -> Tensor:
    """As `reference.divide_by_cover`."""
    return _launch_collect(values, neighbours, pad, DIVIDE)
