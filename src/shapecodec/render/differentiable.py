"""Pictures of a mesh with gradients to its vertices: depth, normals, mask, and any values that vertices or faces carry.

Visibility has no gradient and comes from `ops.rasterise`. Given the face that each pixel sees, everything else is a smooth
function of that face's corners and is recomputed here in torch, in the dtype of the vertices; outlines, where visibility
changes, get theirs from `render.silhouette`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from shapecodec.camera import Camera
from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose
from shapecodec.ops.rasterise import Fragments, rasterise
from shapecodec.render.silhouette import WALK, blend, crossings, edge_neighbours

BACKENDS = ("reference", "triton")


class Weights(NamedTuple):
    """Where on its face each pixel's ray arrives.

    Args:
        corners: (B, H, W, 3) barycentric coordinates, corrected for perspective, at least 0 and of sum 1; 0 on the background.
        front: (B, H, W) bool, whether the face is seen from its outer (counter-clockwise) side.
    """

    corners: Tensor
    front: Tensor


class Picture(NamedTuple):
    """B views of a mesh.

    Args:
        mask: (B, H, W) share of the pixel that the mesh covers.
        depth: (B, H, W) distance from the camera along its axis, in the world's unit; 0 on the background.
        normal: (B, H, W, 3) in the view frame (x right, y up, z to the viewer); 0 on the background.
        seen: faces and z / w as rasterised.
    """

    mask: Tensor
    depth: Tensor
    normal: Tensor
    seen: Fragments


def to_clip(vertices: Tensor, cameras: Sequence[Camera], *, backend: str = "auto") -> Tensor:
    """(B, V, 4) clip coordinates of vertices (V, 3) for B cameras, in the vertices' dtype, with gradients."""
    return _projected(vertices, _matrices(vertices, cameras)[0], _backend(backend, vertices.device))


def _projected(vertices: Tensor, matrices: Tensor, backend: str) -> Tensor:
    if backend == "triton":
        from shapecodec.render.triton.pictures import Projected

        clip: Tensor = Projected.apply(vertices.contiguous(), matrices)
        return clip
    x, y, z, shift = (column[:, None] for column in matrices.unbind(2))
    # Elementwise, here and below: autocast would round products of matrices to bf16, and so move vertices by pixels.
    return vertices[:, :1] * x + vertices[:, 1:2] * y + vertices[:, 2:] * z + shift


def corner_weights(clip: Tensor, faces: Tensor, face: Tensor, *, backend: str = "auto") -> Weights:
    """Barycentric coordinates of the pixels' centres on the faces that they see.

    In homogeneous coordinates (Olano and Greer 1997, section 3): with corners (x, y, w) as seen from a centre, d = (x, y) -
    w * centre, the weight of corner 0 is proportional to d1 x d2. There is no division by w, so corners behind the camera
    do no harm. Weights that rounding makes negative are set to 0: nothing is extrapolated from slivers.

    Args:
        clip: (B, V, 4) with gradients.
        faces: (F, 3) int64.
        face: (B, H, W) int32 from `rasterise`.
        backend: auto, reference or triton.
    """
    if len(faces) and _backend(backend, clip.device) == "triton":
        from shapecodec.render.triton.shading import CornerWeights

        return Weights(*CornerWeights.apply(clip.contiguous(), faces.contiguous(), face.contiguous()))
    batch, height, width = face.shape
    background, owner = _owners(face, len(faces))
    view = torch.arange(batch, device=clip.device).repeat_interleave(height * width)
    rows = (view[:, None] * clip.shape[1] + faces[owner]).flatten()
    corners = clip.flatten(0, 1).index_select(0, rows).view(batch, height, width, 3, 4)
    x = (torch.arange(width, device=clip.device, dtype=clip.dtype) + 0.5) * (2 / width) - 1
    y = 1 - (torch.arange(height, device=clip.device, dtype=clip.dtype) + 0.5) * (2 / height)
    w = corners[..., 3]
    dx, dy = corners[..., 0] - x[:, None] * w, corners[..., 1] - y[:, None, None] * w
    areas = dx.roll(-1, -1) * dy.roll(-2, -1) - dx.roll(-2, -1) * dy.roll(-1, -1)
    total = areas.detach().sum(-1)
    facing = torch.where(total < 0, -1.0, 1.0).to(areas)
    kept = (areas * facing[..., None]).clamp_min(0.0)
    empty = background | (total == 0)
    kept = torch.where(empty[..., None], 1.0, kept)  # in place of a division by 0, whose gradient would be nan
    weights = kept / kept.sum(-1, keepdim=True)
    return Weights(torch.where(background[..., None], 0.0, weights), (total > 0) & ~background)


