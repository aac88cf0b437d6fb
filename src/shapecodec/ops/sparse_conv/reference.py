"""The specification: 27 gathers and matrix products in plain torch, on any device. Sums are float32 at least."""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.ops.sparse_conv.plan import TAPS, ConvPlan


def convolve(feats: Tensor, weight: Tensor, bias: Tensor | None, plan: ConvPlan, precision: str) -> Tensor:
    """out[i] = bias + sum over taps t with a neighbour j = neighbours[i, t] of feats[j] @ weight[t].

    Args:
        feats: (N, C).
        weight: (27, C, C') of the same dtype.
        bias: (C',) of any dtype, or None.
        plan: of the grid.
        precision: not used: torch's own settings say how float32 products are taken.

    Returns:
        (N, C') of the dtype of `feats`.
    """
    dtype = _sum_dtype(feats)
    total = feats.new_zeros(len(feats), weight.shape[2], dtype=dtype)
    pairs = plan.pairs
    for tap in range(TAPS):
        first, last = pairs.bounds[tap : tap + 2]
        if first < last:
            inputs = feats.index_select(0, pairs.source[first:last]).to(dtype)
            total.index_add_(0, pairs.target[first:last], inputs @ weight[tap].to(dtype))
    return (total if bias is None else total + bias).to(feats.dtype)


def weight_gradient(feats: Tensor, grad: Tensor, plan: ConvPlan, precision: str) -> Tensor:
    """(27, C, C') sum over the pairs (i, j) of each tap of feats[j] outer grad[i], in the summing dtype."""
    pairs = plan.pairs
    dtype = _sum_dtype(feats)
    total = feats.new_zeros(TAPS, feats.shape[1], grad.shape[1], dtype=dtype)
    for tap in range(TAPS):
        first, last = pairs.bounds[tap : tap + 2]
        if first < last:
            inputs = feats.index_select(0, pairs.source[first:last]).to(dtype)
            total[tap] = inputs.t() @ grad.index_select(0, pairs.target[first:last]).to(dtype)
    return total


def _sum_dtype(feats: Tensor) -> torch.dtype:
    return torch.promote_types(feats.dtype, torch.float32)
