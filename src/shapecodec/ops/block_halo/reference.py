"""Halo gather and its average in plain torch: the specification.

On one axis, index a of a padded block is the voxel q = a - pad of the block itself, and lies in the neighbour at offset
floor(q / 8). So each of the 27 taps fills one box of the halo. Seen from the other side, the neighbour at the opposite
offset holds that box of ours in its own halo, which makes `collect` the adjoint of `gather` over the same boxes.
One tap's box is in memory at a time: (L, 27, 8, 8, 8) would be 19 GB at 2048^3.
"""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

SIDE = 8  # voxels on a block's side
Box = tuple[slice, slice, slice]


def _boxes(pad: int) -> list[tuple[int, Box, Box]]:
    """For each tap of `neighbour_taps`: (tap, its box in the padded block, the same box in the neighbour's voxels)."""
    halo = {-1: slice(0, pad), 0: slice(pad, SIDE + pad), 1: slice(SIDE + pad, SIDE + 2 * pad)}
    inner = {-1: slice(SIDE - pad, SIDE), 0: slice(0, SIDE), 1: slice(0, pad)}
    return [
        (tap, (halo[x], halo[y], halo[z]), (inner[x], inner[y], inner[z]))
        for tap, (x, y, z) in enumerate(product((-1, 0, 1), repeat=3))
        if pad > 0 or (x, y, z) == (0, 0, 0)
    ]


def _rows_or(values: Tensor, row: Tensor, absent: float) -> Tensor:
    """values (L, a, b, c) taken at rows (L,), `absent` where the row is -1."""
    return torch.where((row >= 0).view(-1, 1, 1, 1), values[row.clamp(min=0)], absent)


def gather(values: Tensor, neighbours: Tensor, pad: int, fill: float) -> Tensor:
    """(L, 8, 8, 8) and (L, 27) neighbours -> (L, S, S, S) with S = 8 + 2 pad, same dtype; absent blocks read `fill`."""
    size = SIDE + 2 * pad
    out = values.new_full((len(values), size, size, size), fill)
    for tap, halo, inner in _boxes(pad):
        out[:, *halo] = _rows_or(values[:, *inner], neighbours[:, tap].long(), fill)
    return out


def collect(values: Tensor, neighbours: Tensor, pad: int, mean: bool) -> Tensor:
    """(L, S, S, S) -> (L, 8, 8, 8) float32: sum, or mean, over every padded block that covers the voxel."""
    total = torch.zeros((len(values), SIDE, SIDE, SIDE), dtype=torch.float32, device=values.device)
    for tap, halo, inner in _boxes(pad):
        total[:, *inner] += _rows_or(values[:, *halo].float(), neighbours[:, 26 - tap].long(), 0.0)
    return total / cover_count(neighbours, pad) if mean else total


def cover_count(neighbours: Tensor, pad: int) -> Tensor:
    """(L, 8, 8, 8) float32: how many padded blocks cover each voxel, 1 to 8."""
    count = torch.zeros((len(neighbours), SIDE, SIDE, SIDE), dtype=torch.float32, device=neighbours.device)
    for tap, _, inner in _boxes(pad):
        count[:, *inner] += (neighbours[:, 26 - tap] >= 0).view(-1, 1, 1, 1)
    return count


def divide_by_cover(values: Tensor, neighbours: Tensor, pad: int) -> Tensor:
    """(L, 8, 8, 8) -> (L, 8, 8, 8) float32, each voxel divided by `cover_count`: half of the mean's adjoint."""
    return values.float() / cover_count(neighbours, pad)
