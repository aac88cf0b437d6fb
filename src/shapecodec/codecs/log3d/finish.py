"""From the kept vertices of a shell to a mesh: faces, small holes, orientation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shapecodec.codecs.log3d.regions import Shell
from shapecodec.ops.boundary_loops import boundary_loops

HOLE = 2.5  # voxels across: the shell at one voxel bridges a narrower hole of the surface, so a smaller loop is an artefact
NOISE_HOLE = 6.0  # voxels across: where noise lifts the field above the level, the two layers meet in a tunnel ...
NOISE_DISTANCE = 1.1  # ... in whose middle the field is barely above one voxel; a real hole this wide has 3 there
ON_GRID = (
    4e-4  # voxels: rounding of a vertex's two integer coordinates at 2048^3, below the 2^-10 it keeps from corners
)


def border(faces: Tensor, kept: Tensor) -> Tensor:
    """(E, 2) int64 directed edges of the kept faces (all vertices kept) of a closed mesh that no kept face opposes."""
    whole = kept[faces.long()]
    mixed = faces[whole.sum(1) == 2].long()
    edges = torch.cat([mixed[:, [0, 1]], mixed[:, [1, 2]], mixed[:, [2, 0]]])
    edges = edges[kept[edges].all(1)]
    opposed = edges.flip(1)
    count = len(kept)
    both_dropped = torch.isin(opposed[:, 0] * count + opposed[:, 1], edges[:, 0] * count + edges[:, 1])
    return opposed[~both_dropped]


@dataclass(frozen=True)
class Patching:
    """Triangle fans over small loops.

    Args:
        points: (L, 3) float32 a new vertex each, at the mean of the loop.
        faces: (E, 3) int64; new vertices are numbered from V on.
        rim: (B, 2) int64 directed edges of the loops that stay open, on the CPU.
    """

    points: Tensor
    faces: Tensor
    rim: Tensor


def patch_holes(points: Tensor, edges: Tensor, distance: Callable[[Tensor], Tensor]) -> Patching:
    """Closes the loops of `border` that are no holes of the surface.

    Args:
        points: (V, 3) float32, voxels.
        edges: (E, 2) from `border`.
        distance: the field in voxels at (Q, 3) points in voxels.
    """
    edges = edges.cpu()
    loop = boundary_loops(edges)
    count = int(loop.max()) + 1 if len(loop) else 0
    corners = points[edges[:, 0].to(points.device)].cpu()
    on_loop = loop >= 0
    spread = loop[on_loop][:, None].expand(-1, 3)
    low = torch.full((count, 3), torch.inf).scatter_reduce_(0, spread, corners[on_loop], "amin")
    high = torch.full((count, 3), -torch.inf).scatter_reduce_(0, spread, corners[on_loop], "amax")
    size = torch.bincount(loop[on_loop], minlength=count)
    centre = torch.zeros(count, 3, dtype=torch.float64).index_add_(0, loop[on_loop], corners[on_loop].double())
    centre = (centre / size[:, None]).float().to(points.device)
    across = (high - low).amax(1) if count else size.float()
    lifted = (across < NOISE_HOLE) & (distance(centre).cpu() < NOISE_DISTANCE)
    small = ((across < HOLE) | lifted) & (size > 2)
    filled = on_loop.clone()
    filled[on_loop] = small[loop[on_loop]]
    number = torch.cumsum(small, 0) - 1
    faces = torch.stack([edges[filled, 1], edges[filled, 0], len(points) + number[loop[filled]]], 1)
    return Patching(centre[small.to(points.device)], faces.to(points.device), edges[~filled])


def outward(shell_vertices: Tensor, resolution: int, directions: Tensor, region: Tensor, solid: Tensor) -> Tensor:
    """Which regions' faces have to be turned so that normals point out of the material.

    A shell vertex with two integer coordinates lies on a grid line along x; the crossings of that line with the shell are
    exactly the vertices of the same row, so whether a region surrounds a point is counted, not estimated. Material is what
    an odd number of closed sheets surround.

    Args:
        shell_vertices: (V, 3) float32 unit cube, before snapping.
        resolution: voxels an axis.
        directions: (V, 3) float32, away from the surface.
        region: (V,) int64, -1 for dropped vertices.
        solid: (R,) bool, regions that close.

    Returns:
        (R,) bool; False for regions that do not close.
    """
    place = (shell_vertices + 0.5) * resolution - 0.5
    whole = (place - place.round()).abs() < ON_GRID
    crossing = whole[:, 1] & whole[:, 2] & ~whole[:, 0] & (region >= 0)
    vertex = crossing.nonzero()[:, 0]
    vertex = vertex[solid[region[vertex]]]
    x, of_region = place[vertex, 0].cpu().numpy(), region[vertex].cpu().numpy()
    row = ((place[vertex, 1].round() + 4) * (resolution + 8) + place[vertex, 2].round() + 4).long().cpu().numpy()
    rightmost = _rightmost(x, of_region)
    faces_left = (directions[vertex[torch.from_numpy(rightmost).to(vertex.device)], 0] < 0).cpu().numpy()
    turned = np.zeros(len(solid), bool)
    near = np.flatnonzero(np.isin(row, row[rightmost]))
    near = near[np.argsort(row[near], kind="stable")]
    first, last = (np.searchsorted(row[near], row[rightmost], side) for side in ("left", "right"))
    for place_of, begin, end, left in zip(rightmost, first, last, faces_left, strict=True):
        beyond = near[begin:end]
        beyond = beyond[(x[beyond] > x[place_of]) & (of_region[beyond] != of_region[place_of])]
        around = np.unique(of_region[beyond], return_counts=True)[1] % 2
        turned[of_region[place_of]] = left ^ bool(around.sum() % 2)
    return torch.from_numpy(turned).to(region.device)


def signed_volumes(points: Tensor, faces: Tensor, group: Tensor, groups: int) -> Tensor:
    """(G,) float64 volume between each group's faces and its mean corner; positive where normals mostly point outward."""
    corners = points.double()[faces]
    centre = _sums(corners.mean(1), group, groups) / torch.bincount(group, minlength=groups).clamp(min=1)[:, None]
    a, b, c = (corners - centre[group][:, None]).unbind(1)
    return _sums((a * torch.linalg.cross(b, c)).sum(1) / 6, group, groups)


def _sums(values: Tensor, group: Tensor, groups: int) -> Tensor:
    """(G, ...) float64 sums of float64 rows by group in fixed point: those of a flat sheet nearly cancel, and in floating point
    their sign would depend on the order in which a GPU adds. 2^20 leaves room for 10^8 faces of a 2048^3 grid.
    """
    total = torch.zeros(groups, *values.shape[1:], dtype=torch.int64, device=values.device)
    return total.index_add_(0, group, (values * 2.0**20).round().long()).double() / 2.0**20


def _rightmost(x: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Index of the vertex of the largest x of every region that has one; of equals the first."""
    order = np.lexsort((np.arange(len(x)), -x, region))
    fresh = np.ones(len(order), bool)
    fresh[1:] = region[order][1:] != region[order][:-1]
    return order[fresh]


def kept_faces(shell: Shell, kept: Tensor) -> Tensor:
    """(F', 3) int64 faces with all three vertices kept."""
    faces = shell.faces
    return faces[(kept[faces[:, 0].long()] & kept[faces[:, 1].long()]) & kept[faces[:, 2].long()]].long()
