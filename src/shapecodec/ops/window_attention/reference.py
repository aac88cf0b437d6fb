"""The specification: softmax attention over all pairs of rows, masked to pairs within one window."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from shapecodec.grid import WindowPlan


def window_attention(q: Tensor, k: Tensor, v: Tensor, plan: WindowPlan) -> Tensor:
    """Dense: N^2 memory, so for a few thousand rows at most.

    Args:
        q, k, v: (N, H, D).
        plan: windows of the N rows.

    Returns:
        (N, H, D).
    """
    count = len(q)
    windows = torch.arange(len(plan.offsets) - 1, device=q.device)
    sizes = plan.offsets.diff().to(torch.int64)
    window = torch.repeat_interleave(windows, sizes, output_size=count)[plan.inverse]
    scores = torch.einsum("ihd,jhd->hij", q.float(), k.float()) / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(window[:, None] != window[None], -math.inf).softmax(-1)
    return torch.einsum("hij,jhd->ihd", weights, v.float()).to(q.dtype)
