"""Chooses which regions of a double-layered shell to keep, so that every place of the surface is kept, once if possible.

A dropped vertex whose opposite is dropped too, or that nothing else covers, is lost: thin walls have no inner layer, narrow
gaps no outer one. A kept vertex whose opposite is kept is double. What is lost weighs more than what is double by a factor
that the caller sets.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shapecodec.codecs.log3d.regions import Regions, Shell
from shapecodec.ops.layer_pairs import VertexCells, covered_vertices

TEAR = 100.0  # price of an edge between a kept vertex that nobody else covers and a dropped one: it would be a hole
SEAM = 0.5  # price of any other edge between kept and dropped: a rim costs little, a ragged cut does
PREFERENCE = 1e-3  # vertices: decides between equals
IDLE = 0.25  # price of keeping a vertex that has no opposite but is covered


@dataclass(frozen=True)
class Balance:
    """What keeping and dropping regions costs.

    Args:
        drop: (R,) float64 vertices lost by dropping the region whatever else is kept.
        keep: (R,) float64 vertices doubled by keeping it.
        first, second, pairs: (P,) regions that lie opposite to each other and how many vertices do.
        seam_kept, seam_dropped, seam: (S,) regions with a common border and what keeping one and dropping the other costs.
    """

    drop: np.ndarray
    keep: np.ndarray
    first: np.ndarray
    second: np.ndarray
    pairs: np.ndarray
    seam_kept: np.ndarray
    seam_dropped: np.ndarray
    seam: np.ndarray


def weigh(shell: Shell, regions: Regions, cells: VertexCells) -> Balance:
    """Counts vertices and edges, on the shell's device; the result is small and lies on the CPU."""
    region, other = regions.region, shell.opposite
    count = int(region.max()) + 1
    alone = other < 0
    covered = covered_vertices(cells, region, alone)
    uncovered = alone & ~covered
    vertex = (~alone).nonzero()[:, 0]
    first, second, pairs = _count_between(region[vertex], region[other[vertex]], count)
    within = first == second
    own = torch.zeros(count, dtype=torch.float64, device=region.device).index_add_(0, first[within], pairs[within] / 2)
    start, end = regions.seams.unbind(1)
    tears = uncovered[start]
    torn, torn_from, tear_count = _count_between(region[start[tears]], region[end[tears]], count)
    beside, beside_from, seam_count = _count_between(region[start], region[end], count)
    arrays = (
        torch.bincount(region[uncovered], minlength=count) + own,
        own + IDLE * torch.bincount(region[alone & covered], minlength=count),
        first[~within],
        second[~within],
        pairs[~within] / 2,
        torch.cat([torn, beside]),
        torch.cat([torn_from, beside_from]),
        torch.cat([tear_count * TEAR, seam_count * SEAM]),
    )
    return Balance(*(array.cpu().numpy() for array in arrays))


def _count_between(first: Tensor, second: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct rows of (first, second) and how often each occurs (float64)."""
    key, times = torch.unique_consecutive(first * count + second, return_counts=True)
    key, place = torch.unique(key, return_inverse=True)
    total = torch.zeros(len(key), dtype=torch.int64, device=key.device).index_add_(0, place, times)
    return torch.div(key, count, rounding_mode="floor"), key % count, total.double()


def choose_regions(balance: Balance, lost_weight: float, prefer: np.ndarray) -> np.ndarray:
    """Starting from all regions, changes the one that gains most until nothing gains.

    Args:
        balance: from `weigh`.
        lost_weight: price of a lost vertex, where a doubled one costs 1.
        prefer: (R,) bool, which to keep of two that are equally good.

    Returns:
        (R,) bool, the regions to keep.
    """
    count = len(balance.drop)
    table = _Prices.build(balance, lost_weight)
    saved = balance.keep - balance.drop * lost_weight + table.savings(np.ones(count, bool))
    kept = np.ones(count, bool)
    bias = np.where(prefer, -PREFERENCE, PREFERENCE)  # what dropping a region saves beyond its price
    for _ in range(4 * count):
        gain = np.where(kept, saved + bias, -saved - bias)
        best = int(np.argmax(gain))
        if gain[best] <= PREFERENCE / 10:
            break
        kept[best] = ~kept[best]
        neighbours, change = table.around(best)
        np.add.at(saved, neighbours, change if kept[best] else -change)
    return kept


@dataclass(frozen=True)
class _Prices:
    """What dropping the region of a row saves through its neighbour, which is kept or dropped itself.

    Sorted by neighbour: rows start[r] : start[r + 1] are those that region r is the neighbour in.
    """

    start: np.ndarray
    rows: np.ndarray
    neighbour: np.ndarray
    if_kept: np.ndarray
    if_dropped: np.ndarray

    @staticmethod
    def build(balance: Balance, lost_weight: float) -> _Prices:
        """Both directions of every pair and every seam."""
        rows = np.concatenate([balance.first, balance.second, balance.seam_kept, balance.seam_dropped])
        neighbour = np.concatenate([balance.second, balance.first, balance.seam_dropped, balance.seam_kept])
        pairs, seam, none = np.tile(balance.pairs, 2), balance.seam, np.zeros(len(balance.seam))
        if_kept = np.concatenate([pairs, none, -seam])
        if_dropped = np.concatenate([-lost_weight * pairs, seam, none])
        order = np.argsort(neighbour, kind="stable")
        start = np.searchsorted(neighbour[order], np.arange(len(balance.drop) + 1))
        return _Prices(start, rows[order], neighbour[order], if_kept[order], if_dropped[order])

    def savings(self, kept: np.ndarray) -> np.ndarray:
        """(R,) saved by dropping each region, given which are kept."""
        price = np.where(kept[self.neighbour], self.if_kept, self.if_dropped)
        return np.bincount(self.rows, price, minlength=len(self.start) - 1)

    def around(self, region: int) -> tuple[np.ndarray, np.ndarray]:
        """Regions beside one (repeated), and how much more dropping them saves when it is kept than when it is not."""
        span = slice(self.start[region], self.start[region + 1])
        return self.rows[span], self.if_kept[span] - self.if_dropped[span]
