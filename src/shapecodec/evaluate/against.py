"""Two runs, shape by shape: paired differences, their interval, a rank test and how often either won."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shapecodec.errors import BadArgument
from shapecodec.evaluate.aggregate import numbers
from shapecodec.evaluate.rows import Row, columns_of, metric_columns
from shapecodec.evaluate.statistics import bootstrap_means, signed_rank

_SAME = ("protocols", "points", "seed")  # what two runs must share, for their numbers to mean the same
_COUNTS = ".prediction."  # the topology of the reconstruction: numbers of which none is better than another


def compare_runs(
    rows: Sequence[Row], settings: dict[str, Any], other: Sequence[Row], others: dict[str, Any], *, seed: int = 0
) -> dict[str, Any]:
    """What differs between two runs over the shapes that both of them have done.

    Args:
        rows, settings: of this run, from `rows.read_rows`.
        other, others: of the run that it is compared with.
        seed: of the bootstrap samples.

    Returns:
        JSON-ready: this, other {codec, codec_hash, resolution, surface, bits}; shapes {both, only_this, only_other,
        failed_this, failed_other}; left_out (why some columns are missing, or None); columns {score: {n, this, other, difference,
        low, high, p, exact, wins, losses, ties}}. difference is the mean of this - other, low and high its BCa interval,
        p the two-sided signed-rank test's, for this column alone. A shape is won by the run whose score lies nearer to its floor;
        wins, losses and ties are None for counts, for which there is no better.

    Raises:
        BadArgument: other protocols (their versions are part of their names), points or seeds, shapes of one name whose files
            differ, or no shape that both runs have done.
    """
    differing = [
        f"{key}: {settings.get(key)} and {others.get(key)}" for key in _SAME if settings.get(key) != others.get(key)
    ]
    if differing:
        raise BadArgument(
            f"the runs were measured differently ({'; '.join(differing)}).",
            where="--against",
            hint="evaluate one of them again.",
        )
    pairs, shapes = _pairs(rows, other)
    names = metric_columns(columns_of([row for pair in pairs for row in pair]))
    same_grid = settings.get("resolution") == others.get("resolution")
    kept = [name for name in names if same_grid or "_voxels." not in name]
    reason = None if same_grid else "the runs' voxels differ, so distances in voxels are not compared."
    ours, theirs = (numbers([pair[side] for pair in pairs], kept) for side in (0, 1))
    floors = numbers([pair[0] for pair in pairs], [f"floor.{name}" for name in kept])
    means = bootstrap_means(ours - theirs, seed=seed)
    about = ("codec", "codec_hash", "resolution", "surface", "bits")
    return {
        "this": {key: settings.get(key) for key in about},
        "other": {key: others.get(key) for key in about},
        "shapes": shapes,
        "left_out": reason,
        "columns": {
            name: _column(name, ours[:, c], theirs[:, c], floors[:, c], (means.low[c], means.high[c]))
            for c, name in enumerate(kept)
            if np.isfinite(ours[:, c] - theirs[:, c]).any()
        },
    }


def _pairs(rows: Sequence[Row], other: Sequence[Row]) -> tuple[list[tuple[Row, Row]], dict[str, int]]:
    """The rows of the shapes that both runs have done, and counts of the others."""
    ours, theirs = ({row["name"]: row for row in side} for side in (rows, other))
    common = [name for name in ours if name in theirs]
    pairs = [(ours[name], theirs[name]) for name in common if ours[name]["status"] == theirs[name]["status"] == "ok"]
    changed = [one["name"] for one, two in pairs if one["file_hash"] != two["file_hash"]]
    if changed:
        raise BadArgument(
            f"{len(changed)} shapes have the same name and other files, the first is '{changed[0]}'.",
            where="--against",
            hint="compare runs over the same data.",
        )
    if not pairs:
        raise BadArgument("no shape was done by both runs.", where="--against", hint="compare runs over the same data.")
    return pairs, {
        "both": len(pairs),
        "only_this": len(ours) - len(common),
        "only_other": len(theirs) - len(common),
        "failed_this": sum(ours[name]["status"] != "ok" for name in common),
        "failed_other": sum(theirs[name]["status"] != "ok" for name in common),
    }


def _column(
    name: str, ours: np.ndarray, theirs: np.ndarray, floors: np.ndarray, interval: tuple[float, float]
) -> dict[str, Any]:
    known = np.isfinite(ours - theirs)
    ours, theirs, floors = ours[known], theirs[known], floors[known]
    test = signed_rank(ours - theirs)
    wins = losses = ties = None
    if np.isfinite(floors).all() and _COUNTS not in name:
        nearer = np.abs(theirs - floors) - np.abs(ours - floors)
        wins, losses, ties = (int(np.count_nonzero(side)) for side in (nearer > 0, nearer < 0, nearer == 0))
    return {
        "n": len(ours),
        "this": float(ours.mean()),
        "other": float(theirs.mean()),
        "difference": float((ours - theirs).mean()),
        "low": float(interval[0]) if np.isfinite(interval[0]) else None,
        "high": float(interval[1]) if np.isfinite(interval[1]) else None,
        "p": test.p,
        "exact": test.exact,
        "wins": wins,
        "losses": losses,
        "ties": ties,
    }
