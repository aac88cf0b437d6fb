"""ConvPlan: what every sparse convolution over one grid shares, derived once from its neighbour table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid, child_neighbours
from shapecodec.ops.neighbour_table import neighbour_table

TAPS = 27
# Rows of one matrix tile; tiles skip the taps that none of their rows has. Sphere of 60k voxels, 14.7 taps a row: tiles of
# 128 need 17.8, of 256 19.5.
TILE_ROWS, TALL_TILE_ROWS = 128, 256

# Rows are sorted by neighbour pattern only within stretches of this many rows: a stretch of 256 bf16 channels is 34 MB,
# which stays in the L2 cache of a data-centre GPU (50 MB on an H100) while its tiles gather from it.
SORT_STRETCH = 1 << 16


@dataclass(frozen=True)
class Pairs:
    """The (output row, input row) pairs of all taps, sorted by tap, then output row.

    Args:
        target: (P,) int64 output rows.
        source: (P,) int64 input rows.
        bounds: 28 positions on the host; tap t owns pairs bounds[t] : bounds[t + 1].
    """

    target: Tensor
    source: Tensor
    bounds: list[int]


@dataclass(frozen=True)
class Tiles:
    """Rows sorted so that a tile's rows share their taps, and the taps that each tile needs.

    Args:
        rows: (T * H,) int32 grid rows in tile order, padded with -1; H is the height of a tile.
        taps: (T, 27) int32: first the `counts` taps of each tile that some row has, ascending, then the others.
        counts: (T,) int32.
        table: (T, 27, H) int32: neighbours of the tile's rows at taps[tile], -1 where empty.
    """

    rows: Tensor
    taps: Tensor
    counts: Tensor
    table: Tensor


@dataclass(frozen=True, eq=False)
class ConvPlan:
    """Plan of the 3^3 submanifold convolution over one grid; parts are built on first use and kept.

    Args:
        neighbours: (N, 27) int32 in `grid.neighbour_taps` order, -1 where empty. The relation must be symmetric, as
            that of a grid is: j is i's neighbour at tap t exactly if i is j's neighbour at tap 26 - t.
    """

    neighbours: Tensor

    def __post_init__(self) -> None:
        if self.neighbours.ndim != 2 or self.neighbours.shape[1] != TAPS or self.neighbours.dtype != torch.int32:
            raise BadArgument(
                f"neighbours are {self.neighbours.dtype} {tuple(self.neighbours.shape)}, not int32 (N, {TAPS}).",
                where="sparse_conv",
                hint="grid.neighbours().",
            )

    def __len__(self) -> int:
        return len(self.neighbours)

    @property
    def device(self) -> torch.device:
        """Where the tables live."""
        return self.neighbours.device

    @cached_property
    def pairs(self) -> Pairs:
        """All pairs, sorted by tap; waits for the device twice, for their number and for 28 bounds."""
        count = len(self)
        table = self.neighbours.t().flatten()
        place = (table >= 0).nonzero()[:, 0]  # tap * N + row
        edges = torch.arange(TAPS + 1, device=place.device) * count
        bounds = torch.searchsorted(place, edges).tolist()
        return Pairs(place % max(count, 1), table[place].to(torch.int64), bounds)

    @cached_property
    def tiles(self) -> Tiles:
        """Tiles of TILE_ROWS rows for the gather kernel; stays on the device."""
        return self._tiles(TILE_ROWS)

    @cached_property
    def tall_tiles(self) -> Tiles:
        """Tiles of TALL_TILE_ROWS rows, for few columns: the weights are read half as often."""
        return self._tiles(TALL_TILE_ROWS)

    @cached_property
    def _order(self) -> Tensor:
        """(N,) int64: the rows sorted by pattern within their stretches."""
        row = torch.arange(len(self), device=self.device)
        return torch.argsort((row // SORT_STRETCH << TAPS) | _pattern_rank(self.neighbours >= 0), stable=True)

    def _tiles(self, height: int) -> Tiles:
        count, device, order = len(self), self.device, self._order
        tiles = -(-count // height)
        rows = torch.full((tiles * height,), -1, dtype=torch.int32, device=device)
        rows[:count] = order.to(torch.int32)
        padded = torch.full((tiles * height, TAPS), -1, dtype=torch.int32, device=device)
        padded[:count] = self.neighbours[order]
        table = padded.view(tiles, height, TAPS).transpose(1, 2)
        used = (table >= 0).any(2)
        # A stable descending sort of booleans lists the used taps first, in ascending order.
        taps = torch.argsort(used.to(torch.int8), dim=1, descending=True, stable=True)
        table = table.gather(1, taps[:, :, None].expand(-1, -1, height))
        return Tiles(rows, taps.to(torch.int32), used.sum(1, dtype=torch.int32), table)


class BrickPlan(ConvPlan):
    """The plan of a grid of `children`: whole 2^3 bricks, row 8 i + slot, found through the table of their parents.

    Kernels that know it read the parents' table, an eighth of the children's: nothing is built, sorted or sent to the
    host. The children's own table, pairs and tiles exist for the others, on first use.

    Args:
        above: (N, 27) int32 neighbours of the parents.
    """

    above: Tensor

    def __init__(self, above: Tensor) -> None:
        object.__setattr__(self, "above", above)  # the base is frozen

    def __len__(self) -> int:
        return 8 * len(self.above)

    @property
    def device(self) -> torch.device:
        """Where the tables live."""
        return self.above.device

    @cached_property
    def neighbours(self) -> Tensor:
        """(8 N, 27) int32 neighbours of the children."""
        return child_neighbours(self.above)


def _pattern_rank(valid: Tensor) -> Tensor:
    """(N,) int64 rank of each row's pattern of taps (N, 27) bool: rows with nearby ranks share most taps.

    The most evenly split taps are the highest bits, and ranks follow the Gray code, so that neighbours in rank differ
    in few taps. Sphere of 60k voxels, 14.7 taps a row: tiles of 128 need 25.5 taps in Morton order, 18.4 sorted by the
    plain bit pattern, 17.8 so.
    """
    share = valid.float().mean(0) if len(valid) else valid.new_zeros(TAPS, dtype=torch.float32)
    by_balance = torch.argsort((share - 0.5).abs(), descending=True, stable=True)
    bits = torch.empty_like(by_balance).scatter_(0, by_balance, torch.arange(TAPS, device=valid.device))
    rank = (valid.to(torch.int32) << bits.to(torch.int32)).sum(1)  # 27 bits each, sums are int64
    for shift in (1, 2, 4, 8, 16):
        rank = rank ^ (rank >> shift)
    return rank


def conv_plan(grid: SparseGrid) -> ConvPlan:
    """The plan of a grid, built once and cached on it."""

    def build() -> ConvPlan:
        return ConvPlan(neighbour_table(grid)) if grid.parent is None else BrickPlan(neighbour_table(grid.parent))

    return grid.cached("sparse_conv", build)
