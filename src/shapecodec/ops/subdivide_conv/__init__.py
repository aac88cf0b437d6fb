"""Subdivision and submanifold 3^3 convolution in one: the children's copied features are never written.

The children of a voxel share its features, so a child's 27 taps read at most 8 parents: the weights of taps that fall on
one parent are summed first, and 64 products a parent replace up to 216 (180 on surfaces refined before).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.ops.dispatch import choose
from shapecodec.ops.sparse_conv import TAPS
from shapecodec.ops.subdivide_conv import folded as torch_kernels
from shapecodec.ops.subdivide_conv import reference
from shapecodec.ops.subdivide_conv.fold import fold, unfold

__all__ = ["subdivide_conv"]

OP = "subdivide_conv"


def subdivide_conv(
    feats: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    grid: SparseGrid,
    backend: str = "auto",
    *,
    precision: str = "ieee",
) -> Tensor:
    """sparse_conv on `grid.children()` of the parents' features, each copied to its 8 children.

    Gradients reach feats, weight and bias. Under autocast feats and weight are cast to the autocast dtype (the weight
    after its taps were summed in float32), sums are float32 and the weight's gradient is never rounded to half precision.

    Args:
        feats: (N, C) float32, bfloat16 or float16 (float64 on reference and folded), in the row order of `grid`.
        weight: (27, C, C') in `grid.neighbour_taps` order, as for `sparse_conv`.
        bias: (C',) or None.
        grid: the parents, N rows.
        backend: auto, reference (copies and convolves), folded (plain torch, any device) or triton.
        precision: of float32 products in Triton: ieee, or tf32 (10-bit mantissas, several times faster).

    Returns:
        (8 N, C') of the dtype of feats (of autocast, where it is on), in the row order of `grid.children()`.

    Raises:
        BadArgument: shapes that do not fit, or a backend that cannot serve the tensors.
    """
    _check(feats, weight, bias, grid, precision)
    if torch.is_autocast_enabled(feats.device.type):
        feats = feats.to(torch.get_autocast_dtype(feats.device.type))
    chosen = choose(backend, feats.device, available=("reference", "folded", "triton"), op=OP, dtype=feats.dtype)
    if backend == "auto" and chosen == "reference":
        chosen = "folded"
    if chosen == "reference":
        return reference.subdivide_conv(feats, weight, bias, grid)
    out: Tensor = _SubdivideConv.apply(feats, weight, bias, grid, _kernels(chosen), precision)
    return out


def _check(feats: Tensor, weight: Tensor, bias: Tensor | None, grid: SparseGrid, precision: str) -> None:
    problem = ""
    if feats.ndim != 2 or len(feats) != len(grid):
        problem = f"feats {tuple(feats.shape)} do not fit a grid of {len(grid)} rows."
    elif weight.ndim != 3 or weight.shape[:2] != (TAPS, feats.shape[1]):
        problem = f"weight {tuple(weight.shape)} is not ({TAPS}, {feats.shape[1]}, C')."
    elif bias is not None and bias.shape != weight.shape[2:]:
        problem = f"bias {tuple(bias.shape)} is not ({weight.shape[2]},)."
    elif len({t.device for t in (feats, weight, grid.coords)}) > 1:
        problem = f"feats on {feats.device}, weight on {weight.device}, grid on {grid.device}."
    elif precision not in ("ieee", "tf32"):
        problem = f"precision '{precision}' is neither ieee nor tf32."
    if problem:
        raise BadArgument(problem, where=OP)


def _kernels(backend: str) -> ModuleType:
    if backend == "folded":
        return torch_kernels
    import shapecodec.ops.subdivide_conv.triton as kernels  # imported here: Triton is absent on some platforms

    return kernels


class _SubdivideConv(torch.autograd.Function):
    """Both backends offer `convolve`, `feats_gradient` and `weight_gradient` of the folded weights."""

    @staticmethod
    def forward(
        ctx: Any,
        feats: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        grid: SparseGrid,
        kernels: ModuleType,
        precision: str,
    ) -> Tensor:
        with torch.autocast(feats.device.type, enabled=False):
            wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
            folded = fold(wide).to(feats.dtype).contiguous()
            out = kernels.convolve(feats.contiguous(), folded, bias, grid, precision)
        ctx.save_for_backward(feats, folded)
        ctx.grid, ctx.kernels, ctx.precision = grid, kernels, precision
        ctx.weight_dtype, ctx.bias_dtype = weight.dtype, None if bias is None else bias.dtype
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        feats, folded = ctx.saved_tensors
        grad = grads[0].contiguous()
        grad_feats = grad_weight = grad_bias = None
        with torch.autocast(feats.device.type, enabled=False):
            if ctx.needs_input_grad[0]:
                grad_feats = ctx.kernels.feats_gradient(grad, folded, ctx.grid, ctx.precision)
            if ctx.needs_input_grad[1]:
                parts = ctx.kernels.weight_gradient(feats.contiguous(), grad, ctx.grid, ctx.precision)
                grad_weight = unfold(parts).to(ctx.weight_dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(0, dtype=torch.promote_types(grad.dtype, torch.float32)).to(ctx.bias_dtype)
        return grad_feats, grad_weight, grad_bias, None, None, None
