"""From distances to scores: means, quantiles, F-scores, and the standard error of each.

Standard errors are those of the samples alone. Where distances are exact, the samples are independent and the usual
formulas hold. Between two sampled sets they do not: neighbours share their nearest point, and one pair of sets serves
both directions. For two sets of n points of one plane the variances of the sums are 2.0 (Chamfer L1), 2.1 (squared) and
up to 1.8 (F) times what independence gives (4,000 simulated pairs); `PAIRED`, squared, covers them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

Numbers = dict[str, Any]
PAIRED = 1.5


def map_numbers(numbers: Any, change: Callable[[float], float]) -> Any:
    """The same nested dict with every number changed; None stays."""
    if isinstance(numbers, dict):
        return {key: map_numbers(value, change) for key, value in numbers.items()}
    return None if numbers is None else change(numbers)


def at(numbers: Numbers, path: tuple[str, ...]) -> float:
    """The number at a path of keys."""
    for key in path:
        numbers = numbers[key]
    return float(numbers)  # type: ignore[arg-type]


def distance_statistics(distance: Tensor) -> dict[str, float]:
    """mean, p50, p95, p99 and max of distances (Q,), Q >= 1; quantiles interpolate between samples."""
    return _distance_scores(distance)[0]


def _distance_scores(distance: Tensor) -> tuple[Numbers, Numbers]:
    """`distance_statistics`, and the standard errors of all but max."""
    values = distance.cpu().numpy()
    quantiles, errors = _quantiles(values, (0.5, 0.95, 0.99))
    mean, error = _mean(values)
    numbers = {"mean": mean, **quantiles, "max": float(values.max())}
    return numbers, {"mean": error, **errors}


def _mean(values: np.ndarray) -> tuple[float, float]:
    """Mean and its standard error."""
    return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64) / np.sqrt(len(values)))


def _quantiles(values: np.ndarray, shares: tuple[float, ...]) -> tuple[Numbers, Numbers]:
    """Quantiles, and half the distance between those one standard error of the rank below and above."""
    at = np.array(shares)
    spread = np.sqrt(at * (1 - at) / len(values))
    found = np.quantile(values, np.concatenate([at, (at - spread).clip(0, 1), (at + spread).clip(0, 1)]))
    middle, low, high = (found[k * len(at) : (k + 1) * len(at)] for k in range(3))
    keys = [f"p{100 * share:g}" for share in shares]
    numbers = {key: float(value) for key, value in zip(keys, middle, strict=True)}
    return numbers, {key: float(value) for key, value in zip(keys, (high - low) / 2, strict=True)}


def line_angles(first: Tensor, second: Tensor) -> Tensor:
    """(n,) float32 degrees in [0, 90] between lines along unit normals (Q, 3); zero normals are left out."""
    return normal_angles(first, second)[0]


def normal_angles(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """(n,), (n,) float32 degrees between unit normals (Q, 3): of their lines, 0 to 90, and of themselves, 0 to 180.

    Zero normals are left out.
    """
    kept = (first.norm(dim=1) > 0.5) & (second.norm(dim=1) > 0.5)
    if not bool(kept.all()):
        first, second = first[kept], second[kept]
    # the arc cosine alone loses angles below 0.02 degrees in float32
    sine, cosine = torch.linalg.cross(first, second).norm(dim=1), (first * second).sum(1)
    return torch.rad2deg(torch.atan2(sine, cosine.abs())).float(), torch.rad2deg(torch.atan2(sine, cosine)).float()


def angle_statistics(angles: Tensor) -> tuple[Numbers, Numbers]:
    """mean, p50 and p95 of angles (n,) and their standard errors; None where there are no angles."""
    if len(angles) == 0:
        return dict.fromkeys(("mean", "p50", "p95")), dict.fromkeys(("mean", "p50", "p95"))
    values = angles.cpu().numpy()
    quantiles, errors = _quantiles(values, (0.5, 0.95))
    mean = float(angles.double().mean())
    return {"mean": mean, **quantiles}, {"mean": _mean(values)[1], **errors}


def both_ways(accuracy: tuple[Numbers, Numbers], completeness: tuple[Numbers, Numbers]) -> tuple[Numbers, Numbers]:
    """(numbers, standard errors) of angles in both directions, with the mean of their means and its standard error."""
    both = accuracy, completeness
    means = [numbers["mean"] for numbers, _ in both if numbers["mean"] is not None]
    spread = [errors["mean"] for _, errors in both if errors["mean"] is not None]
    mean = float(np.mean(means)) if means else None
    error = float(np.sqrt(np.square(spread).sum())) / len(spread) if spread else None
    return (
        {"accuracy": accuracy[0], "completeness": completeness[0], "mean": mean},
        {"accuracy": accuracy[1], "completeness": completeness[1], "mean": error},
    )


def exact_scores(accuracy: Tensor, completeness: Tensor) -> tuple[Numbers, Numbers]:
    """Distances (Q,) each way -> {accuracy, completeness} and their standard errors."""
    one, two = _distance_scores(accuracy), _distance_scores(completeness)
    return {"accuracy": one[0], "completeness": two[0]}, {"accuracy": one[1], "completeness": two[1]}


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


def share_error(share: float, count: int) -> float:
    """Standard error of a share of `count` samples, as if one more had said yes and one no: never zero."""
    smooth = (share * count + 1) / (count + 2)
    return float(np.sqrt(smooth * (1 - smooth) / count))


def f_errors(scores: dict[str, dict[str, float]], count: int, factor: float = 1.0) -> Numbers:
    """Standard errors of `f_scores` of `count` samples a side, times a factor; that of f to first order."""
    errors: Numbers = {}
    for threshold, score in scores.items():
        precision, recall = score["precision"], score["recall"]
        one, two = factor * share_error(precision, count), factor * share_error(recall, count)
        total = precision + recall
        slopes = (2 * (recall / total) ** 2, 2 * (precision / total) ** 2) if total > 0.0 else (1.0, 1.0)
        f = float(np.hypot(slopes[0] * one, slopes[1] * two))
        errors[threshold] = {"precision": one, "recall": two, "f": f}
    return errors


def chamfer_scores(accuracy: Tensor, completeness: Tensor, floor: Tensor) -> tuple[Numbers, Numbers]:
    """{chamfer_l1, chamfer_l2} of distances (Q,) between point sets, and their standard errors.

    The floor is measured in one direction: both of its sets are independent samples of one surface, so the directions
    have the same expectation.
    """
    scores: Numbers = {}
    errors: Numbers = {}
    for name, power in (("chamfer_l1", 1), ("chamfer_l2", 2)):
        powers = [d.double() ** power for d in (accuracy, completeness, floor)]
        one, two, least = (float(values.mean()) for values in powers)
        scores[name] = _sums(one, two, one + two, least)
        spread = [PAIRED * float(values.std(correction=0)) / len(values) ** 0.5 for values in powers]
        errors[name] = _sums(spread[0], spread[1], float(np.hypot(spread[0], spread[1])), spread[2])
    return scores, errors


def _sums(accuracy: float, completeness: float, total: float, floor: float) -> Numbers:
    return {
        "accuracy": accuracy,
        "completeness": completeness,
        "half_sum": total / 2,
        "sum": total,
        "floor": {"half_sum": floor, "sum": 2 * floor},
    }


def sampled_f_scores(
    accuracy: Tensor, completeness: Tensor, floor: Tensor, thresholds: tuple[float, ...]
) -> tuple[Numbers, Numbers]:
    """`f_scores` between point sets with the floor beside each, and the standard errors."""
    measured, least = f_scores(accuracy, completeness, thresholds), f_scores(floor, floor, thresholds)
    errors, spread = (f_errors(scores, len(accuracy), PAIRED) for scores in (measured, least))
    return (
        {key: {**score, "floor": least[key]["f"]} for key, score in measured.items()},
        # one direction was measured, so its error is that of one share
        {key: {**error, "floor": spread[key]["precision"]} for key, error in errors.items()},
    )
