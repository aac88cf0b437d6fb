"""The specification in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def field_conv(field: Tensor, on_field: Tensor, on_inside: Tensor, dtype: torch.dtype) -> Tensor:
    """See the package."""
    size = field.shape[1]
    channels = torch.stack([field, torch.ones_like(field)], 1)  # (L, 2, S, S, S)
    padded = F.pad(channels, (1, 1) * 3)
    windows = padded.unfold(2, 3, 1).unfold(3, 3, 1).unfold(4, 3, 1)  # (L, 2, S, S, S, 3, 3, 3)
    columns = windows.permute(0, 2, 3, 4, 1, 5, 6, 7).reshape(len(field), size**3, 54)
    return torch.bmm(columns, torch.cat([on_field, on_inside], 1)).view(len(field), size, size, size, -1).to(dtype)
