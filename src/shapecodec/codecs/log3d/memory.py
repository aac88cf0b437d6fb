"""How much memory LoG3D takes, before it takes it."""

from __future__ import annotations

import torch

from shapecodec.codecs.log3d.config import Log3DConfig
from shapecodec.codecs.log3d.inputs import BLOCK, PAD
from shapecodec.mesh import Mesh
from shapecodec.nn.local import CPU_CHUNK
from shapecodec.rng import rng

# Of the active blocks 65% are pierced by the surface (11 meshes at 1024^3), and a point set finds those only.
PIERCED = 0.65
_POINTS, _FINEST = 400_000, 512  # 400k points find all of 20k blocks; a finer grid has four times the blocks a doubling
_CUBE = (BLOCK + 2 * PAD) ** 3

# Bytes a block. Field: core, padded cubes and their average in float32. Surface: 180 faces and 90 vertices, before and
# after snapping. Measures: 300 bytes a face. Activations: measured peaks over what one full-size map takes.
_FIELD, _SURFACE, _MEASURE = 4 * (2 * _CUBE + 2 * BLOCK**3), 180 * 60, 180 * 300
_MAPS = {"cpu": 7, "cuda": 4}
_TOKEN_VECTORS = 24  # vectors of a token alive inside a transformer block, with the window plans


def typical_tokens(resolution: int) -> int:
    """Active blocks of a typical mesh: 0.035 A N^2 for area A at resolution N (11 meshes at 1024^3: 0.0325 to 0.037), A = 1.5."""
    return int(0.035 * 1.5 * resolution**2)


def estimate_tokens(mesh: Mesh, resolution: int) -> int:
    """Active blocks of a mesh in the unit cube, from points on its surface; within about 15%."""
    coarse = max(min(resolution, _FINEST), BLOCK)
    points = mesh.to("cpu").sample(_POINTS, rng(0, purpose="estimate"))[0]
    side = max(coarse // BLOCK, 1)
    cells = ((points + 0.5) * side).long().clamp_(0, side - 1)
    pierced = len(torch.unique((cells[:, 0] * side + cells[:, 1]) * side + cells[:, 2]))
    return min(int(pierced / PIERCED * (resolution / coarse) ** 2), max(resolution // BLOCK, 1) ** 3)


def estimate_memory(config: Log3DConfig, tokens: int, device: str = "cpu") -> int:
    """Bytes for reconstructing `tokens` blocks, beside the weights; on the CPU with measuring the result.

    An estimate from measured peaks, for refusing what cannot work: it is meant to be within a factor of 1.5.
    """
    element = 4 if device == "cpu" else 2
    chunk = min(tokens, config.chunk if device != "cpu" else min(config.chunk, CPU_CHUNK))
    local = chunk * config.width * _CUBE * element * _MAPS["cpu" if device == "cpu" else "cuda"]
    whole = tokens * config.channels * 4 * _TOKEN_VECTORS
    return local + whole + tokens * (_FIELD + _SURFACE + (_MEASURE if device == "cpu" else 0))
