"""Submanifold 3^3 convolution: outputs exist where inputs exist, empty neighbours contribute nothing."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose
from shapecodec.ops.sparse_conv import cpu, reference
from shapecodec.ops.sparse_conv.plan import TAPS, BrickPlan, ConvPlan, conv_plan

__all__ = ["BrickPlan", "ConvPlan", "conv_plan", "sparse_conv"]


def sparse_conv(
    feats: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    neighbours: Tensor | ConvPlan,
    backend: str = "auto",
    *,
    precision: str = "ieee",
) -> Tensor:
    """out[i] = bias + sum over taps t of feats[neighbours[i, t]] @ weight[t], over the neighbours that exist.

    Gradients reach feats, weight and bias. Under autocast feats and weight are cast to the autocast dtype, sums are
    float32 and the weight's gradient is never rounded to half precision.

    Args:
        feats: (N, C) float32, bfloat16 or float16 (float64 on reference and cpu).
        weight: (27, C, C') in `grid.neighbour_taps` order; cast to the dtype of feats.
        bias: (C',) or None.
        neighbours: (N, 27) int32 with -1 where empty (`grid.neighbours()`), or the grid's `conv_plan`, which
            spares every layer but the first the sorting of rows and pairs.
        backend: auto, reference, cpu or triton.
        precision: of float32 products in Triton: ieee, or tf32 (10-bit mantissas, several times faster).

    Returns:
        (N, C') of the dtype of feats (of autocast, where it is on).

    Raises:
        BadArgument: shapes that do not fit, or a backend that cannot serve the tensors.
    """
    plan = neighbours if isinstance(neighbours, ConvPlan) else ConvPlan(neighbours)
    _check(feats, weight, bias, plan, precision)
    if torch.is_autocast_enabled(feats.device.type):
        feats = feats.to(torch.get_autocast_dtype(feats.device.type))
    available = ("reference", "cpu", "triton")
    kernels = _kernels(choose(backend, feats.device, available=available, op="sparse_conv", dtype=feats.dtype))
    out: Tensor = _SparseConv.apply(feats, weight, bias, plan, kernels, precision)
    return out


def _check(feats: Tensor, weight: Tensor, bias: Tensor | None, plan: ConvPlan, precision: str) -> None:
    problem = ""
    if feats.ndim != 2 or len(feats) != len(plan):
        problem = f"feats {tuple(feats.shape)} do not fit {len(plan)} rows of neighbours."
    elif weight.ndim != 3 or weight.shape[:2] != (TAPS, feats.shape[1]):
        problem = f"weight {tuple(weight.shape)} is not ({TAPS}, {feats.shape[1]}, C')."
    elif bias is not None and bias.shape != weight.shape[2:]:
        problem = f"bias {tuple(bias.shape)} is not ({weight.shape[2]},)."
    elif len({t.device for t in (feats, weight, plan)}) > 1:
        problem = f"feats on {feats.device}, weight on {weight.device}, neighbours on {plan.device}."
    elif precision not in ("ieee", "tf32"):
        problem = f"precision '{precision}' is neither ieee nor tf32."
    if problem:
        raise BadArgument(problem, where="sparse_conv")


def _kernels(backend: str) -> ModuleType:
    if backend == "reference":
        return reference
    if backend == "cpu":
        return cpu
    import shapecodec.ops.sparse_conv.triton as kernels  # imported here: Triton is absent on some platforms

    return kernels


class _SparseConv(torch.autograd.Function):
    """Both backends offer `convolve` and `weight_gradient`; the chain rule is written once."""

    @staticmethod
    def forward(
        ctx: Any,
        feats: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        plan: ConvPlan,
        kernels: ModuleType,
        precision: str,
    ) -> Tensor:
        ctx.save_for_backward(feats, weight)
        ctx.plan, ctx.kernels, ctx.precision = plan, kernels, precision
        ctx.bias_dtype = None if bias is None else bias.dtype
        with torch.autocast(feats.device.type, enabled=False):
            return kernels.convolve(feats.contiguous(), weight.to(feats.dtype).contiguous(), bias, plan, precision)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        feats, weight = ctx.saved_tensors
        grad = grads[0].contiguous()
        grad_feats = grad_weight = grad_bias = None
        with torch.autocast(feats.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                # i sees j at tap t exactly if j sees i at tap 26 - t: the same kernel with the taps reversed.
                mirrored = weight.to(feats.dtype).flip(0).transpose(1, 2).contiguous()
                grad_feats = ctx.kernels.convolve(grad, mirrored, None, ctx.plan, ctx.precision)
            if ctx.needs_input_grad[1]:
                grad_weight = ctx.kernels.weight_gradient(feats.contiguous(), grad, ctx.plan, ctx.precision)
                grad_weight = grad_weight.to(weight.dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(0, dtype=torch.promote_types(grad.dtype, torch.float32)).to(ctx.bias_dtype)
        return grad_feats, grad_weight, grad_bias, None, None, None