def interpolate(values: Tensor, faces: Tensor, face: Tensor, weights: Weights, *, backend: str = "auto") -> Tensor:
    """Values of vertices at the pixels, with gradients to both values and weights.

    Args:
        values: (V, C), or (B, V, C) where they differ between views.
        faces: (F, 3) int64.
        face: (B, H, W) int32.
        weights: of `corner_weights`.
        backend: auto, reference or triton.

    Returns:
        (B, H, W, C), 0 on the background.
    """
    if len(faces) and face.numel() and _backend(backend, values.device) == "triton":
        from shapecodec.render.triton.shading import Interpolated

        given = (values, weights.corners, faces, face)
        found: Tensor = Interpolated.apply(*(value.contiguous() for value in given))
        return found
    batch, height, width = face.shape
    _, owner = _owners(face, len(faces))
    rows = faces[owner]
    if values.ndim == 3:
        view = torch.arange(batch, device=values.device).repeat_interleave(height * width)
        rows, values = view[:, None] * values.shape[1] + rows, values.flatten(0, 1)
    corners = values.index_select(0, rows.flatten()).view(batch, height, width, 3, values.shape[1])
    return (weights.corners[..., None] * corners).sum(-2)


def corner_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """(V, 3) unit normals of vertices: the sum of their faces' cross products, so larger faces count more."""
    cross = _face_crosses(vertices, faces).repeat_interleave(3, 0)
    return normalize(torch.zeros_like(vertices).index_add(0, faces.flatten(), cross), dim=1, eps=1e-30)


def render_mesh(
    vertices: Tensor,
    faces: Tensor,
    cameras: Sequence[Camera],
    *,
    normals: Literal["face", "vertex"] = "face",
    towards_viewer: bool = False,
    outlines: bool = True,
    neighbours: Tensor | None = None,
    walk: int = WALK,
    backend: str = "auto",
) -> Picture:
    """Depth, normals and mask of a mesh from B cameras, with gradients to its vertices.

    Args:
        vertices: (V, 3) floating point; float64 makes everything float64.
        faces: (F, 3) int64; F may be 0.
        cameras: of one image size; what lies nearer than a camera's near plane or beyond its far plane is cut away.
        normals: "face", constant on each, or "vertex", interpolated and made unit again.
        towards_viewer: turn the normals of faces that are seen from behind, so that both sheets of a thin part agree and
            winding plays no part.
        outlines: blend edges (`silhouette.blend`); without, nothing tells a vertex to move outwards.
        neighbours: `silhouette.edge_neighbours(faces)`, where many pictures of one mesh are made.
        walk: the most faces between a pixel's centre and the outline that it feels.
        backend: of `ops.rasterise`; "triton" and "reference" also choose how the rest is done.

    Raises:
        BadArgument: no cameras, cameras of several sizes, or what `rasterise` refuses.
    """
    sizes = {(camera.width, camera.height) for camera in cameras}
    if len(sizes) != 1:
        raise BadArgument(f"{len(sizes)} image sizes; all cameras must have one.", where="render_mesh")
    shading = _backend("reference" if backend == "cpu" else backend, vertices.device)
    matrices, views = _matrices(vertices, cameras)
    clip = _projected(vertices, matrices, shading)
    seen = rasterise(clip, faces, sizes.pop(), backend=backend)
    if len(faces) == 0:
        nothing = clip.sum() * 0 + torch.zeros_like(seen.depth, dtype=clip.dtype)
        return Picture(nothing, nothing, nothing[..., None].expand(*nothing.shape, 3), seen)
    picture = _drawn(vertices, clip, faces, seen.face, matrices, views, normals, towards_viewer, shading)
    if outlines:
        picture = blended(picture, clip, faces, seen, neighbours=neighbours, walk=walk, backend=shading)
    return Picture(picture[..., 0], picture[..., 1], picture[..., 2:], seen)


