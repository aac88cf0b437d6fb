"""What all backends share: vertices on a lattice of 1/4096 pixel, the cutting of faces that leave it, the packed z-buffer.

A pixel of the z-buffer is one int64: the depth in steps of 2^-30 above the face's index. Its minimum over all faces is the
nearest one, ties going to the lowest index, and a minimum does not depend on the order of its operands.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BITS = 12  # of a pixel's fraction: 2^-13 of a pixel is what rounding moves a vertex, as much as float32 does at 2048
UNIT, HALF = 1 << BITS, 1 << (BITS - 1)
LIMIT = 1 << 29  # of coordinates on the lattice: products of differences stay below 2^61
OUTSIDE = -(1 << 31)  # the x of a vertex that has no place on the lattice
EMPTY = (1 << 63) - 1
DEPTH_STEPS = 1 << 30  # a unit of z / w
DEEPEST = (1 << 31) - 1


class Lattice(NamedTuple):
    """Projected vertices of views.

    Args:
        points: (..., 2) int32 pixel coordinates (x right, y down) times 4096; x is `OUTSIDE` behind the camera or beyond
            the limit of 2^29.
        depth: (...,) float64 z / w.
    """

    points: Tensor
    depth: Tensor


def to_lattice(clip: Tensor, size: tuple[int, int]) -> Lattice:
    """Vertices (..., 4) float64 in clip space -> their places."""
    width, height = size
    w = clip[..., 3]
    front = w > 0
    ndc = clip[..., :3] / torch.where(front, w, 1.0)[..., None]
    scale = ndc.new_tensor([width * HALF, -height * HALF])
    points = (ndc[..., :2] + ndc.new_tensor([1.0, -1.0])).mul_(scale).round_()
    inside = front & (points.abs() <= LIMIT).all(-1)  # false for nan
    points = torch.where(inside[..., None], points, float(OUTSIDE)).int()
    return Lattice(points, torch.where(inside, ndc[..., 2], 0.0))


def project(clip: Tensor, size: tuple[int, int]) -> tuple[Lattice, Tensor]:
    """Places of vertices (B, V, 4), and (B,) bool, true for views with vertices that have none."""
    lattice = to_lattice(clip.double(), size)
    return lattice, (lattice.points[..., 0] == OUTSIDE).any(1)


def clipped_triangles(
    clip: Tensor, faces: Tensor, lattice: Lattice, views: list[int], size: tuple[int, int]
) -> dict[int, tuple[Lattice, Tensor]]:
    """The visible parts of faces that have a corner without a place, in those of the given views that have any.

    Returns:
        For each such view: the corners of N triangles, (3 N,) in their order, and the faces (N,) int64 that they
        belong to.
    """
    found = {}
    for view in views:
        lost = lattice.points[view, :, 0] == OUTSIDE
        names = lost[faces].any(1).nonzero().flatten()
        corners = clip[view][faces[names]].double()
        triangles, owners = _fans(*_clip(corners, _planes(corners, size)))
        cut = to_lattice(triangles.flatten(0, 1), size)
        whole = (cut.points[:, 0] != OUTSIDE).view(-1, 3).all(1)
        if bool(whole.any()):
            corners = whole.repeat_interleave(3)
            found[view] = Lattice(cut.points[corners], cut.depth[corners]), names[owners[whole]]
    return found


def _planes(clip: Tensor, size: tuple[int, int]) -> Tensor:
    """(5, 4) float64 half spaces in clip space: in front of the near plane, and within the lattice on four sides."""
    near = [0.0, 0.0, 1.0, 1.0]
    sides = []
    for axis in (0, 1):
        reach = 0.999 * (LIMIT / (size[axis] * HALF) - 1)  # in half images from the centre
        for sign in (1.0, -1.0):
            sides.append([sign if k == axis else 0.0 for k in range(3)] + [reach])
    return clip.new_tensor([near, *sides])


def _clip(corners: Tensor, planes: Tensor) -> tuple[Tensor, Tensor]:
    """Polygons (N, n, 4) of which the first (N,) corners count: triangles cut by one half space after the other.

    Sutherland and Hodgman, 1974. A cut is computed from the inner end of an edge to the outer one, whichever face the
    edge belongs to, so faces that share an edge share the new corner.
    """
    count = torch.full((len(corners),), 3, device=corners.device)
    for plane in planes:
        slots = torch.arange(corners.shape[1], device=corners.device)
        following = torch.where(slots + 1 < count[:, None], slots + 1, 0)
        ends = corners.gather(1, following[..., None].expand(-1, -1, 4))
        here, there = corners @ plane, ends @ plane
        live = slots < count[:, None]
        kept, cut = live & (here >= 0), live & ((here >= 0) != (there >= 0))
        leaving = (here >= 0)[..., None]
        inner, outer = torch.where(leaving, corners, ends), torch.where(leaving, ends, corners)
        near, far = torch.maximum(here, there), torch.minimum(here, there)
        share = (near / torch.where(cut, near - far, 1.0))[..., None]
        candidates = torch.stack([corners, inner + share * (outer - inner)], 2).flatten(1, 2)
        wanted = torch.stack([kept, cut], 2).flatten(1)
        first = (~wanted).to(torch.int8).sort(dim=1, stable=True).indices[:, : corners.shape[1] + 1]
        corners, count = candidates.gather(1, first[..., None].expand(-1, -1, 4)), wanted.sum(1)
    return corners, count


def _fans(corners: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """Convex polygons (N, n, 4) of `count` corners -> triangles (T, 3, 4) and the polygon (T,) of each."""
    slots = torch.arange(1, corners.shape[1] - 1, device=corners.device)
    owner, slot = (slots + 1 < count[:, None]).nonzero(as_tuple=True)
    slot = slot + 1
    return torch.stack([corners[owner, 0], corners[owner, slot], corners[owner, slot + 1]], 1), owner


def unpacked(buffer: Tensor) -> tuple[Tensor, Tensor]:
    """Face (...) int32 and depth (...) float32 of a packed z-buffer."""
    empty = buffer == EMPTY
    face = torch.where(empty, -1, buffer & 0xFFFFFFFF).int()
    depth = ((buffer >> 32).double() + 0.5) / DEPTH_STEPS - 1
    return face, torch.where(empty, torch.inf, depth).float()
