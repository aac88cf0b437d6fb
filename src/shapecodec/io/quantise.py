"""Affine quantisation of latent channels, the same in memory and in files.

Every step is one IEEE float32 operation on its own (no fused multiply-add), so CPU and GPU give the same bits.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from shapecodec.errors import BadArgument, BadLatents
from shapecodec.latents import Latents, Level

BITS = (6, 8, 16, 32)


def check_bits(bits: int) -> None:
    """Refuse widths that no file can hold."""
    if bits not in BITS:
        raise BadArgument(f"bits={bits} is not offered.", where="quantise", hint=f"one of {BITS}.")


def quantise(feats: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes (N, C) int32 in [0, 2^bits), and the low end (C,) and step (C,) float32 of each channel.

    Args:
        feats: (N, C) float32, finite; the rows of one shape, so that a shape never depends on its batch.
        bits: 6, 8 or 16 (32 means float32 itself and needs no codes).

    Raises:
        BadArgument: bits not offered.
        BadLatents: values that are NaN or infinite.
    """
    check_bits(bits)
    if bits == 32:
        raise BadArgument("32 bits keep float32 as it is: there are no codes.", where="quantise")
    feats = feats.detach().float()
    if not bool(torch.isfinite(feats).all()):
        raise BadLatents("latents contain NaN or infinite values.", where="quantise")
    if len(feats) == 0:
        zero = feats.new_zeros(feats.shape[1])
        return feats.to(torch.int32), zero, zero
    low, high = feats.amin(0), feats.amax(0)
    step = (high - low) / float(2**bits - 1)
    codes = ((feats - low) / torch.where(step > 0, step, 1.0)).round().clamp(0, 2**bits - 1)
    return codes.to(torch.int32), low, step


def dequantise(codes: Tensor, low: Tensor, step: Tensor) -> Tensor:
    """(N, C) float32: low + codes * step."""
    scaled = codes.to(torch.float32) * step
    return scaled + low


def quantise_latents(latents: Latents, bits: int) -> Latents:
    """What `load_latents` gives after `save_latents(latents, path, bits=bits)`, without the file."""
    check_bits(bits)
    if bits == 32:
        return latents
    return replace(latents, levels=tuple(_quantise_level(level, bits) for level in latents.levels))


def _quantise_level(level: Level, bits: int) -> Level:
    shapes = level.feats.split(level.offsets.diff().tolist())
    return replace(level, feats=torch.cat([dequantise(*quantise(shape, bits)) for shape in shapes]))
