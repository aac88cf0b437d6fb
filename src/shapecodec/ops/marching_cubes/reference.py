"""Marching cubes over blocks in plain torch: the specification, and the path for devices without a kernel."""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.ops.marching_cubes.blocks import SKIPPED, CellBlocks, Level
from shapecodec.ops.marching_cubes.tables import tables

NUDGE = 2.0**-10  # voxels that a vertex keeps from the ends of its edge: no zero triangle where a value is at the level


def extract(
    values: Tensor, blocks: CellBlocks, resolution: int, level: Level, index_dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Vertices (V, 3) float32 and faces (F, 3), ordered by block, voxel, then axis or slot of the triangle table."""
    cases, skipped = _cases(values, blocks, level), _skipped(blocks)
    inside = [(cases >> corner) & 1 for corner in (0, 4, 2, 1)]
    known = [(skipped >> corner) & 1 == 0 for corner in (4, 2, 1)]
    crossed = torch.stack(
        [(inside[0] != other) & at for other, at in zip(inside[1:], known, strict=True)], -1
    ).flatten()
    vertices = _vertices(values, blocks, resolution, level, crossed.nonzero()[:, 0])
    vertex_of = crossed.cumsum(0, dtype=torch.int32).sub_(1)
    return vertices, _faces(torch.where(skipped == 0, cases, 0), blocks, vertex_of).to(index_dtype)


def _cases(values: Tensor, blocks: CellBlocks, level: Level) -> Tensor:
    """(M * 512,) uint8: bit 4 x + 2 y + z of a cell says that corner (x, y, z) is inside."""
    count = len(blocks.coords)
    inside = torch.full((count, 8, 8, 8), level.fill_is_inside, device=values.device)
    inside[: len(values)] = level.inside(values)
    apron = torch.full((count, 9, 9, 9), level.fill_is_inside, device=values.device)
    own, next_one = (slice(0, 8), slice(0, 8)), (slice(8, 9), slice(0, 1))
    for tap in range(8):
        halo, inner = zip(*[next_one if tap & bit else own for bit in (4, 2, 1)], strict=True)
        row = blocks.upper[:, tap].long()
        part = inside[:, *inner][row.clamp(min=0)]
        apron[:, *halo] = torch.where((row >= 0).view(-1, 1, 1, 1), part, level.fill_is_inside)
    cases = torch.zeros((count, 8, 8, 8), dtype=torch.uint8, device=values.device)
    for corner in range(8):
        x, y, z = corner >> 2, corner >> 1 & 1, corner & 1
        cases |= apron[:, x : x + 8, y : y + 8, z : z + 8].to(torch.uint8) << corner
    return cases.flatten()


def _skipped(blocks: CellBlocks) -> Tensor:
    """(M * 512,) uint8: bit 4 x + 2 y + z of a cell says that corner (x, y, z) lies in a skipped block."""
    place = torch.arange(8, device=blocks.upper.device)
    bits = torch.zeros((len(blocks.coords), 8, 8, 8), dtype=torch.uint8, device=blocks.upper.device)
    for corner in range(8):
        x, y, z = ((place + (corner >> shift & 1)) // 8 << shift for shift in (2, 1, 0))
        tap = x[:, None, None] + y[:, None] + z
        bits |= (blocks.upper == SKIPPED)[:, tap].to(torch.uint8) << corner
    return bits.flatten()


def _locate(blocks: CellBlocks, row: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
    """Block row (-1 if absent) and voxel index of places (Q, 3) in 0..8, counted from blocks `row` (Q,)."""
    beyond = place >> 3
    tap = beyond[:, 0] * 4 + beyond[:, 1] * 2 + beyond[:, 2]
    local = place & 7
    return blocks.upper[row, tap].long(), local[:, 0] * 64 + local[:, 1] * 8 + local[:, 2]


def _place(voxel: Tensor) -> Tensor:
    """(Q,) voxel index in a block -> (Q, 3) place."""
    return torch.stack([voxel // 64, voxel // 8 % 8, voxel % 8], 1)


def _vertices(values: Tensor, blocks: CellBlocks, resolution: int, level: Level, edge: Tensor) -> Tensor:
    """(V, 3) points where the field, linear along each edge (row * 512 + voxel) * 3 + axis, meets the level."""
    row, voxel, axis = edge // 1536, edge // 3 % 512, edge % 3
    step = torch.nn.functional.one_hot(axis, 3)
    place = _place(voxel)

    def value_at(row: Tensor, voxel: Tensor) -> Tensor:
        known = (row >= 0) & (row < len(values))
        return torch.where(known, values.reshape(-1)[torch.where(known, row * 512 + voxel, 0)], level.fill)

    low, high = value_at(row, voxel), value_at(*_locate(blocks, row, place + step))
    gap = high - low
    along = torch.where(gap.abs() < 3e38, (level.threshold - low) / gap, 0.5).clamp(NUDGE, 1 - NUDGE)
    centred = (blocks.coords[row] * 8 + place - resolution // 2).float() + 0.5
    return (centred + step * along[:, None]) * (1.0 / resolution)


def _faces(cases: Tensor, blocks: CellBlocks, vertex_of: Tensor) -> Tensor:
    """(F, 3) int32 from the triangle table; the vertex of an edge belongs to the block and voxel of its low corner."""
    derived = tables()
    triangles = torch.tensor(derived.triangles, device=cases.device)
    edges = torch.tensor(derived.edges, device=cases.device).long()
    cell = (torch.tensor(derived.counts, device=cases.device) > 0)[cases.long()].nonzero()[:, 0]
    slots = triangles[cases[cell].long()]
    used = slots >= 0
    edge = edges[slots[used].long()]
    cell = cell.repeat_interleave(used.sum(1))
    row, voxel = _locate(blocks, cell // 512, _place(cell % 512) + edge[:, :3])
    return vertex_of[(row * 512 + voxel) * 3 + edge[:, 3]].view(-1, 3)
