"""The specification: copy the features to the children and convolve there."""

from __future__ import annotations

from torch import Tensor

from shapecodec.grid import SparseGrid
from shapecodec.ops.sparse_conv import conv_plan, sparse_conv


def subdivide_conv(feats: Tensor, weight: Tensor, bias: Tensor | None, grid: SparseGrid) -> Tensor:
    """See the package: (N, C) -> (8 N, C')."""
    return sparse_conv(feats.repeat_interleave(8, 0), weight, bias, conv_plan(grid.children()), "reference")
