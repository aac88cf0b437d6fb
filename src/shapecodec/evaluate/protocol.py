"""What a number means: a protocol fixes frame, points and thresholds, and the words that are printed beside its numbers.

A protocol is data. Its name ends in a version and its digest covers every number in it: what changes a score changes the
digest, a test holds the digests, and results of different ones are not compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any, Literal

from shapecodec.errors import BadArgument
from shapecodec.evaluate.views import Views
from shapecodec.evaluate.visible import GRAZING, OUTER, SLACK
from shapecodec.evaluate.words import (
    COMMON,
    FOCUSING_OUTER_WORDS,
    FOCUSING_WORDS,
    LAGEM_WORDS,
    LOG3D_OUTER_WORDS,
    LOG3D_WORDS,
)
from shapecodec.mesh import Mesh, Similarity


@dataclass(frozen=True)
class Frame:
    """Where distances are measured: the centre of the reference's box goes to the origin, and one length is fixed.

    Args:
        kind: "box", the box's longest side has the length `size`; "sphere", the farthest vertex has that distance.
        size: in units of the frame.
    """

    kind: Literal["box", "sphere"]
    size: float

    def similarity(self, reference: Mesh) -> Similarity:
        """What takes the reference, and with it the prediction, into the frame."""
        low, high = (corner.double().cpu() for corner in reference.bounds())
        centre = (low + high) / 2
        if self.kind == "box":
            length = float((high - low).max())
        else:
            used = reference.vertices[reference.faces.unique()].double()
            length = float((used - centre.to(used.device)).norm(dim=1).max())
        return Similarity((float(centre[0]), float(centre[1]), float(centre[2])), self.size / length)

    def in_words(self) -> str:
        """For definitions and tables."""
        if self.kind == "box":
            return f"longest side of the reference's box {self.size:g}"
        return f"farthest vertex of the reference at {self.size:g} from its box's centre"


@dataclass(frozen=True)
class Inside:
    """When a mesh has an inside, and what is inside; the same for all protocols.

    Args:
        level: |winding number| above which a point is inside.
        doubt: |winding numbers| between which a point is in doubt; above the first it counts as covered.
        ambiguous: largest share of points in doubt among the covered ones.
        open_edges: most edges of the oriented boundary: each costs a dozen nanoseconds at every point.
    """

    level: float = 0.5
    doubt: tuple[float, float] = (0.25, 0.75)
    ambiguous: float = 0.02
    open_edges: int = 10_000


INSIDE = Inside()


@dataclass(frozen=True)
class Printed:
    """A number as the paper prints it.

    Args:
        name: key under `paper`.
        path: of the number in a result; its floor stands at `floor_path`.
        floor_path: of what the reference scores against itself.
        factor: the printed number is this times the number.
        unit: in words.
    """

    name: str
    path: tuple[str, ...]
    floor_path: tuple[str, ...]
    factor: float
    unit: str


@dataclass(frozen=True)
class Protocol:
    """One way to measure a reconstruction.

    Args:
        name: printed beside every number; ends in the version.
        frame: of the distances.
        points: samples on each mesh, unless asked otherwise, which the result then says.
        volume_points: uniform points of the IoU.
        thresholds: F-score radii in units of the frame.
        printed: the scores that the paper prints.
        definitions: key of the result -> what it is, in words.
        outer: None samples the whole surface; views sample what is seen in them, see `visible.OuterSurface`.
    """

    name: str
    frame: Frame
    points: int
    volume_points: int
    thresholds: tuple[float, ...]
    printed: tuple[Printed, ...]
    definitions: Mapping[str, str]
    outer: Views | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: everything that decides the numbers."""
        decisive = {
            "name": self.name,
            "frame": asdict(self.frame),
            "points": self.points,
            "volume_points": self.volume_points,
            "inside": asdict(INSIDE),
            "thresholds": self.thresholds,
            "printed": [asdict(score) for score in self.printed],
        }
        if self.outer is not None:
            decisive["outer"] = {**self.outer.as_dict(), "slack": SLACK, "grazing": GRAZING}
        plain: dict[str, Any] = json.loads(json.dumps(decisive))  # tuples become lists
        return plain

    @property
    def digest(self) -> str:
        """Eight hexadecimal digits of `as_dict`."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:8]


def _chamfer(power: str, total: str, factor: float, unit: str) -> Printed:
    return Printed("chamfer", ("sampled", power, total), ("sampled", power, "floor", total), factor, unit)


def _f_score(name: str, threshold: float, factor: float) -> Printed:
    path = ("sampled", "f_score", f"{threshold:g}")
    unit = "per cent" if factor == 100.0 else "share"
    return Printed(name, (*path, "f"), (*path, "floor"), factor, f"F-score at {threshold:g}, {unit}")


def _protocol(
    name: str, frame: Frame, points: int, thresholds: tuple[float, ...], words: Mapping[str, str], *printed: Printed,
    outer: Views | None = None,
) -> Protocol:  # fmt: skip
    definitions = {**COMMON, "unit": f"{frame.in_words()}.".capitalize(), **words}
    return Protocol(name, frame, points, 50_000, thresholds, printed, MappingProxyType(definitions), outer)


CUBE = Frame("box", 0.95)  # of `Mesh.normalise`, under which codecs lay their voxels: a voxel is 1 / N there
EXACT = _protocol("exact-v1", CUBE, 1_000_000, (0.001, 0.005, 0.01, 0.02), {"surface": "The whole surface is sampled."})
LOG3D = _protocol(
    "log3d-v1",
    Frame("box", 0.98),
    1_000_000,
    (0.001, 0.01),
    LOG3D_WORDS,
    _chamfer("chamfer_l1", "half_sum", 1.0, "half the sum of mean distances"),
    _f_score("f_0.001", 0.001, 100.0),
    _f_score("f_0.01", 0.01, 100.0),
)
LOG3D_OUTER = _protocol(
    "log3d-outer-v1", LOG3D.frame, 500_000, LOG3D.thresholds, LOG3D_OUTER_WORDS, *LOG3D.printed, outer=OUTER
)
FOCUSING = _protocol(
    "focusing-v1",
    Frame("box", 1.0),
    100_000,
    (0.005,),
    FOCUSING_WORDS,
    _chamfer("chamfer_l2", "sum", 1e5, "sum of mean squared distances, times 1e5"),
    _f_score("f_0.005", 0.005, 1.0),
)
FOCUSING_OUTER = _protocol(
    "focusing-outer-v1", FOCUSING.frame, FOCUSING.points, FOCUSING.thresholds, FOCUSING_OUTER_WORDS, *FOCUSING.printed,
    outer=OUTER,
)  # fmt: skip
LAGEM = _protocol(
    "lagem-v1",
    Frame("sphere", 1.0),
    100_000,
    (0.02,),
    LAGEM_WORDS,
    _chamfer("chamfer_l1", "sum", 100.0, "sum of mean distances, times 100"),
    _f_score("f_0.02", 0.02, 100.0),
)
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType(
    {protocol.name: protocol for protocol in (EXACT, LOG3D, LOG3D_OUTER, FOCUSING, FOCUSING_OUTER, LAGEM)}
)


def find_protocol(name: str) -> Protocol:
    """A protocol by its name.

    Raises:
        BadArgument: no such protocol.
    """
    if name not in PROTOCOLS:
        raise BadArgument(f"unknown protocol '{name}'.", where="protocol", hint=f"one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]


def check_same_protocol(*results: Mapping[str, Any]) -> None:
    """Refuse results whose numbers do not mean the same.

    Args:
        results: of `metrics.compare`, any number.

    Raises:
        BadArgument: protocols, their digests (another definition under the same name) or numbers of points differ.
    """
    for result in results[1:]:
        for key, text in (
            ("protocol", "protocol"),
            ("digest", "digest of the protocol"),
            ("points", "number of points"),
        ):
            first, other = (one.get(key) for one in (results[0], result))
            if first != other:
                raise BadArgument(
                    f"these results are not comparable: {text} {_show(first)} and {_show(other)}.",
                    where="check_same_protocol",
                    hint="measure both again with one version, protocol and number of points.",
                )


def _show(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "not stated" if value is None else f"'{value}'"
