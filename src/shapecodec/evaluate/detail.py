"""How much detail a mesh has: its salient edges, the level that their number gives, and points sampled along them.

After Dora (Chen et al. 2025): salient edges are those whose two faces meet at more than a threshold angle; their number
sorts shapes into levels of detail, and points on them measure, or feed, what uniform sampling misses.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from shapecodec.errors import BadArgument
from shapecodec.mesh import Mesh
from shapecodec.ops.farthest_points import farthest_points
from shapecodec.ops.vertex_normals import vertex_normals

SALIENT_DEGREES = 30.0
LEVELS = ("L1", "L2", "L3", "L4")
MOST_EDGES = (5_000, 20_000, 50_000)  # of L1, L2, L3


class SharpEdges(NamedTuple):
    """Edges of exactly two faces that meet at an angle.

    Args:
        ends: (E, 2) int64 vertices, the lower one first; rows ascend.
        faces: (E, 2) int64 the faces on either side.
        degrees: (E,) float32 angle between the faces' normals, 0 where they are coplanar.
    """

    ends: Tensor
    faces: Tensor
    degrees: Tensor


def sharp_edges(mesh: Mesh, degrees: float = SALIENT_DEGREES) -> SharpEdges:
    """The edges whose dihedral angle exceeds `degrees`, on the mesh's device.

    Faces are joined by their vertex indices, so copies of a vertex hide an edge: weld first (`read_mesh` does). Faces that
    repeat a vertex are not counted, and an edge beside a face without area has no angle. Where two faces are wound against
    each other one normal is turned, so that a flat sheet of mixed winding has no sharp edge.

    Raises:
        BadArgument: an angle outside [0, 180).
    """
    if not 0.0 <= degrees < 180.0:
        raise BadArgument(f"angle {degrees} is outside [0, 180) degrees.", where="sharp_edges")
    ends, pairs, opposed = _two_sided_edges(mesh.faces, len(mesh.vertices))
    first, second = mesh.face_normals().double()[pairs].unbind(1)
    second = torch.where(opposed[:, None], second, -second)
    # the arc cosine alone loses angles below 0.02 degrees in float32
    angles = torch.rad2deg(torch.atan2(torch.linalg.cross(first, second).norm(dim=1), (first * second).sum(1)))
    sharp = (angles > degrees) & (first != 0).any(1) & (second != 0).any(1)
    return SharpEdges(ends[sharp], pairs[sharp], angles[sharp].float())


def _two_sided_edges(faces: Tensor, vertices: int) -> tuple[Tensor, Tensor, Tensor]:
    """Edges of exactly two faces: ends (E, 2), faces (E, 2), and whether (E,) the faces walk the edge in opposite ways."""
    row = torch.arange(len(faces), device=faces.device)
    whole = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    row, kept = row[whole], faces[whole]
    start, end = kept.reshape(-1), kept.roll(-1, 1).reshape(-1)
    key = torch.minimum(start, end) * vertices + torch.maximum(start, end)
    key, order = key.sort(stable=True)
    fresh = torch.ones(len(key) + 1, dtype=torch.bool, device=faces.device)
    fresh[1:-1] = key[1:] != key[:-1]
    begins = fresh.nonzero()[:, 0]
    at = begins[:-1][begins.diff() == 2]
    one, two = order[at], order[at + 1]
    ends = torch.stack([key[at] // vertices, key[at] % vertices], 1)
    return ends, torch.stack([row[one // 3], row[two // 3]], 1), start[one] != start[two]


def detail_level(salient_edges: int) -> str:
    """The level of a mesh with this many salient edges: L1 up to 5,000, L2 up to 20,000, L3 up to 50,000, else L4."""
    if salient_edges < 0:
        raise BadArgument(f"a mesh cannot have {salient_edges} salient edges.", where="detail_level")
    return LEVELS[bisect_left(MOST_EDGES, salient_edges)]


def sharp_points(
    mesh: Mesh, count: int, generator: torch.Generator, *, degrees: float = SALIENT_DEGREES
) -> tuple[Tensor, Tensor]:
    """Points along the sharp edges, as Dora samples them: the edges' ends first, the rest along the edges.

    With more ends than `count`, the ends are thinned in farthest point order from a random one. With fewer, every edge
    carries the same number of evenly spaced inner points, and what is left over falls on random edges at random places.

    Args:
        mesh: welded.
        count: points wanted.
        generator: on the mesh's device.
        degrees: see `sharp_edges`; Dora's paper takes 30, its released command 15.

    Returns:
        positions (P, 3) float32 and unit normals (P, 3) float32, P = count, or 0 where the mesh has no sharp edge. The
        normal is the vertex normal at an end and the mean of both faces' normals along an edge (of a sheet folded flat onto
        itself: the first face's).

    Raises:
        BadArgument: fewer than one point, or an angle outside [0, 180).
    """
    if count < 1:
        raise BadArgument(f"points must be at least 1, got {count}.", where="sharp_points")
    edges = sharp_edges(mesh, degrees)
    if len(edges.ends) == 0:
        return mesh.vertices.new_zeros(0, 3), mesh.vertices.new_zeros(0, 3)
    ends = edges.ends.unique()
    if len(ends) > count:
        start = torch.randint(len(ends), (1,), generator=generator, device=ends.device)
        ends = ends[farthest_points(mesh.vertices[ends][None], count, start=start)[0]]
    at_ends = mesh.vertices[ends], vertex_normals(mesh.vertices, mesh.faces)[ends]
    along, place = _places(len(edges.ends), count - len(ends), generator, ends.device)
    low, high = mesh.vertices[edges.ends[along]].unbind(1)
    positions = low + place[:, None] * (high - low)
    return torch.cat([at_ends[0], positions]), torch.cat([at_ends[1], _edge_normals(mesh, edges)[along]])


def _places(edges: int, missing: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """Edge (P,) and place between its ends (P,), inside (0, 1), of `missing` points on `edges` edges."""
    each, left = divmod(missing, edges)
    even = torch.arange(1, each + 1, device=device, dtype=torch.float32) / (each + 1)
    along = torch.arange(edges, device=device).repeat_interleave(each)
    extra = torch.randint(edges, (left,), generator=generator, device=device)
    place = torch.rand(left, generator=generator, device=device)
    return torch.cat([along, extra]), torch.cat([even.repeat(edges), place])


def _edge_normals(mesh: Mesh, edges: SharpEdges) -> Tensor:
    """(E, 3) float32 unit mean of the two faces' normals."""
    both = mesh.face_normals()[edges.faces].double()
    mean = both.sum(1)
    folded = mean.norm(dim=1, keepdim=True) < 1e-6
    return normalize(torch.where(folded, both[:, 0], mean), dim=1).float()
