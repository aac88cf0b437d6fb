"""Where a shape is looked at from: frozen lists of views, so that two people render the same pictures."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from shapecodec.camera import Camera
from shapecodec.errors import BadArgument
from shapecodec.mesh import Mesh


@dataclass(frozen=True)
class Views:
    """Orthographic pictures of a shape from directions spread evenly over the sphere.

    Every picture is a square centred on the middle of the framed mesh's box. Half its side is `margin` times the largest
    distance of a vertex from that middle: the whole shape is in it from everywhere, whatever its scale and position.

    Args:
        count: of directions, see `sphere_directions`.
        resolution: pixels a side.
        margin: at least 1.
    """

    count: int
    resolution: int
    margin: float = 1.05

    def __post_init__(self) -> None:
        if self.count < 1 or self.resolution < 1 or not self.margin >= 1.0:
            raise BadArgument(
                f"{self.count} views of {self.resolution} pixels with margin {self.margin}.",
                where="Views",
                hint="at least one of each.",
            )

    @property
    def name(self) -> str:
        """What the list is called in results."""
        return f"fibonacci-{self.count}"

    def frame(self, mesh: Mesh) -> tuple[Tensor, float]:
        """The pictures' common centre (3,) float64 and half their side, in units of the mesh."""
        low, high = (corner.double().cpu() for corner in mesh.bounds())
        centre = (low + high) / 2
        used = torch.zeros(len(mesh.vertices), dtype=torch.bool, device=mesh.vertices.device)
        used[mesh.faces.reshape(-1)] = True
        return centre, self.margin * float((mesh.vertices[used].double().cpu() - centre).norm(dim=1).max())

    def cameras(self, mesh: Mesh) -> list[Camera]:
        """One camera a direction, framed on `mesh`; up in the pictures is y."""
        centre, half = self.frame(mesh)
        size = (self.resolution, self.resolution)
        return [
            Camera.orthographic(centre + 2 * half * direction, centre, half, size)
            for direction in sphere_directions(self.count)
        ]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready, with the name."""
        return {"name": self.name, **asdict(self), "projection": "orthographic"}


def sphere_directions(count: int) -> Tensor:
    """(count, 3) float64 unit directions on a Fibonacci lattice about y: no two of them and no axis line up.

    Direction i has height 1 - (2 i + 1) / count and turns about y by i golden angles from +z (Gonzalez 2010).
    """
    i = torch.arange(count, dtype=torch.float64)
    height = 1 - (2 * i + 1) / count
    turn = i * (math.pi * (3 - math.sqrt(5)))
    radius = (1 - height**2).sqrt()
    return torch.stack([radius * turn.sin(), height, radius * turn.cos()], 1)
