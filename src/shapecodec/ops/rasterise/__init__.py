"""Which face of a mesh each pixel's centre sees: visibility only, without gradients (those are `render.differentiable`).

Vertices are rounded to 1/4096 of a pixel and edges evaluated in integers, so a centre is inside, outside or on an edge
exactly, and an edge that two faces share is cut by one line: no gaps, no double hits, and the same picture from every
backend, whatever the order in which faces are drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose
from shapecodec.ops.rasterise.lattice import EMPTY, Lattice, clipped_triangles, project, unpacked

OP = "rasterise"
LARGEST_SIDE = 16384  # pixels: leaves a band of 7 images' widths around the image for faces that reach beyond it


class Fragments(NamedTuple):
    """What the centres of the pixels of B views see.

    Args:
        face: (B, H, W) int32, -1 where nothing is.
        depth: (B, H, W) float32 z / w of that face there, -1 (near plane) to 1 (far plane); inf where nothing is.
    """

    face: Tensor
    depth: Tensor


def rasterise(clip: Tensor, faces: Tensor, size: tuple[int, int], *, backend: str = "auto") -> Fragments:
    """The nearest face behind every pixel centre, for B views of one mesh.

    Both sides of a face are seen. What lies outside the visible volume -w <= z <= w is cut away exactly, pixel by pixel;
    faces that reach behind the camera or far beyond the image are cut into triangles first. A centre on an edge belongs
    to the face on its right or below it (the usual top-left rule). Depth is compared in steps of 2^-30; of equally near
    faces the one with the lowest index is seen.

    Args:
        clip: (B, V, 4) floating point, vertices in clip space (x right, y up); B, V may be 0. See `camera.Camera`.
        faces: (F, 3) int64 rows of the vertices, on the same device; F may be 0, at most 2^31 - 1.
        size: (width, height) in pixels, at most 16384 each.
        backend: "cpu" (numba, bands of rows side by side), "triton" (CUDA, an atomic minimum a covered pixel), "reference"
            (torch, all pixels of all faces' boxes), or "auto".

    Raises:
        BadArgument: shapes, types, devices, a size out of range, or a backend that cannot serve; on a CPU also vertices that
            are not finite and faces out of range, for which a CUDA device would have to be waited for.
    """
    chosen = choose(backend, clip.device, available=("reference", "cpu", "triton"), op=OP)
    _check(clip, faces, size)
    width, height = size
    clip = clip.detach()
    path = _path(chosen)
    lattice, lost = path.project(clip, size)
    buffer = torch.full((len(clip), height * width), EMPTY, dtype=torch.int64, device=clip.device)
    if len(faces):
        for view, pixels in enumerate(buffer):
            path.draw(lattice.points[view], lattice.depth[view], faces, None, size, pixels)
        views = lost.nonzero().flatten().tolist()  # waits for the device, which has been given most of its work
        for view, (cut, names) in clipped_triangles(clip, faces, lattice, views, size).items():
            corners = torch.arange(len(names) * 3, device=clip.device).view(-1, 3)
            path.draw(cut.points, cut.depth, corners, names, size, buffer[view])
    face, depth = path.unpack(buffer)
    return Fragments(face.view(-1, height, width), depth.view(-1, height, width))


class _Path(NamedTuple):
    """What differs between backends: see `lattice.project`, `reference.draw`, `lattice.unpacked`."""

    project: Callable[[Tensor, tuple[int, int]], tuple[Lattice, Tensor]]
    draw: Callable[..., None]
    unpack: Callable[[Tensor], tuple[Tensor, Tensor]]


def _path(backend: str) -> _Path:
    if backend == "cpu":
        from shapecodec.ops.rasterise.cpu import draw

        return _Path(project, draw, unpacked)
    if backend == "triton":
        import shapecodec.ops.rasterise.triton as kernels

        return _Path(kernels.project, kernels.draw, kernels.unpack)
    from shapecodec.ops.rasterise.reference import draw as draw_reference

    return _Path(project, draw_reference, unpacked)


def _check(clip: Tensor, faces: Tensor, size: tuple[int, int]) -> None:
    if clip.ndim != 3 or clip.shape[2] != 4 or not clip.is_floating_point():
        raise BadArgument(f"clip must be (B, V, 4) floating point, got {tuple(clip.shape)} {clip.dtype}.", where=OP)
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype != torch.int64:
        raise BadArgument(f"faces must be (F, 3) int64, got {tuple(faces.shape)} {faces.dtype}.", where=OP)
    if faces.device != clip.device:
        raise BadArgument(f"faces are on {faces.device}, clip on {clip.device}.", where=OP)
    if len(faces) >= 1 << 31:
        raise BadArgument(f"{len(faces):,} faces; at most 2^31 - 1.", where=OP)
    if not all(1 <= side <= LARGEST_SIDE for side in size):
        raise BadArgument(f"size {size} is outside 1 to {LARGEST_SIDE} pixels.", where=OP)
    if clip.device.type != "cpu":
        return
    if not bool(torch.isfinite(clip).all()):
        raise BadArgument("clip must be finite.", where=OP)
    if len(faces) and (int(faces.min()) < 0 or int(faces.max()) >= clip.shape[1]):
        raise BadArgument(f"faces point outside the {clip.shape[1]:,} vertices.", where=OP)
