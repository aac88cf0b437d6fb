"""Where voxels lie in a picture: the box in the image that each one covers, and how far away its centre is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from shapecodec.camera import Camera

ROWS = 1 << 17  # voxels at once: 34 MB of projected corners
NEAR = 1e-9  # of w: what is nearer than this to the plane of the pinhole covers the whole picture


class Footprints(NamedTuple):
    """What N voxels cover of an image.

    Args:
        low, high: (N, 2) float64, the box around the eight projected corners, in [-1, 1]^2 over the image, y up; beyond
            it where a voxel lies beside the image, and low above high where it lies behind the camera.
        centre: (N, 2) float64, the projected centre; not finite at or behind the camera.
        length: (N,) float64 from the camera to the centre, along the viewing axis, in units of the cube.
    """

    low: Tensor
    high: Tensor
    centre: Tensor
    length: Tensor


def footprints(coords: Tensor, resolution: int, camera: Camera) -> Footprints:
    """Footprints of voxels.

    A pinhole maps the box's convex hull onto that of its corners, so every ray that meets a voxel in front of the camera
    passes through its footprint. A voxel that reaches behind the camera covers everything.

    Args:
        coords: (N, 3) int32; voxel i covers [i, i + 1) / resolution - 0.5.
        resolution: voxels an axis.
        camera: in the frame of the unit cube.
    """
    parts = [_part(part, resolution, camera) for part in coords.split(ROWS)] or [_part(coords, resolution, camera)]
    return Footprints(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def _part(coords: Tensor, resolution: int, camera: Camera) -> Footprints:
    centre = (coords.double() + 0.5) / resolution - 0.5
    matrix = (camera.projection @ camera.view).to(centre.device)
    steps = torch.tensor([-0.5, 0.5], dtype=torch.float64, device=centre.device) / resolution
    corner = torch.cartesian_prod(steps, steps, steps)
    middle = centre @ matrix[:, :3].T + matrix[:, 3]
    clip = middle[:, None] + corner @ matrix[:, :3].T
    w = clip[:, :, 3]
    place = clip[:, :, :2] / w.clamp_min(NEAR)[:, :, None]
    behind, crosses = (w < NEAR).all(1), (w < NEAR).any(1)
    low, high = place.amin(1), place.amax(1)
    low = torch.where(behind[:, None], torch.inf, torch.where(crosses[:, None], -torch.inf, low))
    high = torch.where(behind[:, None], -torch.inf, torch.where(crosses[:, None], torch.inf, high))
    ahead = middle[:, 3:] >= NEAR
    point = torch.where(ahead, middle[:, :2] / middle[:, 3:].clamp_min(NEAR), torch.inf)
    return Footprints(low, high, point, camera.lengths(centre))
