"""Plain torch with folded weights, on any device: 27 gathers of parents, each multiplied with all the children that it serves."""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.grid import SparseGrid
from shapecodec.ops.sparse_conv import TAPS, conv_plan
from shapecodec.ops.subdivide_conv.fold import SLOTS, parent_taps


def convolve(feats: Tensor, folded: Tensor, bias: Tensor | None, grid: SparseGrid, precision: str) -> Tensor:
    """out[8 i + c] = bias + sum over sides e of feats[neighbour of i at tap (c, e)] @ folded[c, e].

    Args:
        feats: (N, C).
        folded: (8, 8, C, C') of the same dtype, see `fold`.
        bias: (C',) of any dtype, or None.
        grid: the parents.
        precision: not used: torch's own settings say how float32 products are taken.

    Returns:
        (8 N, C') of the dtype of feats.
    """
    dtype = torch.promote_types(feats.dtype, torch.float32)
    total = feats.new_zeros(SLOTS * len(feats), folded.shape[3], dtype=dtype)
    for target, source, slots, sides in _served(grid):
        weights = folded[slots, sides].to(dtype).transpose(0, 1).flatten(1)
        products = feats.index_select(0, source).to(dtype) @ weights
        rows = (target[:, None] * SLOTS + slots).flatten()
        total.index_add_(0, rows, products.view(len(rows), -1))
    return (total if bias is None else total + bias).to(feats.dtype)


def feats_gradient(grad: Tensor, folded: Tensor, grid: SparseGrid, precision: str) -> Tensor:
    """(8 N, C') -> (N, C): what each parent passed to the children that it served, back."""
    dtype = torch.promote_types(grad.dtype, torch.float32)
    total = grad.new_zeros(len(grid), folded.shape[2], dtype=dtype)
    for target, source, slots, sides in _served(grid):
        weights = folded[slots, sides].to(dtype).transpose(1, 2).flatten(0, 1)
        total.index_add_(0, source, _children(grad, target, slots).to(dtype) @ weights)
    return total.to(grad.dtype)


def weight_gradient(feats: Tensor, grad: Tensor, grid: SparseGrid, precision: str) -> Tensor:
    """(8, 8, C, C') in the summing dtype: the gradient of the folded weights."""
    dtype = torch.promote_types(feats.dtype, torch.float32)
    total = feats.new_zeros(SLOTS, SLOTS, feats.shape[1], grad.shape[1], dtype=dtype)
    for target, source, slots, sides in _served(grid):
        inputs = feats.index_select(0, source).to(dtype)
        products = inputs.t() @ _children(grad, target, slots).to(dtype)
        total[slots, sides] = products.unflatten(1, (len(slots), -1)).transpose(0, 1)
    return total


def _children(grad: Tensor, target: Tensor, slots: Tensor) -> Tensor:
    """(P, S C') gradients of the given slots of each target."""
    return grad.unflatten(0, (-1, SLOTS))[target[:, None], slots].flatten(1)


def _served(grid: SparseGrid) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """For each tap that exists: the pairs of parents, and the slots of the target and their sides that it serves."""
    pairs = conv_plan(grid).pairs
    taps = parent_taps()
    served = []
    for tap in range(TAPS):
        first, last = pairs.bounds[tap : tap + 2]
        if first < last:
            slots, sides = (taps == tap).nonzero().to(grid.device).unbind(1)
            served.append((pairs.target[first:last], pairs.source[first:last], slots, sides))
    return served
