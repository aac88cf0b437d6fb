"""SparseTensor: a SparseGrid with a feature vector for each row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid


@dataclass(frozen=True, eq=False)
class SparseTensor:
    """Features on the occupied voxels of a batch.

    Args:
        grid: N rows.
        feats: (N, C) or (N, ...) in the grid's row order.
    """

    grid: SparseGrid
    feats: Tensor

    def __post_init__(self) -> None:
        if self.feats.ndim < 2 or len(self.feats) != len(self.grid):
            raise BadArgument(
                f"feats {tuple(self.feats.shape)} do not fit a grid of {len(self.grid)} rows.", where="SparseTensor"
            )
        if self.feats.device != self.grid.device:
            raise BadArgument(f"feats on {self.feats.device}, grid on {self.grid.device}.", where="SparseTensor")

    def __len__(self) -> int:
        return len(self.feats)

    def replace(self, feats: Tensor) -> SparseTensor:
        """Other features on the same grid, whose cached plans are shared."""
        return SparseTensor(self.grid, feats)

    def select(self, keep: Tensor) -> SparseTensor:
        """The rows where keep (N,) bool is true; items may become empty, their order and number stay."""
        if keep.shape != (len(self),) or keep.dtype != torch.bool:
            raise BadArgument(
                f"keep is {keep.dtype} {tuple(keep.shape)}, not bool ({len(self)},).", where="SparseTensor.select"
            )
        kept = torch.cat([keep.new_zeros(1, dtype=torch.int64), keep.cumsum(0)]).cpu()
        grid = SparseGrid(self.grid.coords[keep], kept[self.grid.offsets], self.grid.resolution)
        return SparseTensor(grid, self.feats[keep])

    def upsample(self) -> SparseTensor:
        """Twice the resolution: each row becomes its 8 children in Morton order, with copies of its features."""
        return SparseTensor(self.grid.children(), self.feats.repeat_interleave(8, 0))
