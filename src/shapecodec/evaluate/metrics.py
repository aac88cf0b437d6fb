"""How far two meshes are apart: exact distances both ways, sampled scores beside their floor, normals, topology.

The numbers' definitions stand in `protocol.py` and travel with every printed report (`compare.format_comparison`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.evaluate.pair import Measured, Pair
from shapecodec.evaluate.protocol import EXACT, PROTOCOLS, Printed, Protocol, check_same_protocol, find_protocol
from shapecodec.evaluate.scores import (
    Numbers,
    at,
    chamfer_scores,
    distance_statistics,
    f_errors,
    f_scores,
    line_angles,
    map_numbers,
    sampled_f_scores,
)
from shapecodec.evaluate.topology import topology
from shapecodec.mesh import Mesh, Similarity
from shapecodec.ops.nearest_point import nearest_point

__all__ = [
    "PROTOCOLS",
    "check_same_protocol",
    "compare",
    "compare_all",
    "distance_statistics",
    "f_scores",
    "find_protocol",
    "floor_of",
    "line_angles",
    "sampled_scores",
    "topology",
]


def compare(
    prediction: Mesh,
    reference: Mesh,
    *,
    resolution: int | None = None,
    points: int | None = None,
    seed: int = 0,
    protocol: str | Protocol = EXACT,
    frame: Similarity | None = None,
    device: torch.device | str = "cpu",
    full: bool = False,
) -> Numbers:
    """Measure a reconstruction against the mesh that it should be, under one protocol.

    Both meshes, wherever they are, are moved to `device` first, where samples are drawn and distances found. Deterministic
    in (seed, points) on one kind of device, whatever the number of threads. Memory: about 300 bytes a face and 200 bytes a point.

    Args:
        prediction: in the reference's own scale and position.
        reference: what was given to the codec.
        resolution: voxels an axis of the codec's grid; adds every distance in voxels.
        points: samples on each mesh; None is the protocol's number.
        seed: of the samples.
        protocol: see `evaluate.protocol`.
        frame: the similarity from the reference to the codec's cube where that is known, such as `Similarity()` for
            meshes that already lie in it; None is that of `Mesh.normalise`. It is the frame of exact-v1; other protocols
            have frames of their own.
        device: the CPU, or a CUDA device with Triton (without it the queries would be brute force).
        full: also measure what takes longer: `hausdorff`, `iou` and self-intersections, None otherwise.

    Returns:
        JSON-ready numbers:
        protocol, digest (of its definition), points, seed, surface ("all" or "outer"), resolution, voxel (its length, or
        None), frame {centre, scale};
        exact {accuracy, completeness} each {mean, p50, p95, p99, max} and the same in `..._voxels` (None without a
        resolution), f_score {threshold: {precision, recall, f}};
        hausdorff {lower, upper, accuracy {lower, upper}, completeness {lower, upper}} in units of the frame;
        sampled {chamfer_l1, chamfer_l2} each {accuracy, completeness, half_sum, sum, floor {half_sum, sum}},
        f_score {threshold: {precision, recall, f, floor}};
        paper {name: {value, floor, unit}}, the scores that the protocol's paper prints, as it prints them;
        normal_error_degrees and normal_error_signed_degrees {accuracy, completeness} each {mean, p50, p95}, and mean, the
        mean of both;
        iou {value, points, inside_prediction, inside_reference, reason, floor};
        prediction, reference: `Topology` in the frame's units; area_ratio; volume_ratio (None unless both are closed);
        standard_error: of the numbers that are estimated from samples, at the same places.

    Raises:
        BadArgument: fewer than one point, a resolution below one, or an unknown protocol.
        BadMesh: under a protocol of outer surfaces, fewer than one in a thousand points is seen from outside.
    """
    chosen = find_protocol(protocol) if isinstance(protocol, str) else protocol
    _check(points, resolution)
    pair = Pair(prediction, reference, cube=frame, seed=seed, device=device)
    return _score(pair, chosen, points or chosen.points, resolution, full)


def compare_all(
    prediction: Mesh,
    reference: Mesh,
    *,
    resolution: int | None = None,
    points: int | None = None,
    seed: int = 0,
    protocols: Sequence[str | Protocol] = tuple(PROTOCOLS.values()),
    frame: Similarity | None = None,
    device: torch.device | str = "cpu",
    full: bool = True,
) -> dict[str, Numbers]:
    """`compare` under several protocols, which share samples and distances; the same numbers as one by one.

    Args:
        prediction: see `compare`, as all that is not said here.
        reference: see `compare`.
        resolution: see `compare`.
        points: None is each protocol's own number.
        seed: see `compare`.
        protocols: names, or protocols; all if left out.
        frame: see `compare`.
        device: see `compare`.
        full: see `compare`.

    Returns:
        {protocol's name: result of `compare`}.

    Raises:
        BadArgument: as `compare`.
        BadMesh: as `compare`.
    """
    _check(points, resolution)
    chosen = [find_protocol(one) if isinstance(one, str) else one for one in protocols]
    pair = Pair(prediction, reference, cube=frame, seed=seed, device=device)
    pair.measure([(points or one.points, one.outer) for one in chosen])
    return {one.name: _score(pair, one, points or one.points, resolution, full) for one in chosen}


def floor_of(numbers: Numbers) -> Numbers:
    """What a perfect prediction would score.

    Args:
        numbers: a result of `compare`.

    Returns:
        chamfer_l1, chamfer_l2 {half_sum, sum}, f_score {threshold: score}, and iou where it was measured. Exact
        distances and angles have the floor 0, exact F-scores 1.
    """
    sampled, iou = numbers["sampled"], numbers["iou"]
    return {
        "chamfer_l1": sampled["chamfer_l1"]["floor"],
        "chamfer_l2": sampled["chamfer_l2"]["floor"],
        "f_score": {threshold: score["floor"] for threshold, score in sampled["f_score"].items()},
        **({} if iou is None else {"iou": iou["floor"]}),
    }


def sampled_scores(
    on_prediction: Tensor, on_reference: Tensor, on_reference_again: Tensor, thresholds: tuple[float, ...]
) -> Numbers:
    """Chamfer distances and F-scores between point sets (n, 3), and what the reference scores against itself."""
    return _sampled(
        (
            nearest_point(on_prediction, on_reference)[0],
            nearest_point(on_reference, on_prediction)[0],
            nearest_point(on_reference_again, on_reference)[0],
        ),
        thresholds,
    )[0]


def _check(points: int | None, resolution: int | None) -> None:
    for name, value in (("points", points), ("resolution", resolution)):
        if value is not None and value < 1:
            raise BadArgument(f"{name} must be at least 1, got {value}.", where="compare")


def _score(pair: Pair, protocol: Protocol, points: int, resolution: int | None, full: bool) -> Numbers:
    """Everything under one protocol."""
    unit, frame = pair.units(protocol)
    measured = pair.measured(points, protocol.outer)
    voxel = None if resolution is None else unit / resolution
    exact, exact_errors = _exact(measured, unit, voxel, protocol.thresholds)
    near = measured.nearest
    sampled, sampled_errors = _sampled((near[0] * unit, near[1] * unit, near[2] * unit), protocol.thresholds)
    counts, own = (one.scaled(unit) for one in pair.topologies(full))
    iou, iou_error = _iou(pair, protocol, full)
    errors: Numbers = {
        "exact": exact_errors,
        "sampled": sampled_errors,
        "paper": {
            one.name: {"value": at({"sampled": sampled_errors}, one.path) * one.factor} for one in protocol.printed
        },
        "normal_error_degrees": measured.angles[1],
        "normal_error_signed_degrees": measured.signed_angles[1],
        "iou": iou_error,
    }
    return {
        "protocol": protocol.name,
        "digest": protocol.digest,
        "points": points,
        "seed": pair.seed,
        "surface": "all" if protocol.outer is None else "outer",
        "resolution": resolution,
        "voxel": voxel,
        "frame": {"centre": list(frame.centre), "scale": frame.scale},
        "exact": exact,
        "hausdorff": _hausdorff(pair, measured, unit) if full else None,
        "sampled": sampled,
        "paper": {one.name: _as_printed({"sampled": sampled}, one) for one in protocol.printed},
        "normal_error_degrees": measured.angles[0],
        "normal_error_signed_degrees": measured.signed_angles[0],
        "iou": iou,
        "prediction": counts.as_dict(),
        "reference": own.as_dict(),
        "area_ratio": counts.area / own.area,
        "volume_ratio": counts.volume / own.volume if counts.volume is not None and own.volume else None,
        "standard_error": errors,
    }


def _exact(
    measured: Measured, unit: float, voxel: float | None, thresholds: tuple[float, ...]
) -> tuple[Numbers, Numbers]:
    """Exact distances in units of the frame and in voxels, their F-scores, and all standard errors."""
    shares = f_scores(measured.accuracy * unit, measured.completeness * unit, thresholds)
    found = []
    for numbers in measured.distances:
        scaled = map_numbers(numbers, lambda value: value * unit)
        in_voxels = None if voxel is None else map_numbers(scaled, lambda value: value / voxel)
        found.append(
            {
                "accuracy": scaled["accuracy"],
                "accuracy_voxels": None if in_voxels is None else in_voxels["accuracy"],
                "completeness": scaled["completeness"],
                "completeness_voxels": None if in_voxels is None else in_voxels["completeness"],
            }
        )
    found[0]["f_score"], found[1]["f_score"] = shares, f_errors(shares, len(measured.accuracy))
    return found[0], found[1]


def _sampled(distances: tuple[Tensor, Tensor, Tensor], thresholds: tuple[float, ...]) -> tuple[Numbers, Numbers]:
    """Chamfer distances and F-scores of nearest distances (prediction, reference, floor), and standard errors."""
    scores, errors = chamfer_scores(*distances)
    shares, share_errors = sampled_f_scores(*distances, thresholds)
    return {**scores, "f_score": shares}, {**errors, "f_score": share_errors}


def _hausdorff(pair: Pair, measured: Measured, unit: float) -> Numbers:
    """Bounds in units of the frame; the samples' own largest distances are attained, too."""
    sides = {}
    for name, bounds in zip(("accuracy", "completeness"), pair.hausdorff, strict=True):
        lower = max(bounds.lower, measured.distances[0][name]["max"])
        sides[name] = {"lower": lower * unit, "upper": max(bounds.upper, lower) * unit}
    both = {key: max(side[key] for side in sides.values()) for key in ("lower", "upper")}
    return {**both, **sides}


def _iou(pair: Pair, protocol: Protocol, full: bool) -> tuple[Numbers | None, Numbers | None]:
    if not full:
        return None, None
    overlap = pair.overlap(protocol.volume_points)
    return overlap.as_dict(), overlap.standard_error()


def _as_printed(numbers: Numbers, score: Printed) -> Numbers:
    value, floor = (at(numbers, path) * score.factor for path in (score.path, score.floor_path))
    return {"value": value, "floor": floor, "unit": score.unit}
