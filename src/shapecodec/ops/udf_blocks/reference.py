"""Specification of udf_blocks in plain torch, float64 throughout, and the triangle frames that every path shares.

A triangle is kept as linear functions of the position p (voxels from the cube's centre): its plane h = n.p - h0 and,
for each edge i, the signed distance to the edge's line within the plane, e_i = m_i.p - e0_i (positive inside), and
the position along it, t_i = u_i.p - t0_i in [0, l_i] over the edge. Then

    d^2 = h^2 + (0 where all e_i > 0, else min_i e_i^2 + r_i^2),    r_i = max(-t_i, t_i - l_i, 0).

No division, no cancellation near the surface. Evaluated relative to a block's centre with constants from float64,
float32 is exact to a few 1e-6 voxel at any resolution, also for a triangle that spans the cube.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.grid import morton_decode, morton_encode

# Columns of a frame row: normal, edge directions, edge normals, h0, t0, e0, lengths, low and high corner.
NORMAL, ALONG, INWARD = slice(0, 3), slice(3, 12), slice(12, 21)
PLANE0, ALONG0, INWARD0, LENGTH = slice(21, 22), slice(22, 25), slice(25, 28), slice(28, 31)
LOW, HIGH = slice(31, 34), slice(34, 37)
COLUMNS = 37

THIN = 1e-6  # voxels: a triangle of less height is the segment of its longest edge, which moves no distance by more
CULL_SLACK = 1e-3  # voxels, added to the reach where candidates are culled, so that rounding never loses one
_CHUNK = 1 << 21  # elements of a temporary


def triangle_frames(vertices: Tensor, faces: Tensor, resolution: int) -> Tensor:
    """(F, 37) float64 rows as laid out above, from vertices (V, 3) float32 in the unit cube; lengths in voxels.

    A triangle without area has its longest edge three times, with opposite edge normals: no point is inside.
    """
    corners = (vertices.double() * resolution)[faces]
    edges = corners.roll(-1, 1) - corners
    lengths = edges.norm(dim=2)
    longest, which = lengths.max(1)
    cross = torch.linalg.cross(edges[:, 0], edges[:, 1])
    area = cross.norm(dim=1)
    thin = area <= THIN * longest

    rows = torch.arange(len(faces), device=faces.device)
    spine = edges[rows, which] / longest.clamp_min(1e-300)[:, None]
    x_axis = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64, device=faces.device)
    spine = torch.where((longest > 0)[:, None], spine, x_axis)
    helper = torch.nn.functional.one_hot(spine.abs().argmin(1), 3).double()
    side = torch.nn.functional.normalize(torch.linalg.cross(spine, helper), dim=1)

    thin_, thin__ = thin[:, None], thin[:, None, None]
    normal = torch.where(thin_, side, cross / area.clamp_min(1e-300)[:, None])
    along = torch.where(thin__, spine[:, None], edges / lengths.clamp_min(1e-300)[:, :, None])
    origin = torch.where(thin__, corners[rows, which][:, None], corners)
    inward = torch.linalg.cross(normal[:, None].expand_as(along), along)
    inward0 = (inward * origin).sum(2)
    # Exact negatives, not recomputed: e and -e are never both positive, so nothing counts as inside a segment.
    inward[:, 1:] = torch.where(thin__, -inward[:, :1], inward[:, 1:])
    inward0[:, 1:] = torch.where(thin_, -inward0[:, :1], inward0[:, 1:])
    columns = [
        normal,
        along.flatten(1),
        inward.flatten(1),
        (normal * origin[:, 0]).sum(1, keepdim=True),
        (along * origin).sum(2),
        inward0,
        torch.where(thin_, longest[:, None], lengths),
        corners.amin(1),
        corners.amax(1),
    ]
    return torch.cat(columns, 1)


def squared_distance(frames: Tensor, points: Tensor) -> Tensor:
    """Squared distances (P, K) float64 of points (P, K, 3) to the triangles of frame rows (P, 37), in voxels."""
    plane = torch.einsum("pkc,pc->pk", points, frames[:, NORMAL]) - frames[:, PLANE0]
    along = torch.einsum("pkc,pec->pke", points, frames[:, ALONG].unflatten(1, (3, 3))) - frames[:, None, ALONG0]
    inward = torch.einsum("pkc,pec->pke", points, frames[:, INWARD].unflatten(1, (3, 3))) - frames[:, None, INWARD0]
    beyond = torch.maximum(-along, along - frames[:, None, LENGTH]).clamp_min(0)
    to_edge = (inward**2 + beyond**2).amin(2)
    return plane**2 + torch.where((inward > 0).all(2), 0.0, to_edge)


def may_touch(frames: Tensor, centres: Tensor, half: float, reach: float) -> Tensor:
    """(P,) bool: whether a cube (centre (P, 3), half side) can hold a point within `reach` of the triangle (P, 37).

    Never false for one that does. Four separating tests: bounding boxes, plane, the edges' lines, the sphere around.
    """
    boxes = ((frames[:, LOW] - reach <= centres + half) & (frames[:, HIGH] + reach >= centres - half)).all(1)
    plane = (frames[:, NORMAL] * centres).sum(1) - frames[:, 21]
    slab = plane.abs() <= reach + half * frames[:, NORMAL].abs().sum(1)
    normals = frames[:, INWARD].unflatten(1, (3, 3))
    inward = (normals * centres[:, None]).sum(2) - frames[:, INWARD0]
    lines = (inward >= -(reach + half * normals.abs().sum(2))).all(1)
    sphere = squared_distance(frames, centres[:, None])[:, 0] <= (reach + half * 3**0.5) ** 2
    return boxes & slab & lines & sphere


def candidate_pairs(frames: Tensor, resolution: int, reach: float) -> tuple[Tensor, Tensor]:
    """(P,) int64 triangles and (P, 3) int64 blocks that they may reach; coarse to fine over an octree."""
    blocks, device = resolution // 8, frames.device
    size = 8
    while size < resolution:
        size *= 2
    triangle = torch.arange(len(frames), device=device)
    node = torch.zeros(len(frames), 3, dtype=torch.int64, device=device)
    axis = torch.arange(2, device=device)
    children = torch.cartesian_prod(axis, axis, axis)
    while True:
        kept = []
        for part in torch.arange(len(triangle), device=device).split(_CHUNK // COLUMNS):
            centre = (node[part].double() + 0.5) * size - resolution / 2
            near = may_touch(frames[triangle[part]], centre, size / 2 - 0.5, reach)
            kept.append(part[near & (node[part] * size < blocks * 8).all(1)])
        row = torch.cat(kept) if kept else triangle[:0]
        triangle, node = triangle[row], node[row]
        if size == 8:
            return triangle, node
        triangle = triangle.repeat_interleave(8)
        node = (node[:, None] * 2 + children).flatten(0, 1)
        size //= 2


def voxel_offsets(device: torch.device) -> Tensor:
    """(512, 3) float64 voxel centres relative to their block's centre, in voxels, x slowest."""
    axis = torch.arange(8, dtype=torch.float64, device=device) - 3.5
    return torch.cartesian_prod(axis, axis, axis)


