"""The corners of sparse voxels: each shared corner once, and what the voxels around it predict brought to one value."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid, morton_decode, morton_encode
from shapecodec.ops.dispatch import choose

BACKENDS = ("reference", "triton")


@dataclass(frozen=True, eq=False)
class Corners:
    """The unique corners of the voxels of one item.

    Args:
        keys: (C,) int64 ascending, Morton codes of the corners; corner p of [0, resolution] lies at p / resolution - 0.5.
        index: (N, 8) int64, the row in `keys` of corner 4 x + 2 y + z of each voxel.
        incident: (C, 8) int32, the voxel of which each corner is corner 4 x + 2 y + z, -1 where that voxel is not active.
        resolution: voxels on an axis.
    """

    keys: Tensor
    index: Tensor
    incident: Tensor
    resolution: int

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def coords(self) -> Tensor:
        """(C, 3) int32 in [0, resolution]."""
        return morton_decode(self.keys)

    def positions(self, rows: Tensor | None = None) -> Tensor:
        """(C, 3) float32 places in the unit cube, before any deformation; of some rows only, if given."""
        coords = self.coords if rows is None else morton_decode(self.keys[rows])
        return (coords.float() - self.resolution / 2) / self.resolution


def voxel_corners(grid: SparseGrid, *, backend: str = "auto") -> Corners:
    """The shared corners of a grid of one item; computed once for a grid.

    Keys are 63-bit, so resolutions up to the grid's own limit of 2^20 are served.

    Args:
        grid: of one item; on CUDA its neighbours are built on the way.
        backend: auto, reference or triton.

    Raises:
        BadArgument: the grid holds several items, or the backend cannot serve it.
    """
    if grid.batch_size != 1:
        raise BadArgument(f"expected one item, got a batch of {grid.batch_size}.", where="voxel_corners")
    chosen = choose(backend, grid.device, available=BACKENDS, op="voxel_corners")

    def build() -> Corners:
        if chosen == "triton":
            from shapecodec.ops.flex_surface.triton.corners import corner_tables

            return Corners(*corner_tables(grid), grid.resolution)
        bit = torch.arange(2, dtype=torch.int32, device=grid.device)
        at = grid.coords[:, None] + torch.cartesian_prod(bit, bit, bit)
        keys, index = torch.unique(morton_encode(at), return_inverse=True)
        incident = torch.full((len(keys), 8), -1, dtype=torch.int32, device=grid.device)
        row = torch.arange(len(grid), dtype=torch.int32, device=grid.device)
        incident[index, torch.arange(8, device=grid.device)] = row[:, None].expand(-1, 8)
        return Corners(keys, index, incident, grid.resolution)

    return grid.cached("corners", build)


def average_corners(predictions: Tensor, corners: Corners, *, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """One value for each corner from those of the active voxels around it, and how far these disagree.

    The mean is SparseFlex's (He et al. 2025, below eq. 1 in Focusing, section 3.1). The loss is the mean over all
    predictions of the squared deviation from the corner's mean: zero if and only if all voxels agree on every corner. It can
    be differentiated once.

    Args:
        predictions: (N, 8, K) float, what each voxel says of its corners 4 x + 2 y + z.
        corners: of the N voxels.
        backend: auto, reference or triton.

    Returns:
        means (C, K) and the consistency loss, a scalar in squared units of the predictions (0 without voxels).

    Raises:
        BadArgument: not (N, 8, K) floats of these voxels.
    """
    if predictions.ndim != 3 or predictions.shape[:2] != corners.index.shape or not predictions.is_floating_point():
        raise BadArgument(
            f"expected floats ({len(corners.index)}, 8, K), got {tuple(predictions.shape)} of {predictions.dtype}.",
            where="average_corners",
        )
    if choose(backend, predictions.device, available=BACKENDS, op="average_corners") == "triton":
        from shapecodec.ops.flex_surface.triton.corners import MeanCorners

        means, loss = MeanCorners.apply(predictions, corners.index, corners.incident)
        return means, loss
    # A corner is corner s of at most one voxel, so no sum below meets an index twice: one order on every device.
    total = predictions.new_zeros(len(corners), predictions.shape[2])
    count = predictions.new_zeros(len(corners))
    for slot in range(8):
        index = corners.index[:, slot]
        total.index_add_(0, index, predictions[:, slot])
        count.index_add_(0, index, count.new_ones(len(index)))
    means = total / count[:, None]
    # The loss is least at the means, so it has no slope in them: held fixed, they spare a scatter of (N, 8, K).
    deviation = predictions - means.detach()[corners.index]
    return means, deviation.square().sum() / max(deviation.numel(), 1)
