"""What the LaGeM encoder reads: points of the surface, and in training the queries that its decoder has to answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from shapecodec.mesh import Mesh

RADIUS = (
    0.49  # of the paper's unit sphere inside the unit cube: one hundredth is left around it for the surface's cells
)
SIDE = 0.002  # in that sphere's radius: how far to either side of the surface the normals' sign is looked for


@dataclass(frozen=True, eq=False)
class PointInputs:
    """Surface points of one or several shapes, as many for each.

    Args:
        points: (B, N, 3) float32 in the paper's frame: the shape's box is centred, its largest vertex norm is 1.
        order: (B, M) int64 rows of `points`, farthest first: the first m of them are the points of a level with m vectors.
        resolution: voxels an axis of the mesh that will be decoded.
        normals: (B, N, 3) float32 unit normals out of the solid, 0 where there is no out; None where the codec does not read them.
        mesh: the shape itself in the unit cube, for the oracle; None in training.
    """

    points: Tensor
    order: Tensor
    resolution: int
    normals: Tensor | None = None
    mesh: Mesh | None = None

    def to(self, device: torch.device | str) -> PointInputs:
        """The same inputs on another device."""
        return replace(
            self,
            points=self.points.to(device),
            order=self.order.to(device),
            normals=None if self.normals is None else self.normals.to(device),
            mesh=None if self.mesh is None else self.mesh.to(device),
        )


@dataclass(frozen=True, eq=False)
class OccupancyBatch:
    """A training batch: inputs, and points in space whose inside is known (appendices A and D).

    Args:
        inputs: B shapes.
        queries: (B, Q, 3) float32 in the frame of `inputs.points`: first the volume points, then those near the surface.
        inside: (B, Q) bool.
        volume: how many of the Q queries are volume points; the loss weighs the two kinds apart (eq. 15).
        distance: (B, Q) float32 unsigned distances to the surface in the same frame; None where no distance is learnt.
    """

    inputs: PointInputs
    queries: Tensor
    inside: Tensor
    volume: int
    distance: Tensor | None = None

    @property
    def tokens(self) -> int:
        """Vectors of the finest level in all shapes."""
        return self.inputs.order.numel()

    def to(self, device: torch.device | str) -> OccupancyBatch:
        """The same batch on another device."""
        return replace(
            self,
            inputs=self.inputs.to(device),
            queries=self.queries.to(device),
            inside=self.inside.to(device),
            distance=None if self.distance is None else self.distance.to(device),
        )
