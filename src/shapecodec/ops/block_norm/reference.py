"""The specification in plain torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def relu_group_norm(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, relu: bool) -> Tensor:
    """See the package."""
    active = (F.relu(x) if relu else x).movedim(-1, 1)
    wide = active if active.dtype.itemsize > 4 else active.float()  # float64 stays, for gradcheck
    return F.group_norm(wide, groups, weight.to(wide.dtype), bias.to(wide.dtype), eps).movedim(1, -1).to(x.dtype)


def relu_max_pool(x: Tensor) -> Tensor:
    """See the package."""
    return F.max_pool3d(F.relu(x.movedim(-1, 1)), 2).movedim(1, -1)


def relu_head(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See the package."""
    return F.relu(x).to(weight.dtype) @ weight + bias
