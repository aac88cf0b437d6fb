"""Attention among the tokens of each window of a sparse grid."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.grid import WindowPlan
from shapecodec.ops.dispatch import choose
from shapecodec.ops.window_attention import reference, segment

__all__ = ["window_attention"]

BACKENDS = ("reference", "segment", "fused", "triton")


def window_attention(q: Tensor, k: Tensor, v: Tensor, plan: WindowPlan, backend: str = "auto") -> Tensor:
    """softmax(q k^T / sqrt(D)) v within each window, forward and backward; under autocast in its dtype.

    Args:
        q, k, v: (N, H, D) of one dtype, in grid row order.
        plan: `grid.windows(size, shift)`.
        backend: reference (dense, N^2 memory), segment (padded buckets in plain torch, any device and dtype), fused
            (torch's FlashAttention; half precision on CUDA, D a multiple of 8 up to 256), triton (any dtype, D 16, 32,
            64 or 128; repeatable), or auto: on CUDA the first of fused and segment that can serve, else segment.

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
    if torch.is_autocast_enabled(q.device.type):
        q, k, v = (x.to(torch.get_autocast_dtype(q.device.type)) for x in (q, k, v))
    width = q.shape[2]
    serves = {
        "fused": q.is_cuda and q.dtype in (torch.bfloat16, torch.float16) and width % 8 == 0 and width <= 256,
        "triton": width in (16, 32, 64, 128),
    }
    if backend == "auto":
        backend = "fused" if serves["fused"] else "segment"
    backend = choose(backend, q.device, available=BACKENDS, op="window_attention")
    if not serves.get(backend, True):
        raise BadArgument(
            f"backend '{backend}' cannot serve {q.dtype} with {width} channels a head on {q.device}.",
            where="window_attention",
            hint="backend='auto'.",
        )
    return _kernels(backend).window_attention(q, k, v, plan)


def _kernels(backend: str) -> ModuleType:
    if backend == "triton":
        import shapecodec.ops.window_attention.triton as kernels  # imported here: Triton is absent on some platforms

        return kernels
    if backend == "fused":
        import shapecodec.ops.window_attention.fused as varlen  # imported here: not in every torch build

        return varlen
    return {"reference": reference, "segment": segment}[backend]
