"""A closed, manifold, consistently oriented surface from any triangle soup.

Training on labels needs none of this: labels come from winding numbers of the mesh as it is. Other tools do.

The surface is the zero level of a field on the voxels near the mesh, f < 0 within:

* Solids: f = -sign(g) min(u, 2 T |g|) with g = |w| - 1/2, the winding number w, the unsigned distance u and the reach T
  of the field. Near a closed surface |g| = 1/2 and f is the signed distance; over a hole, where w passes 1/2 far from
  any face, f follows it continuously, so the hole gets a smooth lid.
* Sheets: what is thinner than `thickness` voxels, open sheets being nothing thick, the sign alone would lose or tear.
  Its surface is moved outwards by half of what is missing, m: f = min(f, +-u - m / 2).

Blocks are those near the mesh, and those that a lid passes through, found by following it from block to block.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shapecodec.errors import BadArgument, ShapecodecError, require
from shapecodec.grid import SparseGrid, neighbour_taps
from shapecodec.mesh import Mesh
from shapecodec.ops.closest_point import closest_point
from shapecodec.ops.marching_cubes import marching_cubes
from shapecodec.ops.udf_blocks import udf_blocks
from shapecodec.ops.winding_number import LEVEL, inside, winding_number

BAND = (
    1.75  # voxels beyond the walls that the field reaches: a cell that the surface crosses has all eight corners in it
)
THINNEST = 1.75  # voxels: a wall of at least the diagonal of a voxel has no gaps
_CHUNK = 1 << 22  # points whose winding numbers are computed at a time


@dataclass(frozen=True)
class _Blocks:
    """Sampled blocks: distance (L, 8, 8, 8) in voxels, at most the reach, and winding number (L, 8, 8, 8) of each."""

    grid: SparseGrid
    distance: Tensor
    winding: Tensor

    @property
    def inside(self) -> Tensor:
        """(L, 8, 8, 8) bool."""
        return self.winding.abs() > LEVEL


def make_watertight(
    mesh: Mesh, *, resolution: int = 256, thickness: float = 2.0, tolerance: float = 0.0, backend: str = "auto"
) -> Mesh:
    """Rebuild a mesh as the boundary of a solid.

    Closed parts keep their surface, up to the voxels' size; either orientation will do. Holes are closed where the
    winding number passes 1/2, sheets become walls, and what overlaps is united. Cavities remain, facing inward.

    Args:
        mesh: any valid mesh, in any frame.
        resolution: voxels along the longest side of the mesh and a little more; a multiple of 8.
        thickness: of the walls that replace sheets and plates thinner than a voxel, in voxels, at least 1.75.
        tolerance: voxels by which the surface may move to save faces; 0 keeps all.
        backend: of the operations: auto, reference, cpu or triton.

    Returns:
        In the input's frame and on its device: every edge has exactly two faces, of opposite direction along it.

    Raises:
        BadArgument: a resolution or thickness outside its range.
        MissingExtra: manifold3d is not installed.
    """
    if not thickness >= THINNEST:
        raise BadArgument(f"thickness {thickness} is below {THINNEST} voxels.", where="make_watertight")
    if resolution < 16 or resolution < 8 * thickness:
        raise BadArgument(f"resolution {resolution} is too small.", where="make_watertight", hint="64 to 1024.")
    if not tolerance >= 0:
        raise BadArgument(f"tolerance {tolerance} is below 0.", where="make_watertight")
    require("manifold3d", extra="prepare")
    reach = max(thickness / 2, 1.0) + BAND  # 1: what `_lid_blocks` takes for a face's own crossing
    unit, frame = mesh.normalise(max(0.025, (reach + 1) / resolution))
    blocks = _follow_lids(_sample(unit, resolution, reach, backend), unit, reach, backend)
    field = _field(blocks, reach)
    field = _add_walls(field, blocks, unit, thickness, backend)
    vertices, faces = marching_cubes(field, blocks.grid, 0.0, fill=reach, backend=backend)
    faces = faces[~_beside_absent(vertices, blocks.grid)[faces].any(1)]
    vertices, faces = _checked(vertices, faces, tolerance / resolution)
    return Mesh(vertices.to(mesh.vertices.device), faces.to(mesh.faces.device), mesh.name).transformed(
        frame, inverse=True
    )


def _sample(mesh: Mesh, resolution: int, reach: float, backend: str) -> _Blocks:
    """The blocks that hold a voxel nearer than `reach` voxels to the mesh."""
    grid, values = udf_blocks(mesh.vertices, mesh.faces, resolution, truncation=reach, activity=reach, backend=backend)
    return _Blocks(grid, values * reach, _windings(grid.coords, mesh, resolution, backend))


def _centres(coords: Tensor, resolution: int) -> Tensor:
    """(L * 512, 3) float32 voxel centres of blocks (L, 3) in the unit cube."""
    axis = torch.arange(8, device=coords.device)
    voxels = coords[:, None] * 8 + torch.cartesian_prod(axis, axis, axis)
    return ((voxels.double() + 0.5) / resolution - 0.5).float().view(-1, 3)


def _windings(coords: Tensor, mesh: Mesh, resolution: int, backend: str) -> Tensor:
    """(L, 8, 8, 8) winding numbers at the voxel centres of blocks (L, 3); 0 in the outermost voxels of the cube.

    No face comes near those. Faces that are there several times can make |w| > 1/2 outside their own box: it ends here.
    """
    found = []
    for part in coords.split(_CHUNK // 512):
        centres = _centres(part, resolution)
        winding = winding_number(centres, mesh.vertices, mesh.faces, backend=backend)
        found.append(torch.where((centres.abs() > 0.5 - 1 / resolution).any(1), 0.0, winding))
    return torch.cat(found).view(-1, 8, 8, 8)


def _lid_blocks(blocks: _Blocks) -> Tensor:
    """(L,) bool: blocks of voxels beside which the label changes although no face is near enough to explain it."""
    found = torch.zeros(len(blocks.grid), dtype=torch.bool, device=blocks.grid.device)
    inside, distance, neighbours = blocks.inside, blocks.distance, blocks.grid.neighbours().long()
    for axis, tap in ((1, 22), (2, 16), (3, 14)):
        above = neighbours[:, tap]
        row = above.clamp(min=0)

        def with_next(values: Tensor, row: Tensor = row, axis: int = axis) -> tuple[Tensor, Tensor]:
            nine = torch.cat([values, values[row].narrow(axis, 0, 1)], axis)
            return nine.narrow(axis, 0, 8), nine.narrow(axis, 1, 8)

        (own, other), (near, far) = with_next(inside), with_next(distance)
        lid = (own != other) & (torch.maximum(near, far) > 1.0)  # a face between neighbours is within 1 of both
        lid.select(axis, 7)[above < 0] = False
        found |= lid.flatten(1).any(1)
        found[above[lid.select(axis, 7).flatten(1).any(1)]] = True
    return found


def _follow_lids(blocks: _Blocks, mesh: Mesh, reach: float, backend: str) -> _Blocks:
    """Add all 26 neighbours of blocks with a lid, until none is missing: the surface never leaves the blocks.

    |w| is harmonic away from the mesh, so a lid never closes in itself: following it from the mesh finds all of it.
    """
    grid, size = blocks.grid, blocks.grid.resolution
    around = neighbour_taps(grid.device)
    while True:
        wanted = (grid.coords[_lid_blocks(blocks)][:, None] + around).view(-1, 3)
        wanted = torch.unique(wanted[((wanted >= 0) & (wanted < size)).all(1)], dim=0)
        fresh = wanted[grid.lookup(wanted) < 0]
        if len(fresh) == 0:
            return blocks
        far = blocks.distance.new_full((len(fresh), 8, 8, 8), reach)
        winding = _windings(fresh, mesh, size * 8, backend)
        grid, order = SparseGrid.build(torch.cat([grid.coords, fresh.to(grid.coords.dtype)]), size)
        distance, winding = torch.cat([blocks.distance, far])[order], torch.cat([blocks.winding, winding])[order]
        blocks = _Blocks(grid, distance, winding)


def _field(blocks: _Blocks, reach: float) -> Tensor:
    """(L, 8, 8, 8) float32 in voxels, without walls."""
    over = blocks.winding.abs() - LEVEL
    size = torch.minimum(blocks.distance, 2 * reach * over.abs())
    return torch.where(over > 0, -size, size)


def _add_walls(field: Tensor, blocks: _Blocks, mesh: Mesh, thickness: float, backend: str) -> Tensor:
    """The field, less what is missing to `thickness` voxels where the mesh is thinner than that."""
    resolution = blocks.grid.resolution * 8
    within, distance = blocks.inside.view(-1), blocks.distance.view(-1)
    near = (distance < torch.where(within, 0.0, 3**0.5) + thickness / 2).nonzero()[:, 0]
    flat = field.reshape(-1).clone()
    for rows in near.split(_CHUNK):
        local = torch.stack([rows % 512 // 64, rows % 64 // 8, rows % 8], 1)
        points = ((blocks.grid.coords[rows // 512] * 8 + local + 0.5).double() / resolution - 0.5).float()
        missing = (thickness - _thickness(points, mesh, 1.0 / resolution, thickness, backend)) / 2
        signed = torch.where(within[rows], -distance[rows], distance[rows])
        flat[rows] = torch.where(missing > 0, torch.minimum(flat[rows], signed - missing), flat[rows])
    return flat.view_as(field)


def _thickness(points: Tensor, mesh: Mesh, voxel: float, most: float, backend: str) -> Tensor:
    """(Q,) float32 thickness in voxels of the mesh behind its point nearest to each of points (Q, 3); inf from `most` up.

    Where half of `most` below the face a ball nearly as thick meets nothing, nothing is thin. Elsewhere thickness is how
    deep the inside is along the face's normal; and where that is enough, as at the rim of a plate, how wide across it.
    """
    nearest = closest_point(points, mesh.vertices, mesh.faces, backend=backend)
    corners = mesh.vertices[mesh.faces[nearest.face]].double()
    along = corners[:, 1] - corners[:, 0]
    normal = torch.linalg.cross(along, corners[:, 2] - corners[:, 0])
    place = _away_from_edges(nearest.point.double(), corners, normal, 0.6 * most * voxel)
    along, normal = (torch.nn.functional.normalize(axis, dim=1, eps=1e-300) * voxel for axis in (along, normal))
    found = torch.zeros(len(points), device=points.device)
    for inward in (-normal, normal):  # which leads in, the nearest of several faces at an edge does not tell
        rows = found.isfinite().nonzero()[:, 0]
        middle = (place[rows] + inward[rows] * (most / 2)).float()
        room = closest_point(middle, mesh.vertices, mesh.faces, backend=backend).distance > 0.4 * most * voxel
        room[room.clone()] = _inside(middle[room], mesh, backend)
        found[rows[room]] = torch.inf
    rows = found.isfinite().nonzero()[:, 0]
    place, along, normal = place[rows], along[rows], normal[rows]
    down, up = (_depth(place, inward, mesh, most, backend) for inward in (-normal, normal))
    depth = torch.maximum(down, up)
    deep = depth.isinf().nonzero()[:, 0]
    inward = torch.where((down > up)[:, None], -normal, normal)[deep]
    depth[deep] = _width(place[deep] + inward * (most / 2), along[deep], normal[deep], mesh, most, backend)
    found[rows] = depth
    return found


def _width(middle: Tensor, along: Tensor, normal: Tensor, mesh: Mesh, most: float, backend: str) -> Tensor:
    """(Q,) float32: the least extent of the inside through places (Q, 3), of four directions across a normal.

    inf from `most` up, and where the inside goes on: beside the edge of something solid one end is near, not both.
    """
    other = torch.linalg.cross(normal, along) / normal.norm(dim=1, keepdim=True).clamp_min(1e-300)
    half = 0.5**0.5
    found = torch.full((len(middle),), torch.inf, device=middle.device)
    for axis in (along, other, half * (along + other), half * (along - other)):
        rows = torch.arange(len(middle), device=middle.device)
        for side in (0.5 * most, -0.5 * most):  # two looks tell most places from a rim
            rows = rows[~_inside((middle[rows] + side * axis[rows]).float(), mesh, backend)]
        extent = [_depth(middle[rows], side * axis[rows], mesh, most, backend) for side in (1, -1)]
        found[rows] = found[rows].minimum(extent[0] + extent[1])
    return torch.where(found < most, found, torch.inf)


def _inside(points: Tensor, mesh: Mesh, backend: str) -> Tensor:
    return inside(points, mesh.vertices, mesh.faces, backend=backend)


def _away_from_edges(points: Tensor, corners: Tensor, normal: Tensor, margin: float) -> Tensor:
    """Points (Q, 3) of triangles (Q, 3, 3) moved within them to `margin` from each edge, or as far as there is room."""
    area = normal.square().sum(1).clamp_min(1e-300)  # 4 times the squared area
    b, c = corners.roll(-1, 1), corners.roll(-2, 1)  # of corner k: the ends of the edge opposite
    weights = (torch.linalg.cross(b - points[:, None], c - points[:, None]) * normal[:, None]).sum(2) / area[:, None]
    heights = area.sqrt()[:, None] / (c - b).norm(dim=2).clamp_min(1e-300)
    least = (margin / heights.clamp_min(1e-300)).clamp_max(1 / 3)
    weights = least + (1 - least.sum(1, keepdim=True)) * weights.clamp(0, 1)
    return (weights[:, :, None] * corners).sum(1) / weights.sum(1, keepdim=True)


def _depth(start: Tensor, step: Tensor, mesh: Mesh, most: float, backend: str) -> Tensor:
    """(Q,) float32: after how many of `step` (Q, 3) from `start` (Q, 3) outside begins; inf if not within `most`.

    Three looks, then three bisections between the last that was inside and the first that was not. What is outside at a
    tenth of `most` gets half of that: so thin, a sheet and a plate are made alike.
    """
    low = torch.zeros(len(start), device=start.device)
    high = torch.full_like(low, torch.inf)

    def look(rows: Tensor, depth: Tensor) -> None:
        places = (start[rows] + step[rows] * depth[:, None]).float()
        outside = ~_inside(places, mesh, backend)
        high[rows[outside]], low[rows[~outside]] = depth[outside], depth[~outside]

    for share in (0.1, 0.5, 1.0):
        rows = high.isinf().nonzero()[:, 0]
        look(rows, low.new_full((len(rows),), share * most))
    rows = (high.isfinite() & (low > 0)).nonzero()[:, 0]
    for _ in range(3):
        look(rows, (low[rows] + high[rows]) / 2)
    return (low + high) / 2


def _beside_absent(vertices: Tensor, grid: SparseGrid) -> Tensor:
    """(V,) bool: vertices on an edge to a voxel of an absent block.

    Absent blocks read as outside. Deep within a solid that is wrong and walls them off; the surface proper lies in
    cells of present blocks only, so such walls are whole components, known by any of their vertices.
    """
    place = (vertices.double() + 0.5) * (grid.resolution * 8) - 0.5
    whole = place.round()
    axis = (place - whole).abs().argmax(1, keepdim=True)  # a vertex keeps 2^-10 voxel from the ends of its edge
    low = whole.scatter(1, axis, place.gather(1, axis).floor()).long()
    high = low.scatter_add(1, axis, torch.ones_like(axis))
    return (grid.lookup(low >> 3) < 0) | (grid.lookup(high >> 3) < 0)


def _checked(vertices: Tensor, faces: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    """The mesh as manifold3d takes it, simplified within `tolerance`, with unused vertices left out."""
    manifold3d = require("manifold3d", extra="prepare")
    used, compact = torch.unique(faces, return_inverse=True)
    solid = manifold3d.Manifold(manifold3d.Mesh(vertices[used].cpu().numpy(), compact.cpu().numpy().astype("uint32")))
    if tolerance > 0:
        solid = solid.simplify(tolerance)
    if solid.status() != manifold3d.Error.NoError or solid.is_empty():
        raise ShapecodecError(
            f"the surface of {len(faces):,} faces is no manifold ({solid.status()}).", where="make_watertight"
        )
    made = solid.to_mesh()
    return torch.from_numpy(made.vert_properties[:, :3].copy()), torch.from_numpy(made.tri_verts.astype("int64"))
