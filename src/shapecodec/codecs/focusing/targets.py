"""What a decoder is told about the shape itself: signed distances (Focusing, eq. 5) and which child voxels hold surface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from shapecodec.codecs.focusing.orient import edges_of, first_copies
from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.mesh import Mesh
from shapecodec.ops.closest_point import closest_point
from shapecodec.ops.voxelise import voxelise
from shapecodec.ops.winding_number import inside

Sign = Literal["normal", "winding"]

_UNIT = float(1 << 40)  # normals are summed in these steps: integers give one sum whatever the order on a GPU
_ROWS = 1 << 20  # points at once: 0.4 GB of float64 corners and feet
_LEAST_NORMAL = 1e-6  # below, faces back to back have cancelled and the nearest one decides alone


@dataclass(frozen=True, eq=False)
class Surface:
    """A mesh with the normals by which a point's side is told (Baerentzen and Aanaes 2005).

    Args:
        vertices: (V, 3) float32.
        faces: (F, 3) int64; of vertices at one place only the first is named.
        face_normals: (F, 3) float32, unit; zero without an area.
        edge_normals: (F, 3, 3) float32, of the edge from corner k to the next: the sum of its faces' normals.
        vertex_normals: (V, 3) float32, the sum of the faces' normals times their angles at the vertex.
    """

    vertices: Tensor
    faces: Tensor
    face_normals: Tensor
    edge_normals: Tensor
    vertex_normals: Tensor

    @classmethod
    def of(cls, mesh: Mesh, *, welded: bool = False) -> Surface:
        """The surface of a mesh, on its device; never waits for it.

        Args:
            mesh: faces that agree on the outside (`orient.oriented`).
            welded: no two used vertices are at one place, so they need not be sorted.
        """
        rows = mesh.faces if welded else first_copies(mesh.vertices)[mesh.faces]
        corners = mesh.vertices.detach().double()[rows]
        along = corners.roll(-1, 1) - corners
        cross = torch.linalg.cross(along[:, 0], along[:, 1])
        normals = torch.nn.functional.normalize(cross, dim=1, eps=1e-300)
        back = -along.roll(1, 1)
        angles = torch.atan2(torch.linalg.cross(along, back, dim=2).norm(dim=2), (along * back).sum(2))
        steps = (normals * _UNIT).round().long()
        run = edges_of(rows, len(mesh.vertices)).run
        edges = _zeros(steps, 3 * len(rows)).index_add_(0, run, steps.repeat_interleave(3, 0))[run]
        weighted = (normals[:, None] * angles[:, :, None] * _UNIT).round().long().view(-1, 3)
        points = _zeros(steps, len(mesh.vertices)).index_add_(0, rows.flatten(), weighted)
        edges, points = ((total.double() / _UNIT).float() for total in (edges, points))
        return cls(mesh.vertices.detach().float(), rows, normals.float(), edges.view(-1, 3, 3), points)


def signed_distance(points: Tensor, surface: Surface, *, sign: Sign = "normal", backend: str = "auto") -> Tensor:
    """Distances to the surface, negative inside; exact for closed surfaces whose faces agree.

    The side is that of the normal of the face, edge or vertex nearest to the point; with several patches, of the nearest one. So
    where the surface is open it is the side of its nearest face, and beyond a rim, in the plane of the rim's face, the sign changes
    without a surface. Not differentiable.

    Args:
        points: (Q, 3) floating point, finite, on the surface's device.
        surface: `Surface.of` a mesh.
        sign: "winding" counts |winding number| > 0.5 as inside instead: for meshes that bound a volume but overlap or whose
            patches are open or turned.
        backend: of `ops.closest_point` and `ops.winding_number`.

    Returns:
        (Q,) float32, in units of the vertices.

    Raises:
        BadArgument: an unknown sign, or what the two operations refuse.
    """
    if sign not in ("normal", "winding"):
        raise BadArgument(f"unknown sign '{sign}'.", where="signed_distance", hint="normal or winding.")
    nearest = closest_point(points, surface.vertices, surface.faces, backend=backend)
    if sign == "winding":
        within = inside(points, surface.vertices, surface.faces, backend=backend)
    else:
        parts = zip(points.detach().split(_ROWS), nearest.face.split(_ROWS), strict=True)
        within = torch.cat([_behind(part, face, surface) for part, face in parts])
    return torch.where(within, -nearest.distance, nearest.distance)


def occupied_children(
    grid: SparseGrid, meshes: Sequence[Mesh], *, dilation: float = 0.0, backend: str = "auto"
) -> Tensor:
    """Which of each voxel's eight children a triangle touches: the truth for one step of subdivision.

    By exact overlap, never by sampled points, of which at 1024^3 only 16% of the true voxels receive one.

    Args:
        grid: voxels of a batch; for the next step, the grid of their children.
        meshes: one an item, in the unit cube, on the grid's device.
        dilation: how far each child is enlarged to all sides, in children's edges: the predicted surface is not quite the true
            one, and ends where a voxel is missing.
        backend: of `ops.voxelise`.

    Returns:
        (N, 8) bool; child 4 x + 2 y + z.

    Raises:
        BadArgument: another number of meshes than of items.
    """
    if len(meshes) != grid.batch_size:
        raise BadArgument(f"{len(meshes)} meshes for {grid.batch_size} items.", where="occupied_children")
    fine, bounds = 2 * grid.resolution, grid.offsets.tolist()
    touched = []
    for mesh, start, end in zip(meshes, bounds[:-1], bounds[1:], strict=True):
        faces = _around(grid.coords[start:end], grid.resolution, mesh, (dilation + 1) / fine)
        touched.append(voxelise(mesh.vertices, faces, fine, dilation=dilation, fine=1, backend=backend))
    bit = torch.arange(2, dtype=torch.int32, device=grid.device)
    children = 2 * grid.coords[:, None] + torch.cartesian_prod(bit, bit, bit)
    return SparseGrid.concatenate(touched).lookup(children, grid.batch_index()[:, None]) >= 0


def _around(coords: Tensor, resolution: int, mesh: Mesh, margin: float) -> Tensor:
    """(K, 3) the faces whose boxes come near the box of voxels (N, 3): the voxels of a zoomed view are few."""
    if len(coords) == 0:
        return mesh.faces[:0]
    low = coords.amin(0) / resolution - 0.5 - margin
    high = (coords.amax(0) + 1) / resolution - 0.5 + margin
    corners = mesh.vertices.detach()[mesh.faces]
    return mesh.faces[((corners.amin(1) <= high) & (corners.amax(1) >= low)).all(1)]


def _behind(points: Tensor, face: Tensor, surface: Surface) -> Tensor:
    """(Q,) bool: on the inner side of what of the face (Q,) is nearest to each point (Q, 3)."""
    rows = surface.faces[face]
    corners = surface.vertices[rows].double()
    foot, feature = _feet(points.double(), corners)
    pick = torch.arange(len(face), device=face.device)
    plane = surface.face_normals[face]
    on_edge, on_corner = (feature >= 3) & (feature < 6), feature >= 6
    edge = surface.edge_normals[face, feature % 3]
    corner = surface.vertex_normals[rows[pick, feature % 3]]
    normal = torch.where(on_corner[:, None], corner, torch.where(on_edge[:, None], edge, plane))
    normal = torch.where(normal.norm(dim=1, keepdim=True) > _LEAST_NORMAL, normal, plane)
    return ((points.double() - foot) * normal.double()).sum(1) < 0


def _feet(points: Tensor, corners: Tensor) -> tuple[Tensor, Tensor]:
    """Nearest points (Q, 3) of triangles (Q, 3, 3), and where: 0 inside, 3 + k on edge k, 6 + k at corner k; float64."""
    along = corners.roll(-1, 1) - corners
    square = along.square().sum(2)
    reach = ((points[:, None] - corners) * along).sum(2)
    share = (reach / square.where(square > 0, 1.0)).clamp(0.0, 1.0)
    feet = corners + share[:, :, None] * along
    gaps = (feet - points[:, None]).square().sum(2)
    edge = gaps.argmin(1)
    pick = torch.arange(len(points), device=points.device)
    at = share[pick, edge]
    feature = torch.where(at <= 0, 6 + edge, torch.where(at >= 1, 6 + (edge + 1) % 3, 3 + edge))
    normal = torch.linalg.cross(along[:, 0], along[:, 1])
    inner = (torch.linalg.cross(along, points[:, None] - corners, dim=2) * normal[:, None]).sum(2)
    within = (inner > 0).all(1)
    size = normal.square().sum(1)
    height = ((points - corners[:, 0]) * normal).sum(1) / size.where(size > 0, 1.0)
    foot = torch.where(within[:, None], points - height[:, None] * normal, feet[pick, edge])
    return foot, torch.where(within, 0, feature)


def _zeros(like: Tensor, rows: int) -> Tensor:
    return like.new_zeros(rows, 3)