def udf_blocks(
    vertices: Tensor, faces: Tensor, resolution: int, truncation: float, activity: float
) -> tuple[Tensor, Tensor]:
    """Block coordinates (L, 3) int32 in Morton order and values (L, 8, 8, 8) float32; arguments as in the package.

    Computed on the CPU for tensors of a device without float64 (MPS), and returned to it.
    """
    home = vertices.device
    if home.type == "mps":
        vertices, faces = vertices.cpu(), faces.cpu()
    frames = triangle_frames(vertices, faces, resolution)
    triangle, node = candidate_pairs(frames, resolution, max(truncation, activity) + CULL_SLACK)
    keys, row = torch.unique(morton_encode(node), return_inverse=True)
    offsets = voxel_offsets(vertices.device)
    best = torch.full((len(keys), 512), float("inf"), dtype=torch.float64, device=vertices.device)
    for part in torch.arange(len(row), device=row.device).split(_CHUNK // 512):
        points = (node[part].double() * 8 + (4 - resolution / 2))[:, None] + offsets
        found = squared_distance(frames[triangle[part]], points)
        best.scatter_reduce_(0, row[part, None].expand(-1, 512), found, "amin")
    distance = best.sqrt()
    keep = distance.amin(1) < activity if len(keys) else torch.zeros(0, dtype=torch.bool, device=row.device)
    values = (distance[keep] / truncation).clamp_max(1.0).float().reshape(-1, 8, 8, 8)
    return morton_decode(keys[keep]).to(home), values.to(home)
