"""Attention among the tokens of each window of a sparse grid."""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.grid import WindowPlan
from shapecodec.ops.dispatch import choose
from shapecodec.ops.window_attention import reference, segment

__all__ = ["window_attention"]

BACKENDS = ("reference", "segment", "fused")


def window_attention(q: Tensor, k: Tensor, v: Tensor, plan: WindowPlan, backend: str = "auto") -> Tensor:
    """softmax(q k^T / sqrt(D)) v within each window, forward and backward.

    Args:
        q, k, v: (N, H, D) of one dtype, in grid row order.
        plan: `grid.windows(size, shift)`.
        backend: reference (dense, N^2 memory), segment (padded buckets in plain torch, any device and dtype), fused
            (torch's FlashAttention; half precision on CUDA) or auto: fused where it can serve, else segment.

    Returns:
        (N, H, D) in grid row order.

    Raises:
        BadArgument: shapes that do not fit, or a backend that cannot serve the tensors.
    """
    if q.ndim != 3 or q.shape != k.shape or q.shape != v.shape or len(q) != len(plan.order):
        raise BadArgument(
            f"q, k, v {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)} do not fit {len(plan.order)} rows.",
            where="window_attention",
        )
    fusible = q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and q.shape[2] % 8 == 0 and q.shape[2] <= 256
    if backend == "auto":
        backend = "fused" if fusible else "segment"
    backend = choose(backend, q.device, available=BACKENDS, op="window_attention")
    if backend == "reference":
        return reference.window_attention(q, k, v, plan)
    if backend == "segment":
        return segment.window_attention(q, k, v, plan)
    if not fusible:
        raise BadArgument(
            f"backend 'fused' cannot serve {q.dtype} with {q.shape[2]} channels a head on {q.device}.",
            where="window_attention",
            hint="backend='auto'.",
        )
    from shapecodec.ops.window_attention import (
        fused,
    )  # imported here: absent from builds without CUDA before torch 2.11

    return fused.window_attention(q, k, v, plan)
