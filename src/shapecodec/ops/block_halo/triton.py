"""The halo in two Triton kernels, both bound by bytes: one lane a voxel, no atomics."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

SIDE = 8
SUM, MEAN, DIVIDE = 0, 1, 2


@triton.jit(do_not_specialize=["count"])  # else a compilation for each divisibility by 16
def _gather_kernel(
    values: tl.tensor,
    neighbours: tl.tensor,
    out: tl.tensor,
    count: tl.tensor,
    fill: tl.tensor,
    PAD: tl.constexpr,
    LANES: tl.constexpr,
    BLOCKS: tl.constexpr,
) -> None:
    size: tl.constexpr = 8 + 2 * PAD
    total: tl.constexpr = size * size * size
    # int64: block * total passes 2^31 from 1.2M blocks on
    block = (tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS))[:, None]
    lane = tl.arange(0, LANES)[None, :]
    live = (block < count) & (lane < total)
    x = lane // (size * size) + (8 - PAD)  # eight more than the voxel's place in the block: never negative
    y = (lane // size) % size + (8 - PAD)
    z = lane % size + (8 - PAD)
    tap = (x // 8) * 9 + (y // 8) * 3 + z // 8
    row = tl.load(neighbours + block * 27 + tap, mask=live, other=-1).to(tl.int64)
    voxel = ((x % 8) * 8 + y % 8) * 8 + z % 8
    value = tl.load(values + row * 512 + voxel, mask=live & (row >= 0), other=fill)
    tl.store(out + block * total + lane, value, mask=live)


@triton.jit(do_not_specialize=["count"])
def _collect_kernel(
    values: tl.tensor,
    neighbours: tl.tensor,
    out: tl.tensor,
    count: tl.tensor,
    PAD: tl.constexpr,
    MODE: tl.constexpr,
    BLOCKS: tl.constexpr,
) -> None:
    """MODE 0: sum over the padded blocks that cover a voxel, 1: their mean, 2: own value divided by their count."""
    size: tl.constexpr = 8 + 2 * PAD
    block = (tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS))[:, None]
    voxel = tl.arange(0, 512)[None, :]
    exists = block < count
    x, y, z = voxel // 64, (voxel // 8) % 8, voxel % 8
    # on one axis a voxel is covered by its own block and by at most one more, because pad <= 3
    side_x = tl.where(x < PAD, -1, tl.where(x >= 8 - PAD, 1, 0))
    side_y = tl.where(y < PAD, -1, tl.where(y >= 8 - PAD, 1, 0))
    side_z = tl.where(z < PAD, -1, tl.where(z >= 8 - PAD, 1, 0))
    total = tl.zeros([BLOCKS, 512], dtype=tl.float32)
    covers = tl.zeros([BLOCKS, 512], dtype=tl.float32)
    for corner in tl.static_range(8):
        dx = side_x * (corner // 4)
        dy = side_y * ((corner // 2) % 2)
        dz = side_z * (corner % 2)
        live = exists & (voxel >= 0)
        if corner // 4 == 1:
            live = live & (side_x != 0)  # a side of 0 would be the own block again
        if (corner // 2) % 2 == 1:
            live = live & (side_y != 0)
        if corner % 2 == 1:
            live = live & (side_z != 0)
        row = tl.load(neighbours + block * 27 + 13 + dx * 9 + dy * 3 + dz, mask=live, other=-1).to(tl.int64)
        live = live & (row >= 0)
        covers += live.to(tl.float32)
        if MODE != 2:
            place = ((x - 8 * dx + PAD) * size + (y - 8 * dy + PAD)) * size + (z - 8 * dz + PAD)
            total += tl.load(values + row * (size * size * size) + place, mask=live, other=0.0).to(tl.float32)
    if MODE == 2:
        total = tl.load(values + block * 512 + voxel, mask=exists, other=0.0).to(tl.float32)
    if MODE != 0:
        total = total / tl.maximum(covers, 1.0)
    tl.store(out + block * 512 + voxel, total, mask=exists)


def _blocks_a_program(values: Tensor) -> int:
    """One on a GPU; several under the interpreter, where the number of programs is what costs."""
    return 1 if values.is_cuda else 8


def gather(values: Tensor, neighbours: Tensor, pad: int, fill: float) -> Tensor:
    """As `reference.gather`."""
    size, count, width = SIDE + 2 * pad, len(values), _blocks_a_program(values)
    out = torch.empty((count, size, size, size), dtype=values.dtype, device=values.device)
    if count:
        _gather_kernel[(triton.cdiv(count, width),)](
            values.contiguous(),
            neighbours.contiguous(),
            out,
            count,
            float(fill),
            PAD=pad,
            LANES=triton.next_power_of_2(size**3),
            BLOCKS=width,
            num_warps=8,
        )
    return out


def _launch_collect(values: Tensor, neighbours: Tensor, pad: int, mode: int) -> Tensor:
    count, width = len(values), _blocks_a_program(values)
    out = torch.empty((count, SIDE, SIDE, SIDE), dtype=torch.float32, device=values.device)
    if count:
        _collect_kernel[(triton.cdiv(count, width),)](
            values.contiguous(), neighbours.contiguous(), out, count, PAD=pad, MODE=mode, BLOCKS=width, num_warps=4
        )
    return out


def collect(values: Tensor, neighbours: Tensor, pad: int, mean: bool) -> Tensor:
    """As `reference.collect`."""
    return _launch_collect(values, neighbours, pad, MEAN if mean else SUM)


def divide_by_cover(values: Tensor, neighbours: Tensor, pad: int) -> Tensor:
    """As `reference.divide_by_cover`."""
    return _launch_collect(values, neighbours, pad, DIVIDE)
