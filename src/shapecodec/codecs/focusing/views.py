"""Where a training step looks from, and TripoSF's sectioned frustum, the baseline that carving is measured against."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from shapecodec.camera import Camera
from shapecodec.codecs.focusing.footprint import footprints
from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid

_POLE = 0.99  # cosine to the y axis beyond which z points up in the picture
_HALF_DIAGONAL = math.sqrt(3) / 2  # of a cube, in its sides
_ENCLOSING = 1.01 * _HALF_DIAGONAL


@dataclass(frozen=True)
class CameraConfig:
    """How cameras around the unit cube's centre are drawn; all look at it, from directions uniform on the sphere.

    Args:
        kind: "varied" draws the distance r with 1 / r^2 uniform and the field of view 2 asin(ball / r), in which the ball fills
            the picture, so that perspective varies and size does not (TRELLIS.2); "fixed" is one distance and field (TRELLIS).
        distance: bounds of r. TRELLIS.2 goes to 100; beyond 10 a view differs from a parallel one by less than a pixel in a
            hundred, and float32 depths lose digits.
        ball: radius of what fills the picture; 0.5 reaches the cube's faces, 0.866 its corners.
        fixed_distance, fixed_fov: of "fixed", the field in degrees.
        cut: probability that the near plane lies inside the ball, at a length uniform in [r - ball, r]: what is inside a shape is
            seen too. Otherwise near and far planes enclose the cube.
    """

    kind: Literal["varied", "fixed"] = "varied"
    distance: tuple[float, float] = (2.0, 10.0)
    ball: float = 0.5
    fixed_distance: float = 2.0
    fixed_fov: float = 40.0
    cut: float = 0.0

    def __post_init__(self) -> None:
        least = self.distance[0] if self.kind == "varied" else self.fixed_distance
        if self.kind not in ("varied", "fixed") or not 0 <= self.cut <= 1 or not 0 < self.ball < least:
            raise BadArgument(f"{self}: the ball lies in front of the camera.", where="CameraConfig")
        if not (self.distance[0] <= self.distance[1] and 0 < self.fixed_fov < 180 and least > _HALF_DIAGONAL):
            raise BadArgument(f"{self}: cameras stay outside the cube.", where="CameraConfig")


def draw_cameras(count: int, generator: torch.Generator, size: int, config: CameraConfig) -> tuple[Camera, ...]:
    """Cameras in the frame of the unit cube, `size` pixels a side; five draws each, from a generator on the CPU."""
    draws = torch.rand(count, 5, generator=generator, dtype=torch.float64).tolist()
    return tuple(_camera(draw, size, config) for draw in draws)


def _camera(draw: list[float], size: int, config: CameraConfig) -> Camera:
    height, turn = 2 * draw[0] - 1, 2 * math.pi * draw[1]
    flat = math.sqrt(1 - height * height)
    direction = (flat * math.sin(turn), height, flat * math.cos(turn))
    low, high = (1 / bound**2 for bound in reversed(config.distance))
    reach, fov = 1 / math.sqrt(low + draw[2] * (high - low)), config.fixed_fov
    if config.kind == "varied":
        fov = math.degrees(2 * math.asin(config.ball / reach))
    else:
        reach = config.fixed_distance
    eye = [part * reach for part in direction]
    up = (0.0, 1.0, 0.0) if abs(height) < _POLE else (0.0, 0.0, 1.0)
    inwards = config.ball * (1 - draw[4]) if draw[3] < config.cut else _ENCLOSING
    camera = Camera.perspective(eye, (0.0, 0.0, 0.0), fov, (size, size), up=up)
    return camera.between(max(reach - inwards, reach / 100), reach + _ENCLOSING)


class Section(NamedTuple):
    """What the sectioned frustum keeps.

    Args:
        rows: (K,) int64 ascending.
        camera: with near and far planes that enclose them; ground truth is rendered with it too.
    """

    rows: Tensor
    camera: Camera


def section(
    grid: SparseGrid, camera: Camera, alpha: float, generator: torch.Generator, *, rim: float = _HALF_DIAGONAL
) -> Section:
    """Frustum-aware sectional training (SparseFlex, He et al. 2025): only voxels in the frustum, its planes moved to hold alpha N.

    The source moves both planes step by step until the share of active voxels is alpha. Here the lengths of the voxels in the
    image are sorted, and the planes enclose a run of alpha N of them that begins at a uniformly drawn one. Where there are
    fewer all are kept, and the camera stays as it is.

    Args:
        grid: N voxels of one item; those of the output, before extraction.
        camera: in the frame of the unit cube.
        alpha: visible share of the N, in (0, 1].
        generator: on the CPU.
        rim: voxels by which kept centres may lie beyond the planes, where a plane cuts the voxel itself: what is seen of the truth
            there must not be missing in the prediction. The source's rule is 0. At the image's border every voxel is kept
            whose projection meets it.

    Raises:
        BadArgument: alpha out of range, or several items.
    """
    if not 0 < alpha <= 1 or rim < 0 or grid.batch_size != 1:
        raise BadArgument(f"alpha {alpha}, rim {rim}, {grid.batch_size} items.", where="section")
    found = footprints(grid.coords, grid.resolution, camera)
    shown = ((found.low <= 1) & (found.high >= -1) & (found.low <= found.high)).all(1) & (found.length > 0)
    rows = shown.nonzero()[:, 0]
    goal = min(max(round(alpha * len(grid)), 1), len(rows))
    draw = float(torch.rand((), generator=generator, dtype=torch.float64))
    if goal == len(rows):
        return Section(rows, camera)
    lengths = found.length[rows]
    first = min(int(draw * (len(rows) - goal + 1)), len(rows) - goal)
    near, far = lengths.sort().values[[first, first + goal - 1]].tolist()
    off, beyond = 1e-3 / grid.resolution, rim / grid.resolution  # the outermost centres may lie at one length
    near, far = max(near - off, off), far + off
    return Section(rows[(lengths >= near - beyond) & (lengths <= far + beyond)], camera.between(near, far))
