"""Volume that two meshes share, where both have an inside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.evaluate.protocol import INSIDE
from shapecodec.evaluate.scores import Numbers, share_error
from shapecodec.mesh import Mesh
from shapecodec.ops.winding_number import winding_number
from shapecodec.ops.winding_number.boundary import boundary_chain


@dataclass(frozen=True)
class Overlap:
    """Uniform points that fell into two meshes.

    Args:
        points: drawn, uniform in the box around both.
        prediction: inside the prediction.
        reference: inside the reference.
        both: inside both.
        ambiguous: of prediction and reference, see `overlap`: the share of points that are neither inside nor outside.
        reason: why there are no counts, or empty.
    """

    points: int
    prediction: int = 0
    reference: int = 0
    both: int = 0
    ambiguous: tuple[float, float] = (0.0, 0.0)
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
            "ambiguous_prediction": self.ambiguous[0] if known else None,
            "ambiguous_reference": self.ambiguous[1] if known else None,
            "reason": self.reason or None,
            "floor": 1.0 if known else None,
        }

    def standard_error(self) -> Numbers:
        """Of the value: a share of the points that are inside either."""
        either = self.prediction + self.reference - self.both
        return {"value": None if self.reason else share_error(self.both / either, either)}


class _Inside(NamedTuple):
    """(n,) bool, the share of ambiguous points, and why the mesh has no inside, or an empty string."""

    inside: Tensor
    ambiguous: float
    reason: str


def overlap(prediction: Mesh, reference: Mesh, points: int, generator: torch.Generator) -> Overlap:
    """Count uniform points of the box around both meshes that lie inside each: |winding number| above one half.

    A closed, consistently wound mesh has an inside; its winding numbers are integers. An open one has if they nearly are: at
    most one in fifty of the points where |w| > 1/4 has |w| < 3/4 (a scan with pinholes or a turned face passes, a bowl or a
    sheet does not), and no more than 10,000 of its edges are open.

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
    bounds = [*prediction.bounds(), *reference.bounds()]
    low, high = torch.minimum(bounds[0], bounds[2]), torch.maximum(bounds[1], bounds[3])
    places = low + (high - low) * torch.rand(points, 3, generator=generator, device=low.device)
    found = []
    for name, mesh in (("reference", reference), ("prediction", prediction)):
        found.append(_inside(mesh, places))
        if found[-1].reason:
            return Overlap(points, reason=f"the {name} has no inside: {found[-1].reason}.")
    own, other = found
    counts = int(other.inside.sum()), int(own.inside.sum()), int((own.inside & other.inside).sum())
    if counts[0] + counts[1] == 0:
        return Overlap(points, reason=f"none of {points:,} points is inside either mesh.")
    return Overlap(points, *counts, (other.ambiguous, own.ambiguous))


def _inside(mesh: Mesh, places: Tensor) -> _Inside:
    """Which places are inside; beyond the mesh's box none is."""
    result = torch.zeros(len(places), dtype=torch.bool, device=places.device)
    edges = len(boundary_chain(*mesh.numpy())[1])
    if edges > INSIDE.open_edges:
        return _Inside(result, 1.0, f"{edges:,} of its edges are open")
    low, high = mesh.bounds()
    near = ((places >= low) & (places <= high)).all(1)
    number = winding_number(places[near], mesh.vertices, mesh.faces).abs()
    result[near] = number > INSIDE.level
    covered = int((number > INSIDE.doubt[0]).sum())
    unsure = int(((number > INSIDE.doubt[0]) & (number < INSIDE.doubt[1])).sum()) / max(covered, 1)
    if edges and (covered == 0 or unsure > INSIDE.ambiguous):
        words = f"its winding number is neither 0 nor 1 at {unsure:.1%} of the points that it covers"
        what = words if covered else f"it covers none of {len(places):,} points"
        return _Inside(result, unsure, f"{edges:,} of its edges are open and {what}")
    return _Inside(result, unsure, "")
