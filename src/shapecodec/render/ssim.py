"""Structural similarity of pictures (Wang et al. 2004), differentiable: Gaussian windows of 11 x 11 pixels, sigma 1.5."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from shapecodec.errors import BadArgument

WINDOW, SIGMA = 11, 1.5
K1, K2 = 0.01, 0.03


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """The mean similarity of pairs of pictures, 1 where they are equal.

    Eq. 13 of the paper for every channel and every window that lies wholly inside the picture, with population variances. Windows
    are weighted sums in float32 or better: convolutions in TF32 or bf16, which CUDA's would be by default or under
    autocast, round second moments by more than the constant c2 = 0.0009.

    Args:
        first, second: (B, H, W, C) floating point in [0, 1], H and W at least 11.

    Returns:
        (B,) in [-1, 1], differentiable once in both.

    Raises:
        BadArgument: shapes that differ, or pictures smaller than a window.
    """
    if first.ndim != 4 or first.shape != second.shape:
        raise BadArgument(
            f"pictures (B, H, W, C) of one shape, got {tuple(first.shape)} and {tuple(second.shape)}.", where="ssim"
        )
    if min(first.shape[1:3]) < WINDOW:
        raise BadArgument(f"{first.shape[1]} x {first.shape[2]} pixels are fewer than {WINDOW}.", where="ssim")
    dtype = torch.float64 if torch.float64 in (first.dtype, second.dtype) else torch.float32
    x, y = first.to(dtype), second.to(dtype)
    mx, my, xx, yy, xy = _Blurred.apply(torch.stack([x, y, x * x, y * y, x * y])).unbind(0)
    c1, c2 = K1**2, K2**2
    covariance = 2 * (xy - mx * my) + c2
    variance = (xx - mx * mx) + (yy - my * my) + c2
    return ((2 * mx * my + c1) * covariance / ((mx * mx + my * my + c1) * variance)).mean((1, 2, 3))


class _Blurred(torch.autograd.Function):
    """Windows' means of (..., H, W, C) along both axes; symmetric, so its adjoint is itself on a padded gradient."""

    @staticmethod
    def forward(ctx: Any, picture: Tensor) -> Tensor:
        """(..., H - 10, W - 10, C)."""
        return _means(_means(picture, -2), -3)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """(..., H, W, C)."""
        rim = WINDOW - 1
        return _means(_means(torch.nn.functional.pad(gradient, (0, 0, rim, rim, rim, rim)), -2), -3)


def _means(picture: Tensor, axis: int) -> Tensor:
    """Weighted means over the windows along one axis, which loses 10 places."""
    length = picture.shape[axis] - WINDOW + 1
    raw = [math.exp(-0.5 * ((k - WINDOW // 2) / SIGMA) ** 2) for k in range(WINDOW)]
    total = torch.zeros_like(picture.narrow(axis, 0, length))
    for k, weight in enumerate(raw):
        total.add_(picture.narrow(axis, k, length), alpha=weight / sum(raw))
    return total
