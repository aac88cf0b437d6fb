"""The extraction in Triton: one pass over all voxels, one over the cut ones, one over the quads, and three for gradients.

All voxels are read once, to count: 64 bytes of corner rows and 8 values, the neighbours only where the signs differ. The
rest runs over the cut voxels, a tenth to a fifth of whole bricks. There is one transfer to the host, of the four sizes. No
sum is atomic: vertices and faces are written to places that prefix sums give, and gradients of corners are gathered, so
the same input gives the same bits. Order of vertices and faces is that of the reference.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor
from torch.autograd.function import once_differentiable

from shapecodec.grid import SparseGrid
from shapecodec.ops.flex_surface.corners import Corners
from shapecodec.ops.flex_surface.tables import MOST_GROUPS, tables
from shapecodec.ops.flex_surface.triton import backward, forward
from shapecodec.ops.neighbour_table import neighbour_table

WORD = 1 << 32  # two counts share an int64


@dataclass(frozen=True)
class _Plan:
    """What the signs decide.

    Args:
        codes: (N,) int16, see `frames`.
        ends: (N,) int64, see `frames`.
        rows: (S,) int32 voxels that the surface cuts.
        slots: (N,) int32, their inverse, -1 elsewhere.
        vertices: dual vertices in quads.
        quads: grid edges with four voxels.
        edges: pairs of cut voxel and cut edge.
    """

    codes: Tensor
    ends: Tensor
    rows: Tensor
    slots: Tensor
    vertices: int
    quads: int
    edges: int


@cache
def _table_tensors(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """`groups` (256, 16) int8: group + 8 on its first edge, -1 if not cut; `loops` (256, 4) int16 edges; `switches` int8."""
    table = tables()
    groups = np.full((256, 16), -1, np.int8)
    groups[:, :12] = np.where(table.group < 0, -1, table.group + 8 * (table.slot == 0))
    mine = table.group[:, None] == np.arange(MOST_GROUPS)[:, None]
    loops = (mine << np.arange(12)).sum(2).astype(np.int16)
    with torch.inference_mode(False):  # kept for later calls, whose gradients may need them
        arrays = groups, loops, table.switch.astype(np.int8)
        return tuple(torch.tensor(array, device=device) for array in arrays)  # type: ignore[return-value]


def _grid(count: int, values: Tensor, block: int) -> tuple[tuple[int], int]:
    """Programs and voxels of each; larger ones under the interpreter, where the number of programs is what costs."""
    block = block if values.is_cuda else 256
    return (triton.cdiv(count, block),), block


def _plan(index: Tensor, neighbours: Tensor, sdf: Tensor) -> _Plan:
    count, device = len(index), sdf.device
    _, loops, switches = _table_tensors(device)
    codes = torch.empty(count, dtype=torch.int16, device=device)
    emitted, cuts = (torch.empty(count, dtype=torch.int64, device=device) for _ in range(2))
    programs, block = _grid(count, sdf, 128)
    forward.count_voxels[programs](sdf, index, neighbours, switches, loops, codes, emitted, cuts, count, BLOCK=block)
    ends, cut_ends = emitted.cumsum(0), cuts.cumsum(0)
    made, cut = torch.stack([ends[-1], cut_ends[-1]]).tolist()
    rows = torch.empty(cut % WORD, dtype=torch.int32, device=device)
    slots = torch.empty(count, dtype=torch.int32, device=device)
    programs, block = _grid(count, sdf, 1024)
    forward.list_cut[programs](codes, cut_ends, rows, slots, count, BLOCK=block)
    return _Plan(codes, ends, rows, slots, made % WORD, made // WORD, cut // WORD)


class _Extract(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        sdf: Tensor,
        deformation: Tensor,
        alpha: Tensor,
        beta: Tensor,
        gamma: Tensor,
        coords: Tensor,
        corners: Corners,
        neighbours: Tensor,
        with_centres: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        index, count = corners.index, len(corners.index)
        plan = _plan(index, neighbours, sdf)
        device, cut = sdf.device, len(plan.rows)
        total = plan.vertices + plan.quads if with_centres else plan.vertices
        vertices = torch.empty((total, 3), dtype=sdf.dtype, device=device)
        faces = torch.empty((plan.quads * (4 if with_centres else 2), 3), dtype=torch.int64, device=device)
        deviation = sdf.new_zeros(())
        if cut:
            groups = _table_tensors(device)[0]
            programs, block = _grid(cut, sdf, 32)
            deviations = sdf.new_empty(programs)
            forward.place_vertices[programs](
                coords, index, sdf, deformation, alpha, beta, plan.codes, plan.ends, groups, plan.rows, vertices,
                deviations, cut, corners.resolution, BLOCK=block,
            )  # fmt: skip
            deviation = deviations.sum() / (plan.edges * corners.resolution)
            programs, block = _grid(cut, sdf, 64)
            forward.write_quads[programs](
                index, neighbours, sdf, gamma, plan.codes, plan.ends, groups, plan.rows, vertices, faces, cut,
                plan.vertices, CENTRES=with_centres, BLOCK=block,
            )  # fmt: skip
        ctx.save_for_backward(sdf, deformation, alpha, beta, gamma, vertices)
        ctx.plan, ctx.corners, ctx.neighbours, ctx.with_centres, ctx.voxels = (
            plan,
            corners,
            neighbours,
            with_centres,
            count,
        )
        ctx.mark_non_differentiable(faces)
        return vertices, faces, deviation

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        sdf, deformation, alpha, beta, gamma, vertices = ctx.saved_tensors
        plan, corners, neighbours = ctx.plan, ctx.corners, ctx.neighbours
        grad, grad_deviation = grads[0].contiguous(), grads[2].contiguous()
        own = [torch.zeros_like(value) for value in (alpha, beta, gamma)]
        cut = len(plan.rows)
        if cut == 0:
            return torch.zeros_like(sdf), torch.zeros_like(deformation), *own, None, None, None, None
        groups = _table_tensors(sdf.device)[0]
        quads = sdf.new_empty((plan.quads if ctx.with_centres else 0, 8))
        if len(quads):
            programs, block = _grid(cut, sdf, 64)
            backward.centre_gradients[programs](
                neighbours, gamma, plan.codes, plan.ends, groups, plan.rows, vertices, grad, quads, cut, plan.vertices,
                BLOCK=block,
            )  # fmt: skip
        at_corners = sdf.new_empty((cut, 8, 4))
        programs, block = _grid(cut, sdf, 16)
        backward.voxel_gradients[programs](
            corners.index, neighbours, sdf, deformation, alpha, beta, gamma, plan.codes, plan.ends, groups, plan.rows, grad,
            grad_deviation, quads, at_corners, *own, cut, corners.resolution, plan.edges,
            CENTRES=ctx.with_centres, BLOCK=block,
        )  # fmt: skip
        grad_sdf, grad_deformation = torch.empty_like(sdf), torch.empty_like(deformation)
        programs, block = _grid(len(corners), sdf, 128)
        backward.corner_gradients[programs](
            corners.incident, plan.slots, at_corners, grad_sdf, grad_deformation, len(corners), BLOCK=block
        )
        return grad_sdf, grad_deformation, *own, None, None, None, None


def extract(
    grid: SparseGrid,
    corners: Corners,
    sdf: Tensor,
    deformation: Tensor,
    alpha: Tensor,
    beta: Tensor,
    gamma: Tensor,
    with_centres: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `reference.extract`."""
    values = [value.contiguous() for value in (sdf, deformation, alpha, beta, gamma)]
    if len(grid) == 0:
        nothing = torch.cat([value.flatten() for value in values]).sum()
        return nothing + sdf.new_zeros((0, 3)), torch.empty((0, 3), dtype=torch.int64, device=sdf.device), nothing
    vertices, faces, deviation = _Extract.apply(
        *values, grid.coords.contiguous(), corners, neighbour_table(grid), with_centres
    )
    return vertices, faces, deviation
