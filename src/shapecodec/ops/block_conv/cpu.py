"""Block convolutions on a CPU: banded products (see banding.py) through the library's matrix product, differentiable by autograd.

Why: oneDNN's float32 convolutions of few channels reach 3 to 6 GFLOP/s on two cores where a matrix product reaches 100. Cubes are
padded once; for one tap the rows of all cubes are then one contiguous stretch of the padded rows, so a tap is one product and
nothing is gathered. The rows that hang over a cube's edge are computed and dropped: (14 / 12)^2 at 12^3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from shapecodec.ops.block_conv import banding
from shapecodec.ops.block_conv.banding import Band


def block_conv(x: Tensor, weight: Tensor, bias: Tensor, *, crop: int = 0) -> Tensor:
    """CPU twin of the reference."""
    size = x.shape[1]
    if size <= banding.DENSE_SIZE:
        return banding.dense_product(x, banding.dense_weight(weight, size, up=False, crop=crop), bias, size - 2 * crop)
    height = next(z for z in (4, 3, 2, 5, 1) if (size - 2 * crop) % z == 0)
    return _band_product(x, weight, bias, banding.plain(size, crop, height))


def block_conv_up(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """CPU twin of the reference."""
    size = x.shape[1]
    if 2 * size <= banding.DENSE_SIZE:
        return banding.dense_product(x, banding.dense_weight(weight, size, up=True), bias, 2 * size)
    return _band_product(x, weight, bias, banding.upsampled(size, 2 if size % 2 == 0 else 1))


def _band_product(x: Tensor, weight: Tensor, bias: Tensor, band: Band) -> Tensor:
    """y (L, S', S', S', C') of a band with stride 1."""
    cubes, padded, out_channels = len(x), band.size_in + 2, len(weight)
    banded = banding.banded_weight(weight, band)
    lines = F.pad(x, (0, 0) + (1, 1) * 3).narrow(3, band.z_first + 1, band.z_step * (band.bands - 1) + band.window)
    windows = lines.unfold(3, band.window, band.z_step).transpose(-1, -2)  # (L, P, P, bands, window, C)
    rows = windows.reshape(cubes * padded * padded * band.bands, band.window * x.shape[-1])
    reach = (band.first + band.taps + band.parities - 1) * (padded + 1) * band.bands  # of the last tap
    count = max(len(rows) - reach, 0)
    pieces = []
    for parity in range(band.parities**2):
        total: Tensor | None = None
        for tap in range(band.taps**2):
            along_x = parity // band.parities + band.first + 1 + tap // band.taps
            along_y = parity % band.parities + band.first + 1 + tap % band.taps
            start = (along_x * padded + along_y) * band.bands
            product = rows[start : start + count], banded[parity, tap]
            total = product[0] @ product[1] if total is None else _accumulate(total, *product)
        assert total is not None
        pieces.append(
            F.pad(total, (0, 0, 0, len(rows) - count)).view(cubes, padded, padded, band.size_out, out_channels)
        )
    shape = (cubes, band.rows, band.rows, band.parities, band.parities, band.size_out, out_channels)
    stacked = torch.stack([piece[:, : band.rows, : band.rows] for piece in pieces], 3).view(shape)
    y = stacked.transpose(2, 3).reshape(cubes, band.size_out, band.size_out, band.size_out, out_channels)
    return y + bias


def _accumulate(total: Tensor, rows: Tensor, matrix: Tensor) -> Tensor:
    """total + rows @ matrix, in place where no gradient is asked for."""
    if torch.is_grad_enabled() and (rows.requires_grad or matrix.requires_grad):
        return torch.addmm(total, rows, matrix)
    return total.addmm_(rows, matrix)
