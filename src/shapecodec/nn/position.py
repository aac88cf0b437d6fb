"""Absolute position encoding of integer coordinates, without parameters."""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.errors import BadArgument


def sincos_position(coords: Tensor, channels: int, *, longest: float = 10000.0) -> Tensor:
    """Sines and cosines of each coordinate, axis by axis (Vaswani et al. 2017, section 3.5, on three axes).

    Args:
        coords: (N, 3) voxel or block coordinates.
        channels: at least 6; each axis gets channels // 6 frequencies, the remainder is zero.
        longest: the slowest frequency is one radian in nearly so many voxels, the fastest one radian a voxel.

    Returns:
        (N, channels) float32.
    """
    if channels < 6:
        raise BadArgument(f"{channels} channels cannot encode three axes.", where="sincos_position", hint="6 or more.")
    count = channels // 6
    place = torch.arange(count, dtype=torch.float32, device=coords.device)
    angle = coords.float()[:, :, None] * longest ** (-place / count)
    waves = torch.cat([angle.sin(), angle.cos()], -1).flatten(1)
    return torch.nn.functional.pad(waves, (0, channels - waves.shape[1]))
