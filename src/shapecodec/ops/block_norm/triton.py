"""Triton twins: one program a cube for the norm (two passes, the second out of the cache), one a tile of outputs for the pool."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 4096  # elements a program holds at a time


@triton.jit
def _spread(per_group: tl.tensor, G: tl.constexpr, C: tl.constexpr) -> tl.tensor:
    return tl.reshape(tl.broadcast_to(per_group[:, None], (G, C // G)), (C,))


@triton.jit
def _group_mean(per_channel: tl.tensor, G: tl.constexpr, C: tl.constexpr, V: tl.constexpr) -> tl.tensor:
    return tl.sum(tl.reshape(per_channel, (G, C // G)), 1) / (V * (C // G))


@triton.jit
def _norm_forward(
    x: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    y: tl.tensor,
    mean: tl.tensor,
    rstd: tl.tensor,
    eps: tl.tensor,
    V: tl.constexpr,
    C: tl.constexpr,
    G: tl.constexpr,
    RELU: tl.constexpr,
    BV: tl.constexpr,
) -> None:
    cube = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, C)
    total = tl.zeros((C,), tl.float32)
    square = tl.zeros((C,), tl.float32)
    for first in range(0, V, BV):
        v = first + tl.arange(0, BV)
        here = cube * V * C + v[:, None] * C + c[None, :]
        value = tl.load(x + here, mask=(v < V)[:, None], other=0.0).to(tl.float32)
        if RELU:
            value = tl.maximum(value, 0.0)
        total += tl.sum(value, 0)
        square += tl.sum(value * value, 0)
    group_mean = _group_mean(total, G, C, V)
    variance = tl.maximum(_group_mean(square, G, C, V) - group_mean * group_mean, 0.0)
    group_rstd = 1.0 / tl.sqrt(variance + eps)
    g = tl.arange(0, G)
    tl.store(mean + cube * G + g, group_mean)
    tl.store(rstd + cube * G + g, group_rstd)
    scale = _spread(group_rstd, G, C) * tl.load(weight + c)
    shift = tl.load(bias + c) - _spread(group_mean, G, C) * scale
    for first in range(0, V, BV):
        v = first + tl.arange(0, BV)
        here = cube * V * C + v[:, None] * C + c[None, :]
        value = tl.load(x + here, mask=(v < V)[:, None], other=0.0).to(tl.float32)
        if RELU:
            value = tl.maximum(value, 0.0)
        tl.store(y + here, (value * scale[None, :] + shift[None, :]).to(y.dtype.element_ty), mask=(v < V)[:, None])


@triton.jit
def _norm_backward(
    x: tl.tensor, dy: tl.tensor, weight: tl.tensor, mean: tl.tensor, rstd: tl.tensor,
    dx: tl.tensor, dweight: tl.tensor, dbias: tl.tensor,
    V: tl.constexpr, C: tl.constexpr, G: tl.constexpr, RELU: tl.constexpr, BV: tl.constexpr,
) -> None:  # fmt: skip
    cube = tl.program_id(0).to(tl.int64)
    c = tl.arange(0, C)
    g = tl.arange(0, G)
    m = _spread(tl.load(mean + cube * G + g), G, C)
    r = _spread(tl.load(rstd + cube * G + g), G, C)
    gain = tl.load(weight + c)
    sum_dy = tl.zeros((C,), tl.float32)
    sum_dyx = tl.zeros((C,), tl.float32)
    for first in range(0, V, BV):
        v = first + tl.arange(0, BV)
        here = cube * V * C + v[:, None] * C + c[None, :]
        value = tl.load(x + here, mask=(v < V)[:, None], other=0.0).to(tl.float32)
        if RELU:
            value = tl.maximum(value, 0.0)
        grad = tl.load(dy + here, mask=(v < V)[:, None], other=0.0).to(tl.float32)
        sum_dy += tl.sum(grad, 0)
        sum_dyx += tl.sum(grad * ((value - m[None, :]) * r[None, :]), 0)
    tl.store(dbias + cube * C + c, sum_dy)
    tl.store(dweight + cube * C + c, sum_dyx)
    mean_g = _spread(_group_mean(sum_dy * gain, G, C, V), G, C)
    mean_gx = _spread(_group_mean(sum_dyx * gain, G, C, V), G, C)
    for first in range(0, V, BV):
        v = first + tl.arange(0, BV)
        here = cube * V * C + v[:, None] * C + c[None, :]
        raw = tl.load(x + here, mask=(v < V)[:, None], other=0.0).to(tl.float32)
        value = raw
        if RELU:
            value = tl.maximum(raw, 0.0)
        grad = tl.load(dy + here, mask=(v < V)[:, None], other=0.0).to(tl.float32)
        normed = (value - m[None, :]) * r[None, :]
        out = r[None, :] * (grad * gain[None, :] - mean_g[None, :] - normed * mean_gx[None, :])
        if RELU:
            out = tl.where(raw > 0.0, out, 0.0)
        tl.store(dx + here, out.to(dx.dtype.element_ty), mask=(v < V)[:, None])


class _ReluGroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, relu: bool) -> Tensor:
        voxels, channels = x.shape[1] ** 3, x.shape[-1]
        y = torch.empty_like(x)
        mean = torch.zeros(len(x), groups, device=x.device)
        rstd = torch.zeros_like(mean)
        ctx.shape = {"V": voxels, "C": channels, "G": groups, "RELU": relu, "BV": _voxels(voxels, channels)}
        if len(x):
            _norm_forward[(len(x),)](x, weight, bias, y, mean, rstd, eps, **ctx.shape, num_warps=4)
        ctx.save_for_backward(x, weight, mean, rstd)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        dx = torch.empty_like(x)
        dweight, dbias = torch.zeros(2, len(x), x.shape[-1], device=x.device)
        if len(x):
            _norm_backward[(len(x),)](
                x, dy.contiguous(), weight, mean, rstd, dx, dweight, dbias, **ctx.shape, num_warps=4
            )
        return dx, dweight.sum(0), dbias.sum(0), None, None, None


def _voxels(voxels: int, channels: int) -> int:
    return min(triton.next_power_of_2(voxels), max(TILE // channels, 1))


def relu_group_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, relu: bool) -> Tensor:
    """Triton twin of the reference; C must be a power of two."""
    return _ReluGroupNorm.apply(x.contiguous(), weight.float(), bias.float(), groups, eps, relu)


@triton.jit
def _corner(
    tile: tl.tensor, corner: tl.constexpr, count: tl.tensor, S: tl.constexpr, H: tl.constexpr, C: tl.constexpr
) -> tl.tensor:
    """Element offset, in the input, of one of the eight voxels that pool into each output element."""
    c = tile % C
    z = (tile // C) % H
    y = (tile // (C * H)) % H
    x = (tile // (C * H * H)) % H
    cube = tile // (C * H * H * H)
    return (((cube * S + 2 * x + corner // 4) * S + 2 * y + (corner // 2) % 2) * S + 2 * z + corner % 2) * C + c


@triton.jit
def _pool_forward(
    x: tl.tensor,
    y: tl.tensor,
    which: tl.tensor,
    count: tl.tensor,
    S: tl.constexpr,
    H: tl.constexpr,
    C: tl.constexpr,
    B: tl.constexpr,
) -> None:
    tile = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = tile < count
    best = tl.zeros((B,), tl.float32)  # relu: nothing below zero wins
    first = tl.full((B,), 8, tl.int32)
    for corner in tl.static_range(8):
        value = tl.load(x + _corner(tile, corner, count, S, H, C), mask=live, other=0.0).to(tl.float32)
        first = tl.where(value > best, corner, first)
        best = tl.maximum(best, value)
    tl.store(y + tile, best.to(y.dtype.element_ty), mask=live)
    tl.store(which + tile, first.to(tl.uint8), mask=live)


@triton.jit
def _pool_backward(
    dy: tl.tensor,
    which: tl.tensor,
    dx: tl.tensor,
    count: tl.tensor,
    S: tl.constexpr,
    H: tl.constexpr,
    C: tl.constexpr,
    B: tl.constexpr,
) -> None:
    tile = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = tile < count
    grad = tl.load(dy + tile, mask=live, other=0.0)
    first = tl.load(which + tile, mask=live, other=8).to(tl.int32)
    for corner in tl.static_range(8):
        tl.store(dx + _corner(tile, corner, count, S, H, C), tl.where(first == corner, grad, 0.0), mask=live)


class _ReluMaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        cubes, size, channels = len(x), x.shape[1], x.shape[-1]
        half = size // 2
        y = x.new_zeros(cubes, half, half, half, channels)
        which = torch.zeros(y.shape, dtype=torch.uint8, device=x.device)
        if y.numel():
            grid = (triton.cdiv(y.numel(), 1024),)
            _pool_forward[grid](x, y, which, y.numel(), S=size, H=half, C=channels, B=1024)
        ctx.save_for_backward(which)
        ctx.shape = x.shape
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        (which,) = ctx.saved_tensors
        size = ctx.shape[1]
        dx = dy.new_zeros(ctx.shape)  # an odd last plane gets nothing
        if dy.numel():
            grid = (triton.cdiv(dy.numel(), 1024),)
            _pool_backward[grid](dy.contiguous(), which, dx, dy.numel(), S=size, H=size // 2, C=ctx.shape[-1], B=1024)
        return dx


def relu_max_pool(x: Tensor) -> Tensor:
    """Triton twin of the reference."""
    return _ReluMaxPool.apply(x.contiguous())


@triton.jit
def _head_forward(
    x: tl.tensor, weight: tl.tensor, bias: tl.tensor, out: tl.tensor, count: tl.tensor, C: tl.constexpr, B: tl.constexpr
) -> None:
    v = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    c = tl.arange(0, C)
    value = tl.load(x + v[:, None] * C + c[None, :], mask=(v < count)[:, None], other=0.0).to(tl.float32)
    total = tl.sum(tl.maximum(value, 0.0) * tl.load(weight + c)[None, :], 1) + tl.load(bias)
    tl.store(out + v, total, mask=v < count)


@triton.jit
def _head_backward(
    x: tl.tensor,
    weight: tl.tensor,
    dout: tl.tensor,
    dx: tl.tensor,
    partial: tl.tensor,
    count: tl.tensor,
    C: tl.constexpr,
    B: tl.constexpr,
) -> None:
    v = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    c = tl.arange(0, C)
    here = v[:, None] * C + c[None, :]
    value = tl.load(x + here, mask=(v < count)[:, None], other=0.0).to(tl.float32)
    grad = tl.load(dout + v, mask=v < count, other=0.0)
    out = tl.where(value > 0.0, grad[:, None] * tl.load(weight + c)[None, :], 0.0)
    tl.store(dx + here, out.to(dx.dtype.element_ty), mask=(v < count)[:, None])
    tl.store(partial + tl.program_id(0) * C + c, tl.sum(tl.maximum(value, 0.0) * grad[:, None], 0))


class _ReluHead(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        out = torch.zeros(x.shape[:-1], device=x.device)
        ctx.save_for_backward(x, weight)
        if out.numel():
            grid = (triton.cdiv(out.numel(), 256),)
            _head_forward[grid](x, weight, bias, out, out.numel(), C=x.shape[-1], B=256)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        dx, count = torch.empty_like(x), dout.numel()
        programs = triton.cdiv(count, 256)
        partial = torch.zeros(programs, x.shape[-1], device=x.device)
        if count:
            _head_backward[(programs,)](x, weight, dout.contiguous(), dx, partial, count, C=x.shape[-1], B=256)
        return dx, partial.sum(0), dout.sum()


def relu_head(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Triton twin of the reference."""
    return _ReluHead.apply(x.contiguous(), weight.float().contiguous(), bias.float())
