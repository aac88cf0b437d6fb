"""Dual marching cubes on active voxels in plain torch: the specification, and the path for devices without a kernel.

Places are kept relative to their voxel and moved to the unit cube last, so rounding does not grow with the resolution.
Sums run over padded rows, never through atomic additions: the same input gives the same surface to the bit. Gradients
gather by index, which PyTorch adds up in a fixed order on CUDA; on several CPU threads it does so only under
`torch.use_deterministic_algorithms`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from shapecodec.grid import SparseGrid
from shapecodec.ops.flex_surface.corners import Corners
from shapecodec.ops.flex_surface.tables import MOST_EDGES, tables

LEAST_GAP = (
    1e-12  # between the ends of a cut edge: below, the crossing's slope leaves float32 before any optimiser sees it
)


@dataclass(frozen=True)
class _Tables:
    group: Tensor
    slot: Tensor
    counts: Tensor
    switch: Tensor
    ends: Tensor
    corners: Tensor
    normals: Tensor


@cache
def _tables(device: torch.device) -> _Tables:
    with torch.inference_mode(False):  # kept for later calls, whose gradients may need them
        return _Tables(*(torch.tensor(array, device=device) for array in vars(tables()).values()))


@dataclass(frozen=True)
class _Cuts:
    """The E cut edges as each surface voxel sees them, by voxel and edge, and the V dual vertices.

    Args:
        voxel: (E,) row of the voxel.
        edge: (E,) number of the edge in it.
        ends: (E, 2) rows of the edge's low and high corner.
        vertex: (E,) dual vertex that the edge belongs to.
        slot: (E,) its place among that vertex's edges.
        owner: (V,) voxel of each dual vertex.
    """

    voxel: Tensor
    edge: Tensor
    ends: Tensor
    vertex: Tensor
    slot: Tensor
    owner: Tensor


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
    """Vertices (V, 3), faces (F, 3) int64 and the deviation, as `flex_surface` says."""
    cuts = _cuts(_polygon_cases(_cases(sdf, corners), grid), corners)
    local, deviation = _dual_vertices(cuts, sdf, deformation, alpha, beta)
    vertices = (grid.coords[cuts.owner].to(sdf.dtype) - grid.resolution / 2 + local) / grid.resolution
    quads = _quads(cuts, sdf)
    used = torch.zeros(len(vertices), dtype=torch.bool, device=sdf.device)
    used[quads] = True
    kept = used.nonzero()[:, 0]
    vertices, quads = vertices[kept], (used.cumsum(0) - 1)[quads]
    weight = gamma[cuts.owner[kept]][quads]
    first, second = weight[:, 0] * weight[:, 2], weight[:, 1] * weight[:, 3]
    if with_centres:
        vertices, faces = _fans(vertices, quads, first, second)
    else:
        faces = _halves(quads, first > second)
    return vertices, faces, deviation / grid.resolution


def _cases(sdf: Tensor, corners: Corners) -> Tensor:
    """(N,) int64: bit s says that corner s is inside."""
    inside = (sdf < 0)[corners.index].long()
    return (inside << torch.arange(8, device=sdf.device)).sum(1)


def _polygon_cases(case: Tensor, grid: SparseGrid) -> Tensor:
    """(N,) the cases whose polygons count: complements where two voxels both double the segments of their common face."""
    table = _tables(case.device)
    row = (table.switch[case] >= 0).nonzero()[:, 0]
    face = table.switch[case[row]]
    other = grid.lookup(grid.coords[row] + table.normals[face])
    mutual = (other >= 0) & (table.switch[case[other.clamp(min=0)]] == face ^ 1)
    row = row[mutual]
    return case.index_copy(0, row, 255 - case[row])


def _cuts(case: Tensor, corners: Corners) -> _Cuts:
    """Cut edges and dual vertices of the voxels of these cases (N,)."""
    table = _tables(case.device)
    surface = (table.counts[case] > 0).nonzero()[:, 0]
    case = case[surface]
    counts = table.counts[case]
    row, edge = (table.group[case] >= 0).nonzero(as_tuple=True)
    vertex = (counts.cumsum(0) - counts)[row] + table.group[case[row], edge]
    voxel = surface[row]
    ends = corners.index[voxel[:, None], table.ends[edge]]
    owner = torch.repeat_interleave(surface, counts)
    return _Cuts(voxel, edge, ends, vertex, table.slot[case[row], edge], owner)


def _crossings(low: Tensor, high: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """(E, 3) points between start and end (E, 3) where the line from value low to high (E,) is zero."""
    gap = low - high
    gap = torch.where(gap < 0, gap.clamp(max=-LEAST_GAP), gap.clamp(min=LEAST_GAP))
    return torch.lerp(start, end, (low / gap)[:, None])


def _dual_vertices(cuts: _Cuts, sdf: Tensor, deformation: Tensor, alpha: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
    """Places (V, 3) in voxels from their voxel's origin, and the mean deviation of distances, in voxels."""
    table = _tables(sdf.device)
    local = table.ends[cuts.edge]
    value = sdf[cuts.ends]
    start, end = (table.corners[local] + deformation[cuts.ends]).unbind(1)
    low, high = (value * alpha[cuts.voxel[:, None], local]).unbind(1)
    weighted, plain = _crossings(low, high, start, end), _crossings(value[:, 0], value[:, 1], start, end)

    def sums(values: Tensor) -> Tensor:
        padded = values.new_zeros(len(cuts.owner), MOST_EDGES, *values.shape[1:])
        return padded.index_put((cuts.vertex, cuts.slot), values).sum(1)

    weight = beta[cuts.voxel, cuts.edge][:, None]
    vertices = sums(weighted * weight) / sums(weight)
    distance = torch.linalg.vector_norm(vertices[cuts.vertex] - plain, dim=1)
    mean = sums(distance) / sums(torch.ones_like(distance))
    return vertices, (distance - mean[cuts.vertex]).abs().sum() / max(len(distance), 1)