def _drawn(
    vertices: Tensor,
    clip: Tensor,
    faces: Tensor,
    face: Tensor,
    matrices: Tensor,
    views: Tensor,
    normals: str,
    towards_viewer: bool,
    backend: str,
) -> Tensor:
    """(B, H, W, 5) mask, depth and normal as the centres see them."""
    if backend == "triton":
        from shapecodec.render.triton.pictures import Drawn

        of_corners = corner_normals(vertices, faces) if normals == "vertex" else None
        scene = (clip.detach(), faces.contiguous(), face, matrices, views)
        drawn: Tensor = Drawn.apply(vertices.contiguous(), of_corners, *scene, towards_viewer)
        return drawn
    weights = corner_weights(clip, faces, face, backend=backend)
    depth = interpolate(-_along(vertices, views)[..., None], faces, face, weights, backend=backend)
    normal = _normals(vertices, faces, face, weights, normals)
    normal = (views[:, None, None, :3, :3] * normal[..., None, :]).sum(-1)
    if towards_viewer:
        normal = torch.where(weights.front[..., None], normal, -normal)
    mask = (face >= 0).to(clip.dtype)[..., None]
    return torch.cat([mask, depth, normal], -1)


def _matrices(vertices: Tensor, cameras: Sequence[Camera]) -> tuple[Tensor, Tensor]:
    """(B, 4, 4) from the world to clip space and to the view frames, by one transfer."""
    clip, views = torch.stack([torch.stack([c.projection @ c.view, c.view]) for c in cameras], 1).to(vertices)
    return clip, views


def blended(
    picture: Tensor,
    clip: Tensor,
    faces: Tensor,
    seen: Fragments,
    *,
    neighbours: Tensor | None = None,
    walk: int = WALK,
    backend: str = "auto",
) -> Tensor:
    """Any picture (B, H, W, C) of the mesh with its outlines blended, rows first; see `silhouette`.

    On CUDA gradients of vertices are atomic sums, except under `torch.use_deterministic_algorithms`, where "auto" takes the
    reference.
    """
    if _backend(backend, clip.device) == "triton":
        from shapecodec.render.triton.outlines import blended as run

        return run(picture, clip, faces, seen, neighbours, walk)
    if neighbours is None:
        neighbours = edge_neighbours(faces)
    for axis in (2, 1):
        found = crossings(clip, faces, seen.face, seen.depth, neighbours, axis, walk=walk)
        picture = blend(picture, clip, found)
    return picture


def _backend(name: str, device: torch.device) -> str:
    if name == "auto" and torch.are_deterministic_algorithms_enabled():
        return "reference"
    return choose(name, device, available=BACKENDS, op="render")


def _owners(face: Tensor, faces: int) -> tuple[Tensor, Tensor]:
    """Whether each pixel (B, H, W) is background, and a face (B * H * W,) for all of them.

    Background pixels get any: with one face for all, their gradients of 0 would queue at its corners.
    """
    background = face < 0
    spread = torch.arange(face.numel(), device=face.device) % faces
    return background, torch.where(background.flatten(), spread, face.flatten().long())


def _along(vertices: Tensor, views: Tensor) -> Tensor:
    """(B, V) z of vertices in the view frames, negative in front."""
    return (vertices * views[:, None, 2, :3]).sum(-1) + views[:, 2, 3:]


def _normals(vertices: Tensor, faces: Tensor, face: Tensor, weights: Weights, kind: str) -> Tensor:
    """(B, H, W, 3) unit normals of the world, 0 on the background."""
    if kind == "vertex":
        return normalize(interpolate(corner_normals(vertices, faces), faces, face, weights), dim=-1, eps=1e-30)
    background, owner = _owners(face, len(faces))
    flat = normalize(_face_crosses(vertices, faces[owner]), dim=1, eps=1e-30).view(*face.shape, 3)
    return torch.where(background[..., None], 0.0, flat)


def _face_crosses(vertices: Tensor, faces: Tensor) -> Tensor:
    """(F, 3) outward cross products of two sides: twice the area long."""
    a, b, c = vertices.index_select(0, faces.flatten()).view(-1, 3, 3).unbind(1)
    return torch.linalg.cross(b - a, c - a)
