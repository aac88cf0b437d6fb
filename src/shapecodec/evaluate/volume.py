"""Volume that two meshes share, where both have an inside."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.evaluate.scores import Numbers, share_error
from shapecodec.mesh import Mesh
from shapecodec.ops.winding_number import inside
from shapecodec.ops.winding_number.boundary import boundary_chain


@dataclass(frozen=True)
class Overlap:
    """Uniform points that fell into two meshes.

    Args:
        points: drawn, uniform in the box around both.
        prediction: inside the prediction.
        reference: inside the reference.
        both: inside both.
        reason: why there are no counts, or empty.
    """

    points: int
    prediction: int = 0
    reference: int = 0
    both: int = 0
    reason: str = ""

    def as_dict(self) -> Numbers:
        """JSON-ready: value, or None and the reason; the same points ask both meshes, so a perfect value is 1."""
        either = self.prediction + self.reference - self.both
        known = not self.reason
        return {
            "value": self.both / either if known else None,
            "points": self.points,
            "inside_prediction": self.prediction if known else None,
            "inside_reference": self.reference if known else None,
            "reason": self.reason or None,
            "floor": 1.0 if known else None,
        }

    def standard_error(self) -> Numbers:
        """Of the value: a share of the points that are inside either."""
        either = self.prediction + self.reference - self.both
        return {"value": None if self.reason else share_error(self.both / either, either)}


def why_no_inside(mesh: Mesh) -> str:
    """Why a mesh has no inside, or an empty string.

    It has one if its oriented boundary is empty: at every edge as many faces run one way as the other, vertices at equal
    positions counted as one. Winding numbers are then integers everywhere off the surface. Edges of four faces are no
    hindrance; a single face that is wound the other way is.
    """
    edges = len(boundary_chain(*mesh.numpy())[1])
    return f"{edges:,} of its edges are open or run the same way in both of their faces" if edges else ""


def overlap(prediction: Mesh, reference: Mesh, points: int, generator: torch.Generator) -> Overlap:
    """Count uniform points of the box around both meshes that lie inside each.

    The box, not the frame's cube: the share does not depend on it, and flat shapes waste no points.

    Args:
        prediction: in one frame with the reference, on the generator's device.
        reference: see above.
        points: at least 1.
        generator: of the points.

    Returns:
        Counts, or the reason why there are none.

    Raises:
        BadArgument: fewer than one point.
    """
    if points < 1:
        raise BadArgument(f"points must be at least 1, got {points}.", where="overlap")
    for name, mesh in (("prediction", prediction), ("reference", reference)):
        why = why_no_inside(mesh)
        if why:
            return Overlap(points, reason=f"the {name} has no inside: {why}.")
    bounds = [*prediction.bounds(), *reference.bounds()]
    low, high = torch.minimum(bounds[0], bounds[2]), torch.maximum(bounds[1], bounds[3])
    places = low + (high - low) * torch.rand(points, 3, generator=generator, device=low.device)
    one, two = (_inside(mesh, places) for mesh in (prediction, reference))
    counts = int(one.sum()), int(two.sum()), int((one & two).sum())
    if counts[0] + counts[1] == 0:
        return Overlap(
            points, reason=f"none of the {points:,} points is inside either mesh: they have no volume to speak of."
        )
    return Overlap(points, *counts)


def _inside(mesh: Mesh, places: Tensor) -> Tensor:
    """(n,) bool; `inside` sees points of the mesh's own box only, the others lie outside."""
    low, high = mesh.bounds()
    near = ((places >= low) & (places <= high)).all(1)
    result = torch.zeros(len(places), dtype=torch.bool, device=places.device)
    result[near] = inside(places[near], mesh.vertices, mesh.faces)
    return result
