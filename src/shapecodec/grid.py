"""SparseGrid: voxel coordinates in Morton order, with the neighbour and window plans that sparse layers share.

A grid may hold a batch: item b owns the rows offsets[b] to offsets[b + 1]. Plans never cross items, are built once and
cached. The same type serves voxels and LoG3D's 8^3 blocks (then `resolution` counts blocks).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from shapecodec.errors import BadArgument

TAPS = 27
MORTON_BITS = 20  # per axis: 60 bits of place leave room for 8 items; smaller resolutions leave room for more

T = TypeVar("T")


def morton_encode(coords: Tensor) -> Tensor:
    """(..., 3) integer coordinates below 2^20 -> (...,) int64 keys; x is the most significant bit of each triple."""
    spread = coords.to(torch.int64)
    for shift, mask in (
        (32, 0x1F00000000FFFF),
        (16, 0x1F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        spread = (spread | (spread << shift)) & mask
    return (spread[..., 0] << 2) | (spread[..., 1] << 1) | spread[..., 2]


def morton_decode(keys: Tensor) -> Tensor:
    """(...,) int64 keys -> (..., 3) int32 coordinates."""
    packed = torch.stack([keys >> 2, keys >> 1, keys], -1) & 0x1249249249249249
    for shift, mask in (
        (2, 0x10C30C30C30C30C3),
        (4, 0x100F00F00F00F00F),
        (8, 0x1F0000FF0000FF),
        (16, 0x1F00000000FFFF),
        (32, 0x1FFFFF),
    ):
        packed = (packed | (packed >> shift)) & mask
    return packed.to(torch.int32)


def neighbour_taps(device: torch.device | str = "cpu") -> Tensor:
    """(27, 3) int32 offsets, tap = (dx + 1) * 9 + (dy + 1) * 3 + (dz + 1); tap 13 is the centre."""
    axis = torch.arange(-1, 2, dtype=torch.int32, device=device)
    return torch.cartesian_prod(axis, axis, axis)


def child_taps(device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Where a child's neighbours are: the parent's tap and the slot there, both (8, 27) int64 by slot and tap of the child.

    Slot 4 x + 2 y + z of a parent p is the voxel 2 p + (x, y, z).
    """
    slots = morton_decode(torch.arange(8, device=device))
    place = slots[:, None] + neighbour_taps(device)
    parent = torch.div(place, 2, rounding_mode="floor")
    digits = torch.tensor([9, 3, 1], device=device), torch.tensor([4, 2, 1], device=device)
    return ((parent + 1) * digits[0]).sum(2), ((place - 2 * parent) * digits[1]).sum(2)


def child_neighbours(above: Tensor) -> Tensor:
    """(8 N, 27) int32 neighbours of the children of N voxels, from the neighbours `above` (N, 27) of these; -1 where empty."""
    tap, slot = child_taps(above.device)
    parent = above.index_select(1, tap.flatten()).view(-1, 8, TAPS)
    return torch.where(parent >= 0, parent * 8 + slot.to(torch.int32), -1).flatten(0, 1)


@dataclass(frozen=True)
class WindowPlan:
    """Rows grouped by window: row order[offsets[w] : offsets[w + 1]] belong to window w.

    Args:
        order: (N,) int64 permutation of the grid's rows.
        inverse: (N,) int64, its inverse.
        offsets: (W + 1,) int32 bounds of the windows within the permuted rows.
        longest: rows in the fullest window.
    """

    order: Tensor
    inverse: Tensor
    offsets: Tensor
    longest: int


