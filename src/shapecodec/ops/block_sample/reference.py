"""The specification of `block_sample` in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.grid import SparseGrid


def block_sample(points: Tensor, values: Tensor, grid: SparseGrid, fill: float) -> tuple[Tensor, Tensor]:
    """See the package; the eight corners are looked up through the grid's sorted keys."""
    place = (points + 0.5) * (8 * grid.resolution) - 0.5
    low = place.floor()
    fraction = place - low
    axis = torch.arange(2, device=points.device)
    steps = torch.cartesian_prod(axis, axis, axis)
    voxel = low.long()[:, None] + steps
    row = grid.lookup(voxel >> 3)
    inner = voxel & 7
    corners = torch.where(row >= 0, _gather(values, row, inner), fill).view(-1, 2, 2, 2)
    weight = torch.stack([1 - fraction, fraction], 2)
    slope = torch.tensor([-1.0, 1.0], device=points.device).expand(len(points), 2)
    x, y, z = weight.unbind(1)
    interpolate = "qabc,qa,qb,qc->q"
    value = torch.einsum(interpolate, corners, x, y, z)
    gradient = torch.stack(
        [
            torch.einsum(interpolate, corners, slope, y, z),
            torch.einsum(interpolate, corners, x, slope, z),
            torch.einsum(interpolate, corners, x, y, slope),
        ],
        1,
    )
    return value, gradient


def _gather(values: Tensor, row: Tensor, inner: Tensor) -> Tensor:
    if len(values) == 0:
        return values.new_zeros(row.shape)
    x, y, z = inner.unbind(-1)
    return values[row.clamp(min=0), x, y, z]
