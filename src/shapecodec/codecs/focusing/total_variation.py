"""Total variation of signed distances on sparse voxels (Focusing, eq. 6): what keeps small holes from opening."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose
from shapecodec.ops.flex_surface import Corners

Reduction = Literal["sum", "mean"]


def total_variation(
    values: Tensor,
    corners: Corners,
    *,
    reduction: Reduction = "sum",
    epsilon: float = 1e-10,
    backend: str = "auto",
) -> Tensor:
    """Over all corners, the length of the vector of differences to the next corner along +x, +y and +z.

    A difference counts where an active voxel has the edge between the two corners: those are the edges that an extraction reads;
    the others count as 0. The paper says neither how the sum is scaled nor how its slope is bounded at 0. With its weight of
    0.001 and values in units of the cube, only the sum over corners moves anything: the mean of distances of 1 / resolution
    would weigh 1e-6. A corner contributes sqrt(square + epsilon) - sqrt(epsilon): differences far below sqrt(epsilon)
    count by their square, and a constant field costs nothing.

    Args:
        values: (C,) or (C, D) floating point, on the corners; the D channels add up.
        corners: `voxel_corners` of the active voxels.
        reduction: over corners.
        epsilon: in squared units of the values, above 0.
        backend: auto, reference or triton.

    Returns:
        A scalar, differentiable in the values; 0 without corners.

    Raises:
        BadArgument: other shapes, an unknown reduction, or epsilon not above 0.
    """
    if values.ndim not in (1, 2) or len(values) != len(corners) or not values.is_floating_point():
        raise BadArgument(
            f"{len(corners)} corners need floats (C,) or (C, D), got {tuple(values.shape)} of {values.dtype}.",
            where="total_variation",
        )
    if reduction not in ("sum", "mean") or not epsilon > 0:
        raise BadArgument(f"reduction '{reduction}', epsilon {epsilon}.", where="total_variation", hint="sum or mean.")
    columns = values[:, None] if values.ndim == 1 else values
    chosen = choose(backend, values.device, available=("reference", "triton"), op="total_variation")
    if chosen == "triton" and columns.numel():
        from shapecodec.ops.flex_surface.triton.variation import SummedLengths  # Triton is absent on some platforms

        summed: Tensor = SummedLengths.apply(columns.contiguous(), corners, epsilon)
        return summed / len(corners) if reduction == "mean" else summed
    rows = torch.arange(len(corners), device=values.device)
    squares = torch.zeros_like(columns)
    for following in next_corners(corners).unbind(1):
        other = torch.where(following >= 0, following, rows)
        squares = squares + (columns.index_select(0, other) - columns).square()
    total = ((squares + epsilon).sqrt() - epsilon**0.5).sum()
    return total / max(len(corners), 1) if reduction == "mean" else total


def next_corners(corners: Corners) -> Tensor:
    """(C, 3) int64 row of the next corner along each axis, -1 where no active voxel has that edge."""
    following = corners.index.new_full((len(corners), 3), -1)
    slots = torch.arange(8, device=corners.index.device)
    for axis, bit in enumerate((4, 2, 1)):
        low = slots[(slots & bit) == 0]
        following[:, axis].scatter_(0, corners.index[:, low].flatten(), corners.index[:, low + bit].flatten())
    return following