def _quads(cuts: _Cuts, sdf: Tensor) -> Tensor:
    """(Q, 4) dual vertices around each cut grid edge with four active voxels, counter-clockwise seen from outside.

    Column 2 u + v of an edge is the voxel in which it has the bits u, v; going round, these are 0, 2, 3, 1, which is
    counter-clockwise about +x and +z but, as u, v then are the bits on x and z, about -y.
    """
    axis = cuts.edge // 4
    keys, place = torch.unique(cuts.ends[:, 0] * 3 + axis, return_inverse=True)
    around = place.new_full((len(keys), 4), -1).index_put_((place, cuts.edge % 4), cuts.vertex)
    full = (around >= 0).all(1)
    keys, around = keys[full], around[full]
    rising = sdf[keys // 3] < 0
    turn = rising == (keys % 3 == 1)
    return torch.where(turn[:, None], around[:, [0, 1, 3, 2]], around[:, [0, 2, 3, 1]])


def _fans(vertices: Tensor, quads: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Vertices with the quads' centres behind them, and four triangles a quad."""
    at = vertices[quads]
    share = (first / (first + second))[:, None]
    centres = torch.lerp(at[:, 1] + at[:, 3], at[:, 0] + at[:, 2], share) / 2
    middle = torch.arange(len(vertices), len(vertices) + len(quads), device=quads.device)[:, None].expand(-1, 4)
    faces = torch.stack([quads, quads.roll(-1, 1), middle], 2).view(-1, 3)
    return torch.cat([vertices, centres]), faces


def _halves(quads: Tensor, along_first: Tensor) -> Tensor:
    """Two triangles a quad, split from corner 0 to 2 or from 1 to 3."""
    from_first = quads[:, [0, 1, 2, 0, 2, 3]]
    from_second = quads[:, [1, 2, 3, 1, 3, 0]]
    return torch.where(along_first[:, None], from_first, from_second).view(-1, 3)
