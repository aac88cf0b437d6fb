"""What a number means: a protocol fixes the frame, the thresholds and the words that are printed beside its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from shapecodec.errors import BadArgument

CODEC_MARGIN = 0.025  # the margin of `Mesh.normalise` under which codecs lay their voxels: a voxel is 1 / N there

_COMMON = {
    "frame": "The reference's box is centred and its longest side scaled to {side:g}; the prediction is moved by the "
    "same similarity and never normalised by itself. Distances are in these units, or in voxels of the codec's grid.",
    "accuracy": "Exact distance from points sampled uniformly by area on the prediction to the reference's "
    "triangles. Inner layers of a double shell are sampled like any other surface.",
    "completeness": "Exact distance from points sampled uniformly by area on the reference to the prediction's "
    "triangles.",
    "max": "Largest distance over the sampled points: a lower bound of the one-sided Hausdorff distance.",
    "exact_f_score": "Harmonic mean of the shares of sampled points whose exact distance to the other mesh is below "
    "the threshold. No sampling floor: identical meshes score 1.",
    "chamfer_l1": "Mean distance (not squared) from each sampled point to the nearest one of the other mesh; "
    "half_sum = (completeness + accuracy) / 2 as in LoG3D, supplement B.",
    "chamfer_l2": "The same with squared distances.",
    "f_score": "Harmonic mean of precision and recall: the shares of sampled points with a sampled point of the other "
    "mesh nearer than the threshold (LoG3D, supplement B).",
    "floor": "The reference against itself, sampled again with another seed: what a perfect prediction scores. In "
    "expectation, area A and n points: Chamfer L1 .5 sqrt(A/n), squared A/(pi n), F 1 - exp(-pi r^2 n/A) at radius r.",
    "normal_error": "Angle in degrees between the normal lines (unsigned, 0 to 90) at a sampled point and at its exact "
    "closest point on the other mesh; faces without area are left out.",
    "area_ratio": "Area of the prediction over that of the reference; near 2 for a double shell.",
    "watertight": "Every edge belongs to exactly two faces; faces that repeat a vertex are not counted.",
    "volume": "Signed volume, only where the mesh is watertight.",
}


@dataclass(frozen=True)
class Protocol:
    """One way to measure a reconstruction.

    Args:
        name: printed beside every number.
        margin: the reference's longest side becomes 1 - 2 * margin.
        thresholds: F-score radii in units of the frame.
        definitions: key of the result -> what it is, in words.
    """

    name: str
    margin: float
    thresholds: tuple[float, ...]
    definitions: Mapping[str, str]

    def voxel(self, resolution: int) -> float:
        """The length of a voxel of the codec's resolution^3 grid in this protocol's frame."""
        return (1.0 - 2.0 * self.margin) / (1.0 - 2.0 * CODEC_MARGIN) / resolution


def _protocol(name: str, margin: float, thresholds: tuple[float, ...], **changes: str) -> Protocol:
    words = {**_COMMON, **changes}
    words["frame"] = words["frame"].format(side=1.0 - 2.0 * margin)
    return Protocol(name, margin, thresholds, MappingProxyType(words))


EXACT = _protocol("exact-v1", CODEC_MARGIN, (0.001, 0.005, 0.01, 0.02))
LOG3D = _protocol(
    "log3d-v1",
    0.01,
    (0.001, 0.01),
    surface="LoG3D samples outer surfaces only, from views and with a number of points that it does not publish; here "
    "the whole surface is sampled. Compare with its tables by the floor, not by absolute values.",
)
PROTOCOLS: Mapping[str, Protocol] = MappingProxyType({protocol.name: protocol for protocol in (EXACT, LOG3D)})


def find_protocol(name: str) -> Protocol:
    """A protocol by its name.

    Raises:
        BadArgument: no such protocol.
    """
    if name not in PROTOCOLS:
        raise BadArgument(f"unknown protocol '{name}'.", where="protocol", hint=f"one of {', '.join(PROTOCOLS)}.")
    return PROTOCOLS[name]
