"""How far two meshes are apart: exact distances both ways, sampled scores beside their floor, normals, topology.

The numbers' definitions stand in `protocol.py` and travel with every printed report (`compare.format_comparison`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.evaluate.protocol import EXACT, Protocol, find_protocol
from shapecodec.evaluate.topology import topology
from shapecodec.mesh import Mesh, Similarity
from shapecodec.ops.closest_point import closest_point
from shapecodec.ops.nearest_point import nearest_point
from shapecodec.rng import rng

Numbers = dict[str, Any]


def compare(
    prediction: Mesh,
    reference: Mesh,
    *,
    resolution: int | None = None,
    points: int = 1_000_000,
    seed: int = 0,
    protocol: str | Protocol = EXACT,
    frame: Similarity | None = None,
    device: torch.device | str = "cpu",
) -> Numbers:
    """Measure a reconstruction against the mesh that it should be.

    Both meshes, wherever they are, are moved to `device` first, where samples are drawn and distances found. Deterministic
    in (seed, points) on one kind of device, whatever the number of threads. Memory: about 300 bytes a face and 200 bytes a point.

    Args:
        prediction: in the reference's own scale and position.
        reference: what was given to the codec.
        resolution: voxels an axis of the codec's grid; adds every distance in voxels.
        points: samples on each mesh.
        seed: of the samples.
        protocol: see `evaluate.protocol`.
        frame: the similarity from the reference to the unit frame where that is known, such as `Similarity()` for
            meshes that already lie in the codec's cube; None normalises the reference by the protocol's margin.
        device: the CPU, or a CUDA device with Triton (without it the queries would be brute force).

    Returns:
        JSON-ready numbers:
        protocol, points, seed, resolution, voxel (its length, or None), frame {centre, scale};
        exact {accuracy, completeness} each {mean, p50, p95, p99, max} and the same in `..._voxels` (None without a
        resolution), f_score {threshold: {precision, recall, f}};
        sampled {chamfer_l1, chamfer_l2} each {accuracy, completeness, half_sum, sum, floor {half_sum, sum}},
        f_score {threshold: {precision, recall, f, floor}};
        normal_error_degrees {accuracy, completeness} each {mean, p50, p95}, and mean, the mean of both;
        prediction, reference: `Topology` in the frame's units; area_ratio; volume_ratio (None unless both are closed).

    Raises:
        BadArgument: fewer than one point, a resolution below one, or an unknown protocol.
    """
    protocol = find_protocol(protocol) if isinstance(protocol, str) else protocol
    if points < 1:
        raise BadArgument(f"points must be at least 1, got {points}.", where="compare")
    if resolution is not None and resolution < 1:
        raise BadArgument(f"resolution must be at least 1, got {resolution}.", where="compare")
    prediction, reference = prediction.to(device), reference.to(device)
    frame = reference.normalise(protocol.margin)[1] if frame is None else frame
    prediction, reference = prediction.transformed(frame), reference.transformed(frame)
    on_prediction = prediction.sample(points, rng(seed, purpose="samples of the prediction", device=device))
    on_reference = reference.sample(points, rng(seed, purpose="samples of the reference", device=device))
    voxel = None if resolution is None else protocol.voxel(resolution)
    exact, normals = _exact(prediction, reference, on_prediction, on_reference, voxel, protocol)
    again = reference.sample(points, rng(seed, purpose="the reference sampled again", device=device))[0]
    counts, own = topology(prediction), topology(reference)
    ratio = counts.volume / own.volume if counts.volume is not None and own.volume else None
    return {
        "protocol": protocol.name,
        "points": points,
        "seed": seed,
        "resolution": resolution,
        "voxel": voxel,
        "frame": {"centre": list(frame.centre), "scale": frame.scale},
        "exact": exact,
        "sampled": sampled_scores(on_prediction[0], on_reference[0], again, protocol.thresholds),
        "normal_error_degrees": normals,
        "prediction": counts.as_dict(),
        "reference": own.as_dict(),
        "area_ratio": counts.area / own.area,
        "volume_ratio": ratio,
    }


def _exact(
    prediction: Mesh,
    reference: Mesh,
    on_prediction: tuple[Tensor, Tensor],
    on_reference: tuple[Tensor, Tensor],
    voxel: float | None,
    protocol: Protocol,
) -> tuple[Numbers, Numbers]:
    """Exact distances and normal errors in both directions."""
    exact: Numbers = {}
    normals: Numbers = {}
    distances = {}
    directions = (
        ("accuracy", prediction, reference, on_prediction),
        ("completeness", reference, prediction, on_reference),
    )
    for name, source, target, (samples, faces) in directions:
        found = closest_point(samples, target.vertices, target.faces)
        distances[name] = found.distance
        exact[name] = distance_statistics(found.distance)
        exact[f"{name}_voxels"] = None if voxel is None else {k: v / voxel for k, v in exact[name].items()}
        normals[name] = _angle_statistics(line_angles(source.face_normals()[faces], target.face_normals()[found.face]))
    exact["f_score"] = f_scores(distances["accuracy"], distances["completeness"], protocol.thresholds)
    means = [normals[name]["mean"] for name in ("accuracy", "completeness") if normals[name]["mean"] is not None]
    normals["mean"] = float(np.mean(means)) if means else None
    return exact, normals


def distance_statistics(distance: Tensor) -> dict[str, float]:
    """mean, p50, p95, p99 and max of distances (Q,), Q >= 1; quantiles interpolate between samples."""
    values = distance.cpu().numpy()
    p50, p95, p99 = (float(value) for value in np.quantile(values, (0.5, 0.95, 0.99)))
    return {
        "mean": float(values.mean(dtype=np.float64)),
        "p50": p50,
        "p95": p95,
        "p99": p99,
        "max": float(values.max()),
    }


def line_angles(first: Tensor, second: Tensor) -> Tensor:
    """(n,) float32 degrees in [0, 90] between lines along unit normals (Q, 3); zero normals are left out."""
    kept = (first.norm(dim=1) > 0.5) & (second.norm(dim=1) > 0.5)
    first, second = first[kept], second[kept]
    # the arc cosine alone loses angles below 0.02 degrees in float32
    sine, cosine = torch.linalg.cross(first, second).norm(dim=1), (first * second).sum(1).abs()
    return torch.rad2deg(torch.atan2(sine, cosine)).float()


def _angle_statistics(angles: Tensor) -> dict[str, float | None]:
    if len(angles) == 0:
        return {"mean": None, "p50": None, "p95": None}
    p50, p95 = (float(value) for value in np.quantile(angles.cpu().numpy(), (0.5, 0.95)))
    return {"mean": float(angles.double().mean()), "p50": p50, "p95": p95}


def f_scores(accuracy: Tensor, completeness: Tensor, thresholds: tuple[float, ...]) -> dict[str, dict[str, float]]:
    """{threshold: {precision, recall, f}} of distances from each side; f is 0 where both shares are."""
    scores = {}
    for threshold in thresholds:
        precision = int(torch.count_nonzero(accuracy < threshold)) / len(accuracy)
        recall = int(torch.count_nonzero(completeness < threshold)) / len(completeness)
        total = precision + recall
        score = 2.0 * precision * recall / total if total > 0.0 else 0.0
        scores[f"{threshold:g}"] = {"precision": precision, "recall": recall, "f": score}
    return scores


def sampled_scores(
    on_prediction: Tensor, on_reference: Tensor, on_reference_again: Tensor, thresholds: tuple[float, ...]
) -> Numbers:
    """Chamfer distances and F-scores between point sets (n, 3), and what the reference scores against itself.

    The floor is measured in one direction: both of its sets are independent samples of one surface, so the directions
    have the same expectation.
    """
    accuracy = nearest_point(on_prediction, on_reference)[0]
    completeness = nearest_point(on_reference, on_prediction)[0]
    floor = nearest_point(on_reference_again, on_reference)[0]
    scores: Numbers = {}
    for name, power in (("chamfer_l1", 1), ("chamfer_l2", 2)):
        one, two, least = (float((d.double() ** power).mean()) for d in (accuracy, completeness, floor))
        scores[name] = {
            "accuracy": one,
            "completeness": two,
            "half_sum": (one + two) / 2,
            "sum": one + two,
            "floor": {"half_sum": least, "sum": 2 * least},
        }
    shares = f_scores(floor, floor, thresholds)
    measured = f_scores(accuracy, completeness, thresholds)
    scores["f_score"] = {key: {**score, "floor": shares[key]["f"]} for key, score in measured.items()}
    return scores
