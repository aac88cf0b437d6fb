"""The specification in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def relu_group_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, relu: bool) -> Tensor:
    """See the package. Written out where a gradient is wanted: torch 2.13's CPU backward crashes on single channels-last voxels."""
    active = F.relu(x) if relu else x
    if not torch.is_grad_enabled():
        normed = F.group_norm(active.movedim(-1, 1).float(), groups, weight, bias, eps)
        return normed.movedim(1, -1).to(x.dtype)
    wide = active if active.dtype.itemsize > 4 else active.float()  # float64 stays, for gradcheck
    grouped = wide.reshape(len(x), -1, groups, x.shape[-1] // groups)
    centred = grouped - grouped.mean((1, 3), keepdim=True)
    normed = centred * torch.rsqrt(centred.square().mean((1, 3), keepdim=True) + eps)
    return (normed.reshape(x.shape) * weight.to(wide.dtype) + bias.to(wide.dtype)).to(x.dtype)


def relu_max_pool(x: Tensor) -> Tensor:
    """See the package."""
    return F.max_pool3d(F.relu(x.movedim(-1, 1)), 2).movedim(1, -1)


def relu_head(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See the package."""
    return F.relu(x).to(weight.dtype) @ weight + bias
