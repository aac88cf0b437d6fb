"""The specification of `block_conv` and `block_conv_up` in plain torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def block_conv(x: Tensor, weight: Tensor, bias: Tensor, *, crop: int = 0) -> Tensor:
    """See the package; x (L, S, S, S, C) -> (L, S - 2 crop, ., ., C')."""
    out = F.conv3d(x.movedim(-1, 1), weight, bias, padding=1)
    if crop:
        out = out[:, :, crop:-crop, crop:-crop, crop:-crop]
    return out.movedim(1, -1)


def block_conv_up(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See the package; x (L, S, S, S, C) -> (L, 2 S, 2 S, 2 S, C')."""
    up = x.repeat_interleave(2, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return block_conv(up, weight, bias)