@dataclass(frozen=True, eq=False)
class SparseGrid:
    """Occupied voxels of a batch of resolution^3 grids.

    Args:
        coords: (N, 3) int32 in [0, resolution), unique and in Morton order within each item (see `build`).
        offsets: (B + 1,) int64, on the CPU: item b owns rows offsets[b] : offsets[b + 1].
        resolution: voxels an axis; voxel i covers [i, i + 1) / resolution - 0.5.
        parent: the grid whose `children` this is; row 8 i + s is then slot s of its row i.
    """

    coords: Tensor
    offsets: Tensor
    resolution: int
    parent: SparseGrid | None = field(default=None, repr=False)
    _plans: dict[Any, Any] = field(default_factory=dict, repr=False)

    @staticmethod
    def build(coords: Tensor, resolution: int) -> tuple[SparseGrid, Tensor]:
        """One item from unsorted unique coords (N, 3); returns the grid and the row order (N,) that sorted it."""
        if not 1 <= resolution <= 1 << MORTON_BITS:
            raise BadArgument(f"resolution {resolution} is outside [1, 2^{MORTON_BITS}].", where="SparseGrid")
        order = torch.argsort(morton_encode(coords))
        return SparseGrid(coords[order].to(torch.int32), torch.tensor([0, len(coords)]), resolution), order

    @staticmethod
    def concatenate(grids: list[SparseGrid]) -> SparseGrid:
        """A batch from grids of one resolution."""
        resolution = grids[0].resolution
        if any(grid.resolution != resolution for grid in grids):
            raise BadArgument(f"resolutions differ: {[g.resolution for g in grids]}.", where="SparseGrid.concatenate")
        counts = torch.cat([grid.offsets.diff() for grid in grids])
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return SparseGrid(torch.cat([grid.coords for grid in grids]), offsets, resolution)

    def item(self, index: int) -> SparseGrid:
        """Item `index` alone, with its part of the neighbour table, if that is known."""
        if self.batch_size == 1:
            return self
        start, end = int(self.offsets[index]), int(self.offsets[index + 1])
        one = SparseGrid(self.coords[start:end], torch.tensor([0, end - start]), self.resolution)
        table = self._plans.get("neighbours")
        if table is not None:
            part = table[start:end]
            one._plans["neighbours"] = torch.where(part >= 0, part - start, -1)
        return one

    def __len__(self) -> int:
        return len(self.coords)

    @property
    def batch_size(self) -> int:
        """Items in the batch."""
        return len(self.offsets) - 1

    @property
    def device(self) -> torch.device:
        """Where the coordinates live."""
        return self.coords.device

    def to(self, device: torch.device | str) -> SparseGrid:
        """The same grid on another device, without its cached plans."""
        return (
            self
            if self.device == torch.device(device)
            else SparseGrid(self.coords.to(device), self.offsets, self.resolution)
        )

    def batch_index(self) -> Tensor:
        """(N,) int64: the item of each row."""
        items = torch.arange(self.batch_size, device=self.device)
        return torch.repeat_interleave(items, self.offsets.diff().to(self.device), output_size=len(self))

    def cached(self, name: Hashable, build: Callable[[], T]) -> T:
        """The plan called `name`, built on first use and kept as long as the grid: layers share it through this."""
        if name not in self._plans:
            self._plans[name] = build()
        return self._plans[name]

    def _place_bits(self) -> int:
        """Bits of a key below the item's number, after a check that the item's number still fits above them."""
        bits = 3 * max(self.resolution - 1, 1).bit_length()
        if (self.batch_size - 1).bit_length() + bits > 63:
            raise BadArgument(
                f"{self.batch_size} items of {self.resolution}^3 voxels do not fit 63-bit keys.",
                where="SparseGrid",
                hint=f"at most {1 << (63 - bits)} items in a batch.",
            )
        return bits

    def keys(self) -> Tensor:
        """(N,) int64 ascending: item above the Morton code."""

        def build() -> Tensor:
            return (self.batch_index() << self._place_bits()) | morton_encode(self.coords)

        return self.cached("keys", build)

    def lookup(self, coords: Tensor, batch: Tensor | int = 0) -> Tensor:
        """Rows (...,) int64 of coords (..., 3) in the given items, -1 where the voxel is not occupied."""
        if len(self) == 0:
            return coords.new_full(coords.shape[:-1], -1, dtype=torch.int64)
        inside = ((coords >= 0) & (coords < self.resolution)).all(-1)
        bits = self._place_bits()
        wanted = morton_encode(coords.clamp(0, self.resolution - 1)) | (
            torch.as_tensor(batch, device=coords.device) << bits
        )
        keys = self.keys()
        row = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
        return torch.where(inside & (keys[row] == wanted), row, -1)

    def neighbours(self) -> Tensor:
        """(N, 27) int32 rows of the 3^3 neighbourhood in `neighbour_taps` order, -1 where empty."""

        def build() -> Tensor:
            if self.parent is not None:
                return child_neighbours(self.parent.neighbours())
            around = self.coords[:, None] + neighbour_taps(self.device)
            return self.lookup(around, self.batch_index()[:, None]).to(torch.int32)

        return self.cached("neighbours", build)

    def children(self) -> SparseGrid:
        """The grid of twice the resolution in which each voxel is its 8 children; its neighbours take no search.

        Not cached: parent and child would keep each other, and the child's plans, until Python looks for cycles.
        """
        slots = morton_decode(torch.arange(8, device=self.device))
        coords = (self.coords[:, None] * 2 + slots).flatten(0, 1)
        return SparseGrid(coords, self.offsets * 8, self.resolution * 2, parent=self)

    def windows(self, size: int, shift: int = 0) -> WindowPlan:
        """Rows grouped into size^3 windows displaced by `shift` voxels; windows never cross items."""
        plan = self._plans.get((size, shift))
        if plan is None:
            cells = torch.div(self.coords + shift, size, rounding_mode="floor")
            bits = 3 * ((self.resolution + shift) // size + 1).bit_length()
            key = (self.batch_index() << bits) | morton_encode(cells)
            order = torch.argsort(key, stable=True)
            counts = torch.unique_consecutive(key[order], return_counts=True)[1]
            offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(torch.int32)
            inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
            plan = WindowPlan(order, inverse, offsets, int(counts.max()) if len(counts) else 0)
            self._plans[(size, shift)] = plan
        return plan

    def centres(self) -> Tensor:
        """(N, 3) float32 voxel centres in the unit cube."""
        return (self.coords.float() + 0.5) / self.resolution - 0.5
