"""Both operations as Triton kernels: a lane a point, eight binary searches for its cells, then their points in turn."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from shapecodec.ops.layer_pairs import REACH, VertexCells
from shapecodec.ops.layer_pairs.cells import CellList, cell_key, list_cells

__all__ = ["covered_vertices", "list_cells", "opposite_vertices"]

POINTS = 128  # a program; lanes are in the order of cells, so a program's lanes walk the same few cells


def _first_keys(cells: CellList) -> Tensor:
    """(V,) int64 key of each point's lowest cell, in the order of cells."""
    return cell_key(cells.low[cells.order]).contiguous()


def opposite_vertices(listed: VertexCells, directions: Tensor, thickness: float, alignment: float) -> Tensor:
    """See the package."""
    points, cells = listed.points, listed.cells
    near, towards = points[cells.order], directions[cells.order]
    found = torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
    _opposite[(triton.cdiv(len(points), POINTS),)](
        near, towards, cells.order, cells.keys, cells.start, _first_keys(cells), found,
        len(points), len(cells.keys), float(thickness), float(alignment), REACH * REACH,
        STEPS=_steps(len(cells.keys)), POINTS=POINTS,
    )  # fmt: skip
    return found


def covered_vertices(listed: VertexCells, owner: Tensor, asked: Tensor) -> Tensor:
    """See the package."""
    points, cells = listed.points, listed.cells
    covered = torch.zeros(len(points), dtype=torch.int8, device=points.device)
    _covered[(triton.cdiv(len(points), POINTS),)](
        points[cells.order], owner[cells.order], asked[cells.order].to(torch.int8), cells.order, cells.keys,
        cells.start, _first_keys(cells), covered, len(points), len(cells.keys), REACH * REACH,
        STEPS=_steps(len(cells.keys)), POINTS=POINTS,
    )  # fmt: skip
    return covered.bool()


def _steps(cells: int) -> int:
    """Halvings of a binary search, in steps of four so that few variants are compiled."""
    return (cells.bit_length() + 3) // 4 * 4


@triton.jit
def _range(
    keys: tl.tensor, start: tl.tensor, cells: tl.tensor, key: tl.tensor, keep: tl.tensor, STEPS: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    low = tl.zeros_like(key)
    high = low + cells
    for _ in range(STEPS):
        middle = (low + high) >> 1
        below = (low < high) & (tl.load(keys + middle, mask=keep & (low < high), other=0) < key)
        high = tl.where(below | (low >= high), high, middle)
        low = tl.where(below, middle + 1, low)
    hit = keep & (low < cells)
    hit = hit & (tl.load(keys + low, mask=hit, other=-1) == key)
    return tl.load(start + low, mask=hit, other=0), tl.load(start + low + 1, mask=hit, other=0)


@triton.jit
def _opposite(
    near: tl.tensor, towards: tl.tensor, order: tl.tensor, keys: tl.tensor, start: tl.tensor, first_key: tl.tensor,
    found: tl.tensor,
    count: tl.tensor, cells: tl.tensor, thickness: tl.tensor, alignment: tl.tensor, reach: tl.tensor,
    STEPS: tl.constexpr, POINTS: tl.constexpr,
) -> None:  # fmt: skip
    lane = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    keep = lane < count
    px = tl.load(near + lane * 3, mask=keep, other=0.0)
    py = tl.load(near + lane * 3 + 1, mask=keep, other=0.0)
    pz = tl.load(near + lane * 3 + 2, mask=keep, other=0.0)
    dx = tl.load(towards + lane * 3, mask=keep, other=0.0)
    dy = tl.load(towards + lane * 3 + 1, mask=keep, other=0.0)
    dz = tl.load(towards + lane * 3 + 2, mask=keep, other=0.0)
    key = tl.load(first_key + lane, mask=keep, other=0)
    best = tl.full([POINTS], float("inf"), tl.float32)
    partner = tl.full([POINTS], -1, tl.int64)
    for corner in tl.static_range(8):
        step = ((corner >> 2) << 42) + ((corner >> 1 & 1) << 21) + (corner & 1)
        place, end = _range(keys, start, cells, key + step, keep, STEPS)
        while tl.max((place < end).to(tl.int32), axis=0) > 0:
            live = place < end
            ox = tl.load(towards + place * 3, mask=live, other=0.0)
            oy = tl.load(towards + place * 3 + 1, mask=live, other=0.0)
            oz = tl.load(towards + place * 3 + 2, mask=live, other=0.0)
            live = live & (dx * ox + dy * oy + dz * oz <= alignment)
            wx = tl.load(near + place * 3, mask=live, other=0.0) - px
            wy = tl.load(near + place * 3 + 1, mask=live, other=0.0) - py
            wz = tl.load(near + place * 3 + 2, mask=live, other=0.0) - pz
            along = wx * dx + wy * dy + wz * dz
            square = wx * wx + wy * wy + wz * wz
            live = live & (tl.abs(along) <= thickness) & (square <= reach)
            beside = square - along * along
            other = tl.load(order + place, mask=live, other=-1)
            closer = live & ((beside < best) | ((beside == best) & (other < partner)))
            best = tl.where(closer, beside, best)
            partner = tl.where(closer, other, partner)
            place += 1
    tl.store(found + tl.load(order + lane, mask=keep, other=0), partner, mask=keep)


@triton.jit
def _covered(
    near: tl.tensor, owner: tl.tensor, asked: tl.tensor, order: tl.tensor, keys: tl.tensor, start: tl.tensor,
    first_key: tl.tensor, covered: tl.tensor,
    count: tl.tensor, cells: tl.tensor, reach: tl.tensor, STEPS: tl.constexpr, POINTS: tl.constexpr,
) -> None:  # fmt: skip
    lane = tl.program_id(0).to(tl.int64) * POINTS + tl.arange(0, POINTS)
    keep = lane < count
    ask = tl.load(asked + lane, mask=keep, other=0) != 0
    px = tl.load(near + lane * 3, mask=ask, other=0.0)
    py = tl.load(near + lane * 3 + 1, mask=ask, other=0.0)
    pz = tl.load(near + lane * 3 + 2, mask=ask, other=0.0)
    own = tl.load(owner + lane, mask=ask, other=0)
    key = tl.load(first_key + lane, mask=ask, other=0)
    hit = tl.zeros([POINTS], tl.int32)
    for corner in tl.static_range(8):
        step = ((corner >> 2) << 42) + ((corner >> 1 & 1) << 21) + (corner & 1)
        place, end = _range(keys, start, cells, key + step, ask & (hit == 0), STEPS)
        while tl.max((place < end).to(tl.int32), axis=0) > 0:
            live = place < end
            wx = tl.load(near + place * 3, mask=live, other=0.0) - px
            wy = tl.load(near + place * 3 + 1, mask=live, other=0.0) - py
            wz = tl.load(near + place * 3 + 2, mask=live, other=0.0) - pz
            other = tl.load(owner + place, mask=live, other=-1)
            live = live & (wx * wx + wy * wy + wz * wz <= reach) & (other >= 0) & (other != own)
            hit = hit | live.to(tl.int32)
            place += 1
    tl.store(covered + tl.load(order + lane, mask=keep, other=0), hit.to(tl.int8), mask=keep)
