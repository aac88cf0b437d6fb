"""Two meshes in one cube, and everything that is measured between them once, whatever protocols ask for it.

Protocols differ in frame, number of points and thresholds. Frames differ by a similarity, so distances are found in the
cube alone and multiplied; samples of equal number are the same for all protocols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from shapecodec.evaluate.hausdorff import Bounds, hausdorff
from shapecodec.evaluate.protocol import CUBE, Protocol
from shapecodec.evaluate.scores import Numbers, angle_statistics, both_ways, exact_scores, normal_angles
from shapecodec.evaluate.topology import Topology, topology
from shapecodec.evaluate.views import Views
from shapecodec.evaluate.visible import OuterSurface
from shapecodec.evaluate.volume import Overlap, overlap
from shapecodec.mesh import Mesh, Similarity
from shapecodec.ops.closest_point import closest_point
from shapecodec.ops.nearest_point import nearest_point
from shapecodec.rng import rng


@dataclass(frozen=True)
class Samples:
    """Points on both meshes in the cube, n on each.

    Args:
        prediction: (n, 3) and their faces (n,).
        reference: (n, 3) and their faces (n,).
        again: (n, 3) on the reference, independent of the others.
    """

    prediction: tuple[Tensor, Tensor]
    reference: tuple[Tensor, Tensor]
    again: Tensor


@dataclass(frozen=True)
class Measured:
    """What one number of points gives, in lengths of the cube; (n,) float32 where not said otherwise.

    Args:
        accuracy: exact distances from the prediction's samples to the reference's triangles.
        completeness: and back.
        distances: their statistics and standard errors.
        angles: unsigned normal errors in degrees and their standard errors.
        signed_angles: signed ones.
        nearest: distances to the nearest sample: of the prediction's samples, of the reference's, and of the reference's
            second sample to its first (the floor).
    """

    accuracy: Tensor
    completeness: Tensor
    distances: tuple[Numbers, Numbers]
    angles: tuple[Numbers, Numbers]
    signed_angles: tuple[Numbers, Numbers]
    nearest: tuple[Tensor, Tensor, Tensor]


class _OneWay(NamedTuple):
    """Exact distances (n,) from samples to a mesh, and statistics of both angles with their standard errors."""

    distance: Tensor
    angles: tuple[Numbers, Numbers]
    signed_angles: tuple[Numbers, Numbers]


def _nearest(samples: Samples) -> tuple[Tensor, Tensor, Tensor]:
    """See `Measured.nearest`; what is measured to the same points is asked at once."""
    on_prediction, on_reference = samples.prediction[0], samples.reference[0]
    to_reference = nearest_point(torch.cat([on_prediction, samples.again]), on_reference)[0]
    accuracy, floor = to_reference.split(len(on_prediction))
    return accuracy, nearest_point(on_reference, on_prediction)[0], floor


class Pair:
    """A prediction and its reference.

    Args:
        prediction: in the reference's own scale and position.
        reference: what the prediction should be.
        cube: the similarity from the reference to the codec's cube where that is known; None is `Mesh.normalise`'s.
        seed: of the samples.
        device: where everything is measured.
    """

    def __init__(
        self,
        prediction: Mesh,
        reference: Mesh,
        *,
        cube: Similarity | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        prediction, reference = prediction.to(device), reference.to(device)
        self.cube = CUBE.similarity(reference) if cube is None else cube
        self.prediction, self.reference = prediction.transformed(self.cube), reference.transformed(self.cube)
        self.seed, self.device = seed, torch.device(device)
        self._measured: dict[tuple[int, Views | None], Measured] = {}
        self._outer: dict[Views, tuple[OuterSurface, OuterSurface]] = {}
        self._overlaps: dict[int, Overlap] = {}
        self._counted: tuple[Topology, Topology] | None = None

    def units(self, protocol: Protocol) -> tuple[float, Similarity]:
        """Lengths of the protocol's frame in one of the cube, and the similarity from the meshes to that frame."""
        if protocol.frame == CUBE:  # also where the cube is the codec's own
            return 1.0, self.cube
        inner = protocol.frame.similarity(self.reference)
        centre = [c + own / self.cube.scale for c, own in zip(self.cube.centre, inner.centre, strict=True)]
        return inner.scale, Similarity((centre[0], centre[1], centre[2]), self.cube.scale * inner.scale)

    def outer(self, views: Views) -> tuple[OuterSurface, OuterSurface]:
        """What of the prediction and of the reference is seen in the views, each mesh drawn by itself; drawn once."""
        if views not in self._outer:
            self._outer[views] = OuterSurface(self.prediction, views), OuterSurface(self.reference, views)
        return self._outer[views]

    def samples(self, points: int, views: Views | None = None) -> Samples:
        """Uniform by area, on what the views see if there are any; deterministic in (seed, points) on one kind of device."""
        prediction, reference = (self.prediction, self.reference) if views is None else self.outer(views)

        def draw(surface: Mesh | OuterSurface, purpose: str) -> tuple[Tensor, Tensor]:
            return surface.sample(points, rng(self.seed, purpose=purpose, device=self.device))

        return Samples(
            draw(prediction, "samples of the prediction"),
            draw(reference, "samples of the reference"),
            draw(reference, "the reference sampled again")[0],
        )

    def measured(self, points: int, views: Views | None = None) -> Measured:
        """Distances and angles of `points` samples a mesh; computed once."""
        self.measure([(points, views)])
        return self._measured[points, views]

    def measure(self, asked: Sequence[tuple[int, Views | None]]) -> None:
        """Measure with these samples (see `samples`), whichever are not known yet; one search tree serves them all."""
        missing = [one for one in dict.fromkeys(asked) if one not in self._measured]
        if not missing:
            return
        samples = [self.samples(*one) for one in missing]
        accuracy = self._towards([one.prediction for one in samples], self.prediction, self.reference)
        completeness = self._towards([one.reference for one in samples], self.reference, self.prediction)
        for one, drawn, there, back in zip(missing, samples, accuracy, completeness, strict=True):
            self._measured[one] = Measured(
                there.distance,
                back.distance,
                exact_scores(there.distance, back.distance),
                both_ways(there.angles, back.angles),
                both_ways(there.signed_angles, back.signed_angles),
                _nearest(drawn),
            )

    def _towards(self, samples: Sequence[tuple[Tensor, Tensor]], source: Mesh, target: Mesh) -> list[_OneWay]:
        """From several sets of samples on `source` to `target`."""
        found = closest_point(torch.cat([points for points, _ in samples]), target.vertices, target.faces)
        own, other, sizes = source.face_normals(), target.face_normals(), [len(points) for points, _ in samples]
        ways = []
        for (_, faces), distance, face in zip(
            samples, found.distance.split(sizes), found.face.split(sizes), strict=True
        ):
            unsigned, signed = normal_angles(own[faces], other[face])
            ways.append(_OneWay(distance, angle_statistics(unsigned), angle_statistics(signed)))
        return ways

    def topologies(self, intersections: bool) -> tuple[Topology, Topology]:
        """Of prediction and reference in units of the cube; self-intersections counted if asked for."""
        if self._counted is None or (intersections and self._counted[0].self_intersections is None):
            self._counted = (topology(self.prediction, intersections), topology(self.reference, intersections))
        if intersections:
            return self._counted
        one, two = (replace(counts, self_intersections=None, intersecting_faces=None) for counts in self._counted)
        return one, two

    @cached_property
    def hausdorff(self) -> tuple[Bounds, Bounds]:
        """Bounds of the largest distance from the prediction to the reference, and back."""
        return hausdorff(self.prediction, self.reference), hausdorff(self.reference, self.prediction)

    def overlap(self, points: int) -> Overlap:
        """Shares of common volume, of `points` uniform points."""
        if points not in self._overlaps:
            generator = rng(self.seed, purpose="points in the volume", device=self.device)
            self._overlaps[points] = overlap(self.prediction, self.reference, points, generator)
        return self._overlaps[points]
