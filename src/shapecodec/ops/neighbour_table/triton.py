"""Tables of neighbours in one launch: by binary search of the sorted keys, or from the table of the parents.

Thirteen taps are searched, the other thirteen are the same pairs seen back. In torch the coordinates, codes and searches of
all 27 taps are written out, 2 KB a voxel; here 27 rows are.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from shapecodec.grid import TAPS, SparseGrid

ROWS = 128


@triton.jit
def _spread(axis: tl.tensor) -> tl.tensor:
    """Bits of a coordinate below 2^20, three places apart, as `grid.morton_encode` has them."""
    axis = axis.to(tl.int64)
    axis = (axis | (axis << 32)) & 0x1F00000000FFFF
    axis = (axis | (axis << 16)) & 0x1F0000FF0000FF
    axis = (axis | (axis << 8)) & 0x100F00F00F00F00F
    axis = (axis | (axis << 4)) & 0x10C30C30C30C30C3
    return (axis | (axis << 2)) & 0x1249249249249249


@triton.jit
def _search_kernel(
    coords: tl.tensor,
    keys: tl.tensor,
    table: tl.tensor,
    count: tl.tensor,
    resolution: tl.tensor,
    place_bits: tl.tensor,
    steps: tl.tensor,
    ROWS: tl.constexpr,
) -> None:
    """Taps 0 to 13 of ROWS rows, and taps 26 to 14 of the neighbours found."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    live = row < count
    item = tl.load(keys + row, mask=live, other=0) >> place_bits << place_bits
    tl.store(table + row * 27 + 13, row.to(tl.int32), mask=live)
    for tap in range(13):
        x = tl.load(coords + row * 3, mask=live, other=-1) + tap // 9 - 1
        y = tl.load(coords + row * 3 + 1, mask=live, other=-1) + tap // 3 % 3 - 1
        z = tl.load(coords + row * 3 + 2, mask=live, other=-1) + tap % 3 - 1
        inside = live & (tl.minimum(tl.minimum(x, y), z) >= 0) & (tl.maximum(tl.maximum(x, y), z) < resolution)
        wanted = item | (_spread(x) << 2) | (_spread(y) << 1) | _spread(z)
        low = tl.zeros((ROWS,), dtype=tl.int64)  # of the rows that may be the first not below the wanted key
        high = low + count
        for _ in range(steps):
            searching = inside & (low < high)
            middle = (low + high) >> 1
            below = tl.load(keys + middle, mask=searching, other=0) < wanted
            low = tl.where(searching & below, middle + 1, low)
            high = tl.where(searching & below, high, tl.where(searching, middle, high))
        found = inside & (low < count)
        found = found & (tl.load(keys + low, mask=found, other=0) == wanted)
        tl.store(table + row * 27 + tap, low.to(tl.int32), mask=found)
        tl.store(table + low * 27 + 26 - tap, row.to(tl.int32), mask=found)


@triton.jit
def child_neighbour(above: tl.tensor, row: tl.tensor, live: tl.tensor, tap: tl.tensor) -> tl.tensor:
    """Rows of the neighbours of children `row` at one tap, by the parents' table `above`; -1 where empty or not live."""
    x = ((row >> 2) & 1) + tap // 9 - 1  # of the neighbour, in voxels from the parent's corner: -1 to 2
    y = ((row >> 1) & 1) + tap // 3 % 3 - 1
    z = (row & 1) + tap % 3 - 1
    parent_tap = ((x + 2) >> 1) * 9 + ((y + 2) >> 1) * 3 + ((z + 2) >> 1)
    parent = tl.load(above + (row >> 3) * 27 + parent_tap, mask=live, other=-1)
    return tl.where(parent >= 0, parent * 8 + (x & 1) * 4 + (y & 1) * 2 + (z & 1), -1)


@triton.jit
def _derive_kernel(
    above: tl.tensor, table: tl.tensor, count: tl.tensor, ROWS: tl.constexpr, TAPS: tl.constexpr
) -> None:
    """ROWS children, all taps; TAPS is the power of two that covers 27."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    tap = tl.arange(0, TAPS)[None, :]
    live = (row < count) & (tap < 27)
    tl.store(table + row * 27 + tap, child_neighbour(above, row, live, tap), mask=live)


def derive(above: Tensor) -> Tensor:
    """(8 N, 27) int32 table of the children of a grid whose table is `above`, (N, 27) int32."""
    count = 8 * len(above)
    table = above.new_empty(count, TAPS)
    if count:
        _derive_kernel[(triton.cdiv(count, ROWS),)](above, table, count, ROWS=ROWS, TAPS=32, num_warps=8)
    return table


def search(grid: SparseGrid) -> Tensor:
    """See the package; the grid has no parent."""
    count = len(grid)
    table = torch.full((count, TAPS), -1, dtype=torch.int32, device=grid.device)
    if count:
        bits = 3 * max(grid.resolution - 1, 1).bit_length()  # below the number of the item, as in `grid.keys`
        _search_kernel[(triton.cdiv(count, ROWS),)](
            grid.coords.contiguous(),
            grid.keys(),
            table,
            count,
            grid.resolution,
            bits,
            count.bit_length(),
            ROWS=ROWS,
            num_warps=4,
        )
    return table
