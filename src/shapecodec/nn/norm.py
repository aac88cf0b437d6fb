"""Normalisation in float32, whatever the dtype of the stream it serves."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm


class LayerNorm32(nn.LayerNorm):
    """LayerNorm over the last axis in float32; the result has the dtype of the input."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C)."""
        with torch.autocast(x.device.type, enabled=False):
            normed = layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps)
        return normed.to(x.dtype)
