"""What the LoG3D encoder reads: padded blocks of the truncated field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shapecodec.grid import SparseGrid

BLOCK, PAD = 8, 2  # A.2: D = 8^3, alpha = 2


@dataclass(frozen=True, eq=False)
class BlockInputs:
    """Active blocks of one or several shapes.

    Args:
        grid: blocks; its resolution is `resolution` / 8.
        values: (L, 12, 12, 12) float32 field over its truncation, in [0, 1], with 2 voxels of each neighbour.
        resolution: voxels an axis.
    """

    grid: SparseGrid
    values: Tensor
    resolution: int

    @property
    def tokens(self) -> int:
        """Blocks in all shapes."""
        return len(self.grid)

    def core(self) -> Tensor:
        """(L, 8, 8, 8) the blocks without their padding."""
        return self.values[:, PAD:-PAD, PAD:-PAD, PAD:-PAD]

    def crop(self, rows: Tensor) -> BlockInputs:
        """Only these rows (K,) int64, ascending; coordinates and padding stay as they were."""
        offsets = torch.searchsorted(rows.cpu(), self.grid.offsets)
        return BlockInputs(
            SparseGrid(self.grid.coords[rows], offsets, self.grid.resolution), self.values[rows], self.resolution
        )

    @staticmethod
    def pack(items: Sequence[BlockInputs]) -> BlockInputs:
        """Shapes of one resolution as one batch."""
        grid = SparseGrid.concatenate([item.grid for item in items])
        return BlockInputs(grid, torch.cat([item.values for item in items]), items[0].resolution)

    def to(self, device: torch.device | str) -> BlockInputs:
        """The same inputs on another device."""
        return BlockInputs(self.grid.to(device), self.values.to(device), self.resolution)
