"""Triton twin: a program a cube, plain float32 arithmetic; the cube's 7 KB stay in the cache.

Gathering columns for tensor cores was 6 times slower (0.73 us a cube of 12^3 x 32 on an H100): a scattered load for
every element of a column.
The indicator's part depends on a voxel only through which faces of the cube it touches, one of 27 classes.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _place(side: tl.tensor, S: tl.constexpr) -> tl.tensor:
    """0 at the first voxel of a line, 2 at the last, else 1."""
    return 1 - (side == 0).to(tl.int32) + (side == S - 1).to(tl.int32)


@triton.jit
def _tap_product(
    field: tl.tensor,
    other: tl.tensor,
    v: tl.tensor,
    x: tl.tensor,
    y: tl.tensor,
    z: tl.tensor,
    live: tl.tensor,
    dx: tl.tensor,
    dy: tl.constexpr,
    dz: tl.constexpr,
    S: tl.constexpr,
) -> tl.tensor:
    inside = live & (x + dx >= 0) & (x + dx < S) & (y + dy >= 0) & (y + dy < S) & (z + dz >= 0) & (z + dz < S)
    value = tl.load(field + v + (dx * S + dy) * S + dz, mask=inside, other=0.0)
    return value[:, None] * other


@triton.jit
def _forward(
    field: tl.tensor,
    stencil: tl.tensor,
    table: tl.tensor,
    out: tl.tensor,
    S: tl.constexpr,
    CO: tl.constexpr,
    BV: tl.constexpr,
) -> None:
    cube = tl.program_id(0).to(tl.int64)
    o = tl.arange(0, CO)
    field += cube * (S * S * S)
    stencil += cube * (27 * CO)
    table += cube * (27 * CO)
    out += cube * (S * S * S * CO)
    for first in range(0, S * S * S, BV):
        v = first + tl.arange(0, BV)
        live = v < S * S * S
        x = v // (S * S)
        y = (v // S) % S
        z = v % S
        place = _place(x, S) * 9 + _place(y, S) * 3 + _place(z, S)
        acc = tl.load(table + place[:, None] * CO + o[None, :], mask=live[:, None], other=0.0)
        for t in tl.static_range(27):
            weight = tl.load(stencil + t * CO + o)[None, :]
            acc += _tap_product(field, weight, v, x, y, z, live, t // 9 - 1, (t // 3) % 3 - 1, t % 3 - 1, S)
        tl.store(out + v[:, None] * CO + o[None, :], acc.to(out.dtype.element_ty), mask=live[:, None])


@triton.jit
def _backward(
    field: tl.tensor, dy: tl.tensor, dstencil: tl.tensor, S: tl.constexpr, CO: tl.constexpr, BV: tl.constexpr
) -> None:
    cube = tl.program_id(0).to(tl.int64)
    dx = tl.program_id(1) - 1  # nine taps a program: their sums fit into registers
    o = tl.arange(0, CO)
    field += cube * (S * S * S)
    dy += cube * (S * S * S * CO)
    a0 = tl.zeros((BV, CO), tl.float32)
    a1 = tl.zeros((BV, CO), tl.float32)
    a2 = tl.zeros((BV, CO), tl.float32)
    a3 = tl.zeros((BV, CO), tl.float32)
    a4 = tl.zeros((BV, CO), tl.float32)
    a5 = tl.zeros((BV, CO), tl.float32)
    a6 = tl.zeros((BV, CO), tl.float32)
    a7 = tl.zeros((BV, CO), tl.float32)
    a8 = tl.zeros((BV, CO), tl.float32)
    for first in range(0, S * S * S, BV):
        v = first + tl.arange(0, BV)
        live = v < S * S * S
        x = v // (S * S)
        y = (v // S) % S
        z = v % S
        grad = tl.load(dy + v[:, None] * CO + o[None, :], mask=live[:, None], other=0.0).to(tl.float32)
        a0 += _tap_product(field, grad, v, x, y, z, live, dx, -1, -1, S)
        a1 += _tap_product(field, grad, v, x, y, z, live, dx, -1, 0, S)
        a2 += _tap_product(field, grad, v, x, y, z, live, dx, -1, 1, S)
        a3 += _tap_product(field, grad, v, x, y, z, live, dx, 0, -1, S)
        a4 += _tap_product(field, grad, v, x, y, z, live, dx, 0, 0, S)
        a5 += _tap_product(field, grad, v, x, y, z, live, dx, 0, 1, S)
        a6 += _tap_product(field, grad, v, x, y, z, live, dx, 1, -1, S)
        a7 += _tap_product(field, grad, v, x, y, z, live, dx, 1, 0, S)
        a8 += _tap_product(field, grad, v, x, y, z, live, dx, 1, 1, S)
    place = dstencil + (cube * 27 + (dx + 1) * 9) * CO + o
    tl.store(place, tl.sum(a0, 0))
    tl.store(place + CO, tl.sum(a1, 0))
    tl.store(place + 2 * CO, tl.sum(a2, 0))
    tl.store(place + 3 * CO, tl.sum(a3, 0))
    tl.store(place + 4 * CO, tl.sum(a4, 0))
    tl.store(place + 5 * CO, tl.sum(a5, 0))
    tl.store(place + 6 * CO, tl.sum(a6, 0))
    tl.store(place + 7 * CO, tl.sum(a7, 0))
    tl.store(place + 8 * CO, tl.sum(a8, 0))


@lru_cache(maxsize=16)
def _classes(size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Which taps lie inside the cube for each class of voxels (27, 27), and which voxels each class has (27, S^3), as 0 and 1."""
    side = torch.arange(size, device=device)
    place = 1 - (side == 0).long() + (side == size - 1).long()
    voxels = (place[:, None, None] * 9 + place[:, None] * 3 + place).flatten()
    third = torch.tensor([[0, 1, 1], [1, 1, 1], [1, 1, 0]], device=device)  # place, offset + 1
    inside = torch.einsum("ai,bj,ck->abcijk", third, third, third).reshape(27, 27)
    return inside.float(), (torch.arange(27, device=device)[:, None] == voxels).float()


class _FieldConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, field: Tensor, on_field: Tensor, on_inside: Tensor, dtype: torch.dtype) -> Tensor:
        size, channels = field.shape[1], on_field.shape[2]
        out = torch.zeros(0, dtype=dtype, device=field.device)
        out = out.new_empty(len(field), size, size, size, channels)
        table = torch.matmul(_classes(size, field.device)[0], on_inside)
        if len(field):
            _forward[(len(field),)](field, on_field, table, out, S=size, CO=channels, BV=128, num_warps=4)
        ctx.save_for_backward(field)
        ctx.channels = channels
        return out

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[None, Tensor, Tensor, None]:
        (field,) = ctx.saved_tensors
        size, dy = field.shape[1], dy.contiguous()
        on_field = torch.zeros(len(field), 27, ctx.channels, device=field.device)
        if len(field):
            _backward[(len(field), 3)](field, dy, on_field, S=size, CO=ctx.channels, BV=32, num_warps=4)
        inside, members = _classes(size, field.device)
        table = torch.matmul(members.to(dy.dtype), dy.flatten(1, 3)).float()
        return None, on_field, torch.matmul(inside.T, table), None


def field_conv(field: Tensor, on_field: Tensor, on_inside: Tensor, dtype: torch.dtype) -> Tensor:
    """Triton twin of the reference; C' must be a power of two."""
    return _FieldConv.apply(field.contiguous(), on_field.contiguous(), on_inside.contiguous(), dtype)
