"""Block convolutions as banded matrix products on tensor cores (see banding.py), forward and both gradients.

Why: cuDNN's small-channel 3D convolutions reach a fifth of an H100 (153 of 801 TFLOP/s forward at 32 channels of 12^3, in their
best layout: docs/results/data/block_conv.json). Cubes of up to 4^3 voxels go
through one dense product of the library's (a 3^3 convolution of a 3^3 or 4^3 cube joins almost every pair of voxels anyway).
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from shapecodec.ops.block_conv import banding
from shapecodec.ops.block_conv.banding import Band

ROWS = 128  # rows of a tile
SPLITS = 64  # partial sums of a weight gradient, added in a fixed order


@triton.jit
def _gather_rows(
    rows: tl.tensor, live: tl.tensor, px: tl.tensor, py: tl.tensor, tap: tl.tensor, kk: tl.tensor,
    S: tl.constexpr, C: tl.constexpr, R: tl.constexpr, NZB: tl.constexpr, TX: tl.constexpr, STRIDE: tl.constexpr,
    FIRST: tl.constexpr, ZSTEP: tl.constexpr, ZFIRST: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:  # fmt: skip
    """Element offsets (BM, BK) of one tap's window, and which of them lie inside the cube."""
    zb = rows % NZB
    oy = (rows // NZB) % R
    ox = (rows // (NZB * R)) % R
    cube = (rows // (NZB * R * R)).to(tl.int64)
    ix = STRIDE * ox + px + FIRST + tap // TX
    iy = STRIDE * oy + py + FIRST + tap % TX
    z0 = ZSTEP * zb + ZFIRST
    z = z0[:, None] + (kk // C)[None, :]
    inside = (live & (ix >= 0) & (ix < S) & (iy >= 0) & (iy < S))[:, None] & (z >= 0) & (z < S)
    start = cube * (S * S * S * C) + ((ix * S + iy) * S + z0) * C
    return start[:, None] + kk[None, :], inside


@triton.jit
def _out_offsets(
    rows: tl.tensor,
    px: tl.tensor,
    py: tl.tensor,
    n: tl.tensor,
    R: tl.constexpr,
    NZB: tl.constexpr,
    PAR: tl.constexpr,
    N: tl.constexpr,
) -> tl.tensor:
    zb = rows % NZB
    oy = (rows // NZB) % R
    ox = (rows // (NZB * R)) % R
    cube = (rows // (NZB * R * R)).to(tl.int64)
    line = (cube * (R * PAR) + (PAR * ox + px)) * (R * PAR) + (PAR * oy + py)
    return (line * (NZB * N) + zb * N)[:, None] + n[None, :]


@triton.jit
def _forward(
    x: tl.tensor, w: tl.tensor, bias: tl.tensor, y: tl.tensor, count: tl.tensor,
    S: tl.constexpr, C: tl.constexpr, R: tl.constexpr, NZB: tl.constexpr, PAR: tl.constexpr, TX: tl.constexpr,
    STRIDE: tl.constexpr, FIRST: tl.constexpr, ZSTEP: tl.constexpr, ZFIRST: tl.constexpr, K: tl.constexpr, N: tl.constexpr,
    CO: tl.constexpr, HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
) -> None:  # fmt: skip
    parity = tl.program_id(2)
    px = parity // PAR
    py = parity % PAR
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    live = rows < count
    n = tl.program_id(1) * BN + tl.arange(0, BN)
    k = tl.arange(0, BK)
    acc = tl.zeros((BM, BN), tl.float32)
    for step in range(TX * TX * (K // BK)):
        tap = step // (K // BK)
        kk = (step % (K // BK)) * BK + k
        where, inside = _gather_rows(rows, live, px, py, tap, kk, S, C, R, NZB, TX, STRIDE, FIRST, ZSTEP, ZFIRST)
        a = tl.load(x + where, mask=inside, other=0.0)
        b = tl.load(w + ((parity * TX * TX + tap) * K + kk)[:, None] * N + n[None, :])
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    if HAS_BIAS:
        acc += tl.load(bias + n % CO).to(tl.float32)[None, :]
    place = _out_offsets(rows, px, py, n, R, NZB, PAR, N)
    tl.store(y + place, acc.to(y.dtype.element_ty), mask=live[:, None])


@triton.jit
def _weight_gradient(
    x: tl.tensor, dy: tl.tensor, partial: tl.tensor, count: tl.tensor, per_split: tl.tensor,
    S: tl.constexpr, C: tl.constexpr, R: tl.constexpr, NZB: tl.constexpr, PAR: tl.constexpr, TX: tl.constexpr,
    STRIDE: tl.constexpr, FIRST: tl.constexpr, ZSTEP: tl.constexpr, ZFIRST: tl.constexpr, K: tl.constexpr, N: tl.constexpr,
    PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
) -> None:  # fmt: skip
    tile = tl.program_id(0)  # taps vary fastest, so that programs in flight share their rows in the L2
    tap = tile % (TX * TX)
    parity = (tile // (TX * TX)) % (PAR * PAR)
    k_tile = (tile // (TX * TX * PAR * PAR)) % (K // BK)
    n_tile = tile // (TX * TX * PAR * PAR * (K // BK))
    split = tl.program_id(1)
    px = parity // PAR
    py = parity % PAR
    kk = k_tile * BK + tl.arange(0, BK)
    n = n_tile * BN + tl.arange(0, BN)
    acc = tl.zeros((BK, BN), tl.float32)
    start = split * per_split
    stop = tl.minimum(start + per_split, count)
    for first in range(start, stop, BM):
        rows = first + tl.arange(0, BM)
        live = rows < stop
        where, inside = _gather_rows(rows, live, px, py, tap, kk, S, C, R, NZB, TX, STRIDE, FIRST, ZSTEP, ZFIRST)
        a = tl.load(x + where, mask=inside, other=0.0)
        g = tl.load(dy + _out_offsets(rows, px, py, n, R, NZB, PAR, N), mask=live[:, None], other=0.0)
        acc = tl.dot(tl.trans(a), g, acc, input_precision=PRECISION)
    row = ((split * PAR * PAR + parity) * TX * TX + tap) * K + kk
    tl.store(partial + row.to(tl.int64)[:, None] * N + n[None, :], acc)


def _geometry(band: Band, channels: int) -> dict[str, int]:
    return {
        "S": band.size_in, "C": channels, "R": band.rows, "NZB": band.bands, "PAR": band.parities, "TX": band.taps,
        "STRIDE": band.stride, "FIRST": band.first, "ZSTEP": band.z_step, "ZFIRST": band.z_first, "K": band.window * channels,
    }  # fmt: skip


def _tile(size: int, largest: int) -> int:
    """The largest power of two that divides `size`, at most `largest`."""
    return min(size & -size, largest)


def _precision(x: Tensor) -> str:
    return "ieee" if x.dtype == torch.float32 else "tf32"


def band_product(x: Tensor, banded: Tensor, bias: Tensor | None, band: Band) -> Tensor:
    """One banded product: x (L, S, S, S, C), banded (P^2, T^2, K, N) -> (L, S', S', S', C')."""
    cubes, channels, width = len(x), x.shape[-1], banded.shape[-1]
    out_channels = width // band.z_out
    y = torch.zeros(0, dtype=x.dtype, device=x.device)
    y = y.new_empty(cubes, band.size_out, band.size_out, band.size_out, out_channels)
    count = cubes * band.rows**2 * band.bands
    if count == 0:
        return y
    block_n = _tile(width, 128)
    grid = (triton.cdiv(count, ROWS), width // block_n, band.parities**2)
    _forward[grid](
        x, banded, x if bias is None else bias, y, count, **_geometry(band, channels), N=width, CO=out_channels,
        HAS_BIAS=bias is not None, PRECISION=_precision(x), BM=ROWS, BN=block_n, BK=_tile(band.window * channels, 64),
        num_warps=8 if block_n == 128 else 4, num_stages=3,
    )  # fmt: skip
    return y


def band_weight_gradient(x: Tensor, dy: Tensor, band: Band) -> Tensor:
    """Gradient (P^2, T^2, K, N) float32 of the banded weight."""
    channels, width = x.shape[-1], band.z_out * dy.shape[-1]
    depth = band.window * channels
    count = len(x) * band.rows**2 * band.bands
    rows = 64
    per_split = max(triton.cdiv(triton.cdiv(count, SPLITS), rows), 1) * rows
    splits = triton.cdiv(count, per_split)
    partial = torch.zeros(max(splits, 1), band.parities**2, band.taps**2, depth, width, device=x.device)
    if count:
        block_k, block_n = _tile(depth, 64), _tile(width, 128)
        tiles = band.taps**2 * band.parities**2 * (depth // block_k) * (width // block_n)
        _weight_gradient[(tiles, splits)](
            x, dy, partial, count, per_split, **_geometry(band, channels), N=width, PRECISION=_precision(x),
            BM=rows, BN=block_n, BK=block_k, num_warps=4, num_stages=3,
        )  # fmt: skip
    return partial.sum(0)


class _BandedConv(torch.autograd.Function):
    """The product with its gradients; `banded` carries the weight's gradient, `adjoint` is used in the backward pass only."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, banded: Tensor, adjoint: Tensor, bias: Tensor, band: Band, adjoint_band: Band
    ) -> Tensor:
        ctx.save_for_backward(x, adjoint)
        ctx.band, ctx.adjoint_band = band, adjoint_band
        return band_product(x, banded, bias, band)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, adjoint = ctx.saved_tensors
        dy = dy.contiguous()
        dx = band_product(dy, adjoint, None, ctx.adjoint_band) if ctx.needs_input_grad[0] else None
        banded = band_weight_gradient(x, dy, ctx.band).to(x.dtype) if ctx.needs_input_grad[1] else None
        # as a product: torch's sum over the rows of a narrow bf16 matrix runs at a fifth of the bandwidth
        bias = (dy.new_ones(1, dy.shape[:4].numel()) @ dy.flatten(0, 3))[0] if ctx.needs_input_grad[3] else None
        return dx, banded, None, bias, None, None


def _height(out_channels: int, size: int) -> int:
    """Outputs of a band: the fewest that make products of width 64, and that divide the line."""
    return next(z for z in range(1, size + 1) if size % z == 0 and (z * out_channels >= 64 or z == size))


def block_conv(x: Tensor, weight: Tensor, bias: Tensor, *, crop: int = 0) -> Tensor:
    """Triton twin of the reference."""
    size, x = x.shape[1], x.contiguous()
    if size <= banding.DENSE_SIZE:
        return banding.dense_product(x, banding.dense_weight(weight, size, up=False, crop=crop), bias, size - 2 * crop)
    out_channels, channels = weight.shape[:2]
    band = banding.plain(size, crop, _height(out_channels, size - 2 * crop))
    adjoint_band = banding.plain(size - 2 * crop, -crop, _height(channels, size))
    return _apply(x, weight, bias, band, adjoint_band)


def block_conv_up(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Triton twin of the reference."""
    size, x = x.shape[1], x.contiguous()
    if 2 * size <= banding.DENSE_SIZE:
        return banding.dense_product(x, banding.dense_weight(weight, size, up=True), bias, 2 * size)
    out_channels, channels = weight.shape[:2]
    band = banding.upsampled(size, _height(2 * out_channels, size))
    adjoint_band = banding.upsampled_adjoint(size, _height(channels, size))
    return _apply(x, weight, bias, band, adjoint_band)


def _apply(x: Tensor, weight: Tensor, bias: Tensor, band: Band, adjoint_band: Band) -> Tensor:
    banded = banding.banded_weight(weight, band).contiguous()
    adjoint = banding.banded_weight(banding.adjoint_weight(weight.detach()), adjoint_band).contiguous()
    return _BandedConv.apply(x, banded, adjoint, bias.contiguous(), band, adjoint_band)
