"""How good a set of generated shapes is, measured against a set of real ones by distances between their point clouds.

Minimum matching distance and coverage are due to Achlioptas et al. (2018), the 1-nearest-neighbour test to Lopez-Paz and
Oquab (2017), all three in the form of PointFlow (Yang et al. 2019). None of them is meaningful without the size of the sets
and the number of points: results carry both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.evaluate.matching import TOLERANCE, cloud_distances
from shapecodec.mesh import Mesh
from shapecodec.rng import rng

PROTOCOL = "generation-v1"
POINTS = 2048
DEFINITIONS = {
    "points": "Sampled uniformly by area; each shape's own box is centred and its longest side scaled to 1 first.",
    "chamfer": "Mean squared distance to the nearest point of the other cloud, both directions added.",
    "emd": "Mean distance between the points of two clouds paired one to one, by an auction that stops at most 1% above the "
    "cheapest pairing; not the approximation of earlier papers, which has no such bound.",
    "mmd": "Distance from a real shape to the nearest generated one, mean over the real shapes.",
    "coverage": "Share of real shapes that are the nearest real shape of at least one generated one.",
    "nearest_neighbour": "Share of shapes, real and generated together, whose nearest other shape is of their own kind; .5 is "
    "ideal, 1 means that the sets are told apart, below .5 that one copies the other. A tie counts half.",
    "floor": "Every second real shape scored against the others: what a set of half the size, drawn from the same source, gets.",
}


def shape_clouds(meshes: Sequence[Mesh], points: int = POINTS, *, seed: int = 0) -> Tensor:
    """(N, points, 3) float32 on the CPU: points on each mesh, its own box scaled to the unit cube.

    Shape i is sampled with the counters (seed, i), so a longer list begins with the same clouds.

    Raises:
        BadArgument: no meshes, or fewer than one point.
    """
    if not meshes or points < 1:
        raise BadArgument(f"{len(meshes)} meshes, {points} points.", where="shape_clouds", hint="at least one of each.")
    clouds = []
    for index, mesh in enumerate(meshes):
        unit = mesh.to("cpu").normalise(0.0)[0]
        clouds.append(unit.sample(points, rng(seed, index, purpose="clouds of a set of shapes"))[0])
    return torch.stack(clouds)


def generation_scores(
    generated: Tensor, reference: Tensor, metric: str = "chamfer", *, tolerance: float = TOLERANCE
) -> dict[str, Any]:
    """Score a set of generated clouds against real ones.

    Costs (G + R)^2 / 2 distances: at 2,048 points 6 ms each for "chamfer" and .1 s for "emd", one core.

    Args:
        generated: (G, P, 3) float32, such as `shape_clouds` gives.
        reference: (R, P, 3) float32 of shapes that the generator was not trained on.
        metric: "chamfer" or "emd", see `cloud_distances`.
        tolerance: of "emd".

    Returns:
        JSON-ready: protocol, metric, points, generated and reference (the sets' sizes), and the numbers of `set_scores`.

    Raises:
        BadArgument: fewer than two clouds in a set, or shapes and metrics that do not fit.
    """
    for name, clouds in (("generated", generated), ("reference", reference)):
        if clouds.ndim != 3 or len(clouds) < 2 or clouds.shape[1:] != reference.shape[1:]:
            raise BadArgument(
                f"{name} is {tuple(clouds.shape)}, reference {tuple(reference.shape)}.",
                where="generation_scores",
                hint="two sets of at least two clouds with the same number of points.",
            )
    cross, own, real = (
        cloud_distances(one, two, metric, tolerance=tolerance)
        for one, two in ((generated, reference), (generated, generated), (reference, reference))
    )
    return {
        "protocol": PROTOCOL,
        "metric": metric,
        "points": reference.shape[1],
        "generated": len(generated),
        "reference": len(reference),
        **set_scores(cross, own, real),
    }


def set_scores(cross: Tensor, generated: Tensor, reference: Tensor) -> dict[str, Any]:
    """Scores from distances alone, whatever they measure.

    Args:
        cross: (G, R) from generated to real shapes, G and R at least 2.
        generated: (G, G) among the generated.
        reference: (R, R) among the real.

    Returns:
        mmd, coverage, nearest_neighbour {all, generated, reference}: the accuracy over both sets and over each; floor {mmd,
        coverage, nearest_neighbour}, or None with fewer than four real shapes. `DEFINITIONS` says what they are.

    Raises:
        BadArgument: shapes that do not fit.
    """
    count, real = cross.shape
    if min(count, real) < 2 or generated.shape != (count, count) or reference.shape != (real, real):
        shapes = [tuple(distances.shape) for distances in (cross, generated, reference)]
        raise BadArgument(
            f"distances {shapes}.", where="set_scores", hint="(G, R), (G, G) and (R, R), at least 2 each."
        )
    floor = None
    if real >= 4:
        even, odd = reference[::2], reference[1::2]
        floor = _scores(even[:, 1::2], even[:, ::2], odd[:, 1::2])
    return {**_scores(cross, generated, reference), "floor": floor}


def _scores(cross: Tensor, generated: Tensor, reference: Tensor) -> dict[str, Any]:
    ours, theirs = _own_kind(generated, cross.amin(1)), _own_kind(reference, cross.amin(0))
    return {
        "mmd": float(cross.amin(0).mean()),
        "coverage": len(cross.argmin(1).unique()) / cross.shape[1],
        "nearest_neighbour": {
            "all": float(torch.cat([ours, theirs]).mean()),
            "generated": float(ours.mean()),
            "reference": float(theirs.mean()),
        },
    }


def _own_kind(own: Tensor, other: Tensor) -> Tensor:
    """(n,) float64: 1 where the nearest of the same set (n, n), itself left out, is nearer than `other` (n,); a tie is .5."""
    apart = own + torch.diag(torch.full((len(own),), torch.inf, dtype=own.dtype, device=own.device))
    return torch.sign(other - apart.amin(1)).double() / 2 + 0.5
