"""Camera: where a picture is taken from, as one matrix from the world to the image.

View frame: x right, y up, the camera looks along -z. Image frame: x right, y down, pixel (i, j) covers
[j, j + 1) x [i, i + 1). Depth grows away from the camera.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from shapecodec.errors import BadArgument

Vector = Sequence[float] | Tensor


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole or orthographic camera.

    Args:
        view: (4, 4) float64 rigid transform, world -> view frame.
        projection: (4, 4) float64, view frame -> clip space; the visible volume is [-1, 1]^3 after division by w.
        width: pixels.
        height: pixels.
    """

    view: Tensor
    projection: Tensor
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.view.shape != (4, 4) or self.projection.shape != (4, 4) or self.width < 1 or self.height < 1:
            raise BadArgument("a camera needs two 4 x 4 matrices and an image of at least one pixel.", where="Camera")

    @classmethod
    def orthographic(
        cls, eye: Vector, target: Vector, half_height: float, size: tuple[int, int], *, up: Vector = (0.0, 1.0, 0.0)
    ) -> Camera:
        """Parallel rays; the image's height shows 2 * half_height of the world. `size` is (width, height) pixels."""
        view, reach = look_at(eye, target, up), _distance(eye, target)
        width, height = size
        projection = torch.eye(4, dtype=torch.float64)
        projection[0, 0], projection[1, 1] = height / width / half_height, 1 / half_height
        projection[2, 2], projection[2, 3] = -1 / (4 * reach), -1.0
        return cls(view, projection, width, height)

    @classmethod
    def perspective(
        cls, eye: Vector, target: Vector, fov_y: float, size: tuple[int, int], *, up: Vector = (0.0, 1.0, 0.0)
    ) -> Camera:
        """A pinhole with vertical field of view `fov_y` degrees; the near plane is at 1 / 100 of the distance."""
        if not 0 < fov_y < 180:
            raise BadArgument(f"field of view {fov_y} is outside (0, 180) degrees.", where="Camera.perspective")
        view, reach = look_at(eye, target, up), _distance(eye, target)
        width, height = size
        near, far, focal = reach / 100, reach * 100, 1 / math.tan(math.radians(fov_y) / 2)
        projection = torch.zeros(4, 4, dtype=torch.float64)
        projection[0, 0], projection[1, 1] = focal * height / width, focal
        projection[2, 2], projection[2, 3] = -(far + near) / (far - near), -2 * far * near / (far - near)
        projection[3, 2] = -1.0
        return cls(view, projection, width, height)

    def project(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Points (V, 3) of the world -> pixels (V, 2), depth (V,) and w (V,), float32.

        Depth is linear over the image of a triangle; w is positive in front of a pinhole, 1 without perspective.
        """
        matrix = (self.projection @ self.view).to(points.device)
        clip = points.double() @ matrix[:, :3].T + matrix[:, 3]
        w = clip[:, 3]
        ndc = clip[:, :3] / torch.where(w.abs() > 1e-12, w, 1e-12)[:, None]
        size = ndc.new_tensor([self.width, self.height])
        pixels = (ndc[:, :2] * ndc.new_tensor([1.0, -1.0]) + 1) / 2 * size
        return pixels.float(), ndc[:, 2].float(), w.float()

    def lengths(self, points: Tensor) -> Tensor:
        """(V,) float64 lengths along the viewing axis from the camera to points (V, 3); negative behind it."""
        row = self.view[2].to(points.device)
        return -(points.double() @ row[:3] + row[3])

    def to_lengths(self, depth: Tensor) -> Tensor:
        """Depth after projection (any shape), as `project` and the rasterisers give it -> lengths along the viewing axis.

        float64, in units of the world; infinite depth (nothing there) stays infinite.
        """
        p = self.projection
        value = depth.double()
        length = (p[2, 3] - value * p[3, 3]) / (p[2, 2] - value * p[3, 2])
        return torch.where(value.isinf(), value, length)

    def zoomed(self, low: Vector, high: Vector, scale: float = 1.0) -> Camera:
        """The camera whose image is a box of this one's (Focusing, eq. 4).

        Applied in clip space: x' = scale (2 x - (high + low) w) / (high - low), likewise y. The paper prints x's centre in
        y's row, and leaves `scale` out of the shift, which then moves the centre.

        Args:
            low, high: two numbers each, corners of the box in [-1, 1]^2 after projection, y up.
            scale: s; above 1 the box's rim falls outside the new image.
        """
        first, last = (torch.as_tensor(v, dtype=torch.float64).cpu() for v in (low, high))
        if not bool((last > first).all()) or not scale > 0:
            raise BadArgument(f"the box {first.tolist()} to {last.tolist()} is empty.", where="Camera.zoomed")
        crop = torch.eye(4, dtype=torch.float64)
        crop[0, 0], crop[1, 1] = (2 * scale / (last - first)).tolist()
        crop[:2, 3] = -scale * (last + first) / (last - first)
        return replace(self, projection=crop @ self.projection)

    def between(self, near: float, far: float) -> Camera:
        """The same picture of what lies between two lengths along the viewing axis; the rest is cut away.

        Raises:
            BadArgument: far not beyond near, or a pinhole's near plane not in front of it.
        """
        p = self.projection.clone()
        pinhole = bool(p[3, 2] != 0)
        if not near < far or (pinhole and near <= 0):
            raise BadArgument(f"planes at {near} and {far}.", where="Camera.between", hint="0 < near < far.")
        p[2] = 0.0
        # z / w is -1 at the near plane and 1 at the far one; w is the length for a pinhole, else 1
        p[2, 2], p[2, 3] = (far + near, 2 * far * near) if pinhole else (2.0, far + near)
        p[2] /= near - far
        return replace(self, projection=p)

    def framed(self, points: Tensor, margin: float = 0.05) -> Camera:
        """The same view, zoomed and shifted so that the points (V, 3) fill the image but for `margin` of its sides."""
        pixels = self.project(points)[0].double().cpu()
        size = torch.tensor([self.width, self.height], dtype=torch.float64)
        ndc = (pixels / size * 2 - 1) * torch.tensor([1.0, -1.0], dtype=torch.float64)
        low, high = ndc.amin(0), ndc.amax(0)
        zoom = float(((1 - 2 * margin) * 2 / (high - low).clamp_min(1e-9)).min())
        centre = (low + high) / 2
        crop = torch.eye(4, dtype=torch.float64)
        crop[0, 0] = crop[1, 1] = zoom
        crop[:2, 3] = -zoom * centre
        return replace(self, projection=crop @ self.projection)

    def enlarged(self, factor: int) -> Camera:
        """The same picture with `factor` times the pixels an axis."""
        return replace(self, width=self.width * factor, height=self.height * factor)

    def to_view(self, directions: Tensor) -> Tensor:
        """Directions (V, 3) of the world in the view frame, float32."""
        return (directions.double() @ self.view[:3, :3].T.to(directions.device)).float()


def look_at(eye: Vector, target: Vector, up: Vector = (0.0, 1.0, 0.0)) -> Tensor:
    """(4, 4) float64 world -> view frame of a camera at `eye` that looks at `target`.

    Raises:
        BadArgument: eye and target coincide, or `up` is parallel to the line between them.
    """
    start, end, upward = (torch.as_tensor(v, dtype=torch.float64) for v in (eye, target, up))
    back = start - end
    right = torch.linalg.cross(upward, back)
    if float(back.norm()) == 0 or float(right.norm()) <= 1e-9 * float(upward.norm() * back.norm()):
        raise BadArgument("eye, target and up do not span a view.", where="look_at", hint="another up direction.")
    back, right = back / back.norm(), right / right.norm()
    rotation = torch.stack([right, torch.linalg.cross(back, right), back])
    view = torch.eye(4, dtype=torch.float64)
    view[:3, :3], view[:3, 3] = rotation, -rotation @ start
    return view


def orbit(yaw: float, pitch: float, distance: float, target: Vector = (0.0, 0.0, 0.0)) -> Tensor:
    """(3,) float64 the point at `distance` from the target; yaw turns about y from +z, both angles in degrees."""
    turn, rise = math.radians(yaw), math.radians(pitch)
    direction = [math.sin(turn) * math.cos(rise), math.sin(rise), math.cos(turn) * math.cos(rise)]
    return torch.as_tensor(target, dtype=torch.float64) + distance * torch.tensor(direction, dtype=torch.float64)


def _distance(eye: Vector, target: Vector) -> float:
    return float((torch.as_tensor(eye, dtype=torch.float64) - torch.as_tensor(target, dtype=torch.float64)).norm())
