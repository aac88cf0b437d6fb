"""Nearest points on CUDA: the closest-point walk over triangles that are points."""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.ops.closest_point.triton import closest_faces


def nearest_point(points: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """See the public function; at least one point and one target."""
    faces = torch.arange(len(targets), device=targets.device)[:, None].repeat(1, 3)
    row = closest_faces(points, targets.contiguous(), faces)
    return (points.double() - targets[row].double()).norm(dim=1).float(), row
