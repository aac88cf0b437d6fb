"""Means of runs of rows: points sorted by voxel into one vector a voxel."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose
from shapecodec.ops.segment_mean import reference

__all__ = ["segment_mean"]

OP = "segment_mean"


def segment_mean(values: Tensor, offsets: Tensor, *, backend: str = "auto") -> Tensor:
    """out[i] = mean of values[offsets[i] : offsets[i + 1]], zero for an empty run.

    Differentiable in values; sums are float32 at least, whatever their dtype. Triton takes a run in order, so results
    repeat; the reference on CUDA adds by atomics.

    Args:
        values: (P, C) float32, bfloat16 or float16 (float64 on the reference).
        offsets: (N + 1,) int64 on the same device, ascending from 0 to P. That it does so is checked on the CPU only:
            on CUDA the check would wait for the device.
        backend: auto, reference or triton. Runs should be short (tens of rows): Triton gives each to one program.

    Returns:
        (N, C) of the dtype of values.

    Raises:
        BadArgument: shapes, dtypes or devices that do not fit, or a backend that cannot serve the tensors.
    """
    if values.ndim != 2 or not values.is_floating_point():
        raise BadArgument(f"values are {values.dtype} {tuple(values.shape)}, not floats (P, C).", where=OP)
    if offsets.ndim != 1 or len(offsets) == 0 or offsets.dtype != torch.int64:
        raise BadArgument(f"offsets are {offsets.dtype} {tuple(offsets.shape)}, not int64 (N + 1,).", where=OP)
    if offsets.device != values.device:
        raise BadArgument(f"values on {values.device}, offsets on {offsets.device}.", where=OP)
    if offsets.device.type == "cpu" and not _covers(offsets, len(values)):
        raise BadArgument(f"offsets do not ascend from 0 to {len(values)}.", where=OP)
    available = ("reference", "triton")
    kernels = _kernels(choose(backend, values.device, available=available, op=OP, dtype=values.dtype))
    out: Tensor = _SegmentMean.apply(values, offsets.contiguous(), kernels)
    return out


def _covers(offsets: Tensor, rows: int) -> bool:
    return int(offsets[0]) == 0 and int(offsets[-1]) == rows and bool((offsets.diff() >= 0).all())


def _kernels(backend: str) -> ModuleType:
    if backend == "reference":
        return reference
    import shapecodec.ops.segment_mean.triton as kernels  # imported here: Triton is absent on some platforms

    return kernels


class _SegmentMean(torch.autograd.Function):
    """Both backends offer `mean` and its transpose, `spread`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, offsets: Tensor, kernels: ModuleType) -> Tensor:
        ctx.save_for_backward(offsets)
        ctx.kernels, ctx.rows = kernels, len(values)
        return kernels.mean(values.contiguous(), offsets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (offsets,) = ctx.saved_tensors
        return ctx.kernels.spread(grads[0].contiguous(), offsets, ctx.rows), None, None
