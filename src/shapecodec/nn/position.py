"""Position encodings: of integer coordinates, without parameters, and of points in space."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

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


class FourierPoints(nn.Module):
    """Points to C channels: sines and cosines of pi 2^k x for k = 0..7 on each axis, the point itself, one linear layer.

    It is the embedding of VecSet (section 4.1 there), shared by input points, latent queries and query points; 52 C parameters.

    Args:
        channels: C.
        octaves: number of frequencies an axis.
    """

    frequencies: Tensor

    def __init__(self, channels: int, octaves: int = 8) -> None:
        super().__init__()
        self.register_buffer("frequencies", math.pi * 2.0 ** torch.arange(octaves), persistent=False)
        self.project = nn.Linear(6 * octaves + 3, channels)

    def forward(self, points: Tensor) -> Tensor:
        """(..., 3) float32 -> (..., C); phases in float32 whatever the autocast."""
        phase = (points.float()[..., None] * self.frequencies).flatten(-2)
        return self.project(torch.cat([phase.sin(), phase.cos(), points], -1))
