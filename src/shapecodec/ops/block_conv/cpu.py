"""Block convolutions on a CPU: oneDNN's channels-last convolution, and upsampling as one convolution of the small cube.

The upsampled cube is never formed: each of its voxels reads 2^3 voxels of the small cube, so eight kernels, one for each parity,
give it as eight groups of channels, which are then laid out in space. On two cores that is twice as fast as convolving the copy.
Banded products (banding.py), four times faster than the library on a GPU, are four times slower than oneDNN here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.ops.block_conv import reference


def block_conv(x: Tensor, weight: Tensor, bias: Tensor, *, crop: int = 0) -> Tensor:
    """CPU twin: the reference itself, which oneDNN runs at 30 to 70 GFLOP/s a core."""
    return reference.block_conv(x, weight, bias, crop=crop)


def block_conv_up(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """CPU twin of the reference."""
    cubes, size, out_channels = len(x), x.shape[1], len(weight)
    out = reference.block_conv(x, parity_kernels(weight), bias.repeat(8))
    parts = out.view(cubes, size, size, size, 2, 2, 2, out_channels)
    return parts.permute(0, 1, 4, 2, 5, 3, 6, 7).reshape(cubes, 2 * size, 2 * size, 2 * size, out_channels)


def parity_kernels(weight: Tensor) -> Tensor:
    """(C', C, 3, 3, 3) -> (8 C', C, 3, 3, 3): for output voxels 2 v + p, parities p in (x, y, z) order, around v."""
    parity, offset, kernel = torch.arange(2)[:, None, None], torch.arange(3)[:, None] - 1, torch.arange(3)
    axis = (torch.div(parity + kernel - 1, 2, rounding_mode="floor") == offset).to(weight)  # (2, 3, 3)
    wide = torch.einsum("ocabd,pia,qjb,rkd->pqrocijk", weight, axis, axis, axis)
    return wide.reshape(8 * len(weight), weight.shape[1], 3, 3, 3)
