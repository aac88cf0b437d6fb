"""How much memory Focusing takes, before it takes it."""

from __future__ import annotations

import torch

from shapecodec.codecs.focusing.config import OUTPUTS, FocusingConfig
from shapecodec.mesh import Mesh
from shapecodec.rng import rng

_POINTS, _FINEST = 400_000, 256
_PIERCED = 0.62  # of the voxels that a triangle comes nearer one fine voxel, a point set finds those that it pierces
_FACES = 12  # triangles below a latent voxel at a factor of 4: 1.5 cut fine voxels an axis squared, times 4^2 / 2
_FACE_BYTES = {"cpu": 400, "cuda": 100}  # of an extracted face, with what measuring it takes on the CPU
_VECTORS = 24  # vectors of a token alive inside a transformer block, with the window plans
_MAPS = 6  # maps of a subdivision block alive at once


def typical_tokens(side: int) -> int:
    """Latent voxels of a typical mesh on a grid of side^3: 2.4 A side^2 for area A = 1.5."""
    return int(2.4 * 1.5 * side**2)


def estimate_tokens(mesh: Mesh, side: int) -> int:
    """Latent voxels of a mesh in the unit cube, from points on its surface."""
    coarse = min(side, _FINEST)
    points = mesh.to("cpu").sample(_POINTS, rng(0, purpose="estimate"))[0]
    cells = ((points + 0.5) * coarse).long().clamp_(0, coarse - 1)
    pierced = len(torch.unique((cells[:, 0] * coarse + cells[:, 1]) * coarse + cells[:, 2]))
    return min(int(pierced / _PIERCED * (side / coarse) ** 2), side**3)


def estimate_memory(config: FocusingConfig, tokens: int, device: str = "cpu") -> int:
    """Bytes for reconstructing `tokens` latent voxels, beside the weights; on the CPU with measuring the result."""
    element = 4 if device == "cpu" else 2
    points = config.points * (6 * 4 + config.point_channels * element * 3)
    attention = tokens * config.channels * element * _VECTORS
    children = 8 ** len(config.up_channels)
    chunk = min(tokens, 2 * config.chunk)  # a chunk and its margin
    fine = chunk * children * (config.up_channels[-1] * element * _MAPS + OUTPUTS * 4 * 3 + 27 * 8)
    faces = tokens * _FACES * (config.factor / 4) ** 2 * _FACE_BYTES[device if device == "cpu" else "cuda"]
    return int(max(points, attention) + fine + faces)
