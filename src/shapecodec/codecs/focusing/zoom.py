"""Adaptive zooming (Focusing, section 3.3): a bounded number of voxels, and the camera whose image is theirs alone.

The paper keeps the K voxels nearest in the image to a point, a disc of them, and looks at the box around it: the corners of
that image show surface whose voxels are gone. Here the boxes come first. Squares of the image (in its own proportions) grow
about a random voxel and are pushed inward at the image's border, beyond which carving has left nothing. Each voxel has
the size at which its footprint meets the square; the K smallest are kept, and the square may grow until it meets the first
voxel that is not. So every ray of the new image meets all given voxels that lie on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from shapecodec.camera import Camera
from shapecodec.codecs.focusing.footprint import Footprints, footprints
from shapecodec.codecs.focusing.select import take_rows, voxel_level
from shapecodec.errors import BadArgument
from shapecodec.latents import Latents


@dataclass(frozen=True)
class ZoomConfig:
    """How much is kept.

    Args:
        alpha: bounds of the kept share, drawn uniformly.
        least, most: bounds of the number of kept voxels; a shape of fewer voxels keeps all.
        scale: s of eq. 4; the image shows the square without its rim, where decoded voxels lack neighbours.
        nearest: the least width of the square, in pixels of the given camera. Only where more than K voxels lie on the rays
            of so few pixels does the number of kept voxels exceed `most`.
    """

    alpha: tuple[float, float] = (0.1, 0.3)
    least: int = 8192
    most: int = 15360
    scale: float = 1.1
    nearest: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.alpha[0] <= self.alpha[1] or not 1 <= self.least <= self.most:
            raise BadArgument(f"alpha {self.alpha}, {self.least} to {self.most} voxels.", where="ZoomConfig")
        if not self.scale >= 1 or not self.nearest > 0:
            raise BadArgument(
                f"scale {self.scale} is below 1, or nearest {self.nearest} not above 0.", where="ZoomConfig"
            )


class Zoomed(NamedTuple):
    """What `zoom` keeps.

    Args:
        latents: in the order of the rows.
        rows: (K,) int64 ascending, the rows of the given latents.
        cameras: one a shape; ground truth is rendered again with it.
    """

    latents: Latents
    rows: Tensor
    cameras: tuple[Camera, ...]


def zoom(
    latents: Latents,
    cameras: Sequence[Camera],
    generator: torch.Generator,
    config: ZoomConfig | None = None,
    *,
    totals: Sequence[int] | None = None,
) -> Zoomed:
    """Keep part of each shape's voxels and zoom its camera to them.

    Args:
        latents: one level with coordinates, as carved; nothing outside the images is kept unless all is.
        cameras: one a shape, in the frame of the unit cube.
        generator: draws the share and the voxel in the middle; on the CPU.
        config: None for the paper's numbers.
        totals: N in K = alpha N, for each shape, e.g. its voxels before carving (the paper does not say which is meant); by
            default the given voxels.

    Raises:
        BadLatents: latents without coordinates.
        BadArgument: another number of cameras or totals than of shapes.
    """
    config = config or ZoomConfig()
    _, grid = voxel_level(latents)
    counts = grid.offsets.diff().tolist()
    totals = counts if totals is None else list(totals)
    if len(cameras) != len(counts) or len(totals) != len(counts):
        raise BadArgument(
            f"{len(cameras)} cameras and {len(totals)} totals for {len(counts)} shapes.", where="zoom", hint="one each."
        )
    kept, views = [], []
    for start, count, total, camera in zip(grid.offsets.tolist(), counts, totals, cameras, strict=False):
        draw, middle = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        alpha = config.alpha[0] + draw * (config.alpha[1] - config.alpha[0])
        goal = min(max(round(alpha * total), config.least), config.most, count)
        found = footprints(grid.coords[start : start + count], grid.resolution, camera)
        rows, view = _one(found, camera, goal, middle, config)
        kept.append(rows + start)
        views.append(view)
    rows = torch.cat(kept)
    return Zoomed(take_rows(latents, rows), rows, tuple(views))


def _one(found: Footprints, camera: Camera, goal: int, draw: float, config: ZoomConfig) -> tuple[Tensor, Camera]:
    """The rows (K,) of one shape and its camera; the one given where no voxel lies in the image."""
    shown = ((found.low <= 1) & (found.high >= -1) & (found.low <= found.high)).all(1)
    visible = shown.nonzero()[:, 0]
    if len(visible) == 0:
        return torch.arange(goal, device=visible.device), camera
    voxel = visible[min(int(draw * len(visible)), len(visible) - 1)]
    low, high = found.low[voxel].clamp(-1, 1), found.high[voxel].clamp(-1, 1)
    centre = (low + high) / 2
    meets = _meeting_size(found, centre)
    smallest = min(1.0, config.nearest / min(camera.width, camera.height))
    order = torch.argsort(meets, stable=True)
    goal = max(goal, int((meets < smallest).sum()))
    rows = order[:goal].sort().values
    limit = min(1.0, float(meets[order[goal]])) if goal < len(order) else 1.0
    return rows, _zoomed(found, rows[shown[rows]], camera, centre, limit, smallest, config.scale)


def _meeting_size(found: Footprints, centre: Tensor) -> Tensor:
    """(N,) float64 the half side at which the growing square meets each footprint; inf for those outside the image.

    The square of half side t spans [max(-1, min(c - t, 1 - 2 t)), the same from the other side] on each axis: it contains all
    smaller ones.
    """
    low, high = found.low, found.high
    left = torch.minimum(centre - high, (1 - high) / 2)
    right = torch.minimum(low - centre, (low + 1) / 2)
    size = torch.maximum(left, right).amax(1).clamp_min(0)
    outside = ((high < -1) | (low > 1) | (low > high)).any(1)
    return torch.where(outside, torch.inf, size)


def _zoomed(
    found: Footprints, rows: Tensor, camera: Camera, centre: Tensor, limit: float, smallest: float, scale: float
) -> Camera:
    """The camera of the square of half side `limit`, or of the part of it that holds all kept footprints."""
    middle = torch.maximum(torch.minimum(centre, centre.new_tensor(1 - limit)), centre.new_tensor(limit - 1))
    low, high = found.low[rows].clamp_min(-1), found.high[rows].clamp_max(1)
    filled = float(torch.maximum(middle - low, high - middle).max())
    half = min(limit, scale * max(filled, smallest / scale))
    return camera.zoomed((middle - half).cpu(), (middle + half).cpu(), scale)
