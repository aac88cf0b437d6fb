"""Means over shapes with confidence intervals: all, by level, by category; floors and oracles beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from shapecodec.evaluate.measure import describe_measure
from shapecodec.evaluate.rows import Row, columns_of, metric_columns
from shapecodec.evaluate.statistics import LEVEL, RESAMPLES, Intervals, bootstrap_means

FAILURES = ("failed", "killed", "timeout")
_SIZES = ("tokens", "bytes", "peak_memory_bytes")


def aggregate(rows: Sequence[Row], settings: dict[str, Any], *, seed: int = 0) -> dict[str, Any]:
    """JSON-ready means of every score over the shapes with status "ok", and how many shapes there are not.

    Args:
        rows: of `rows.read_rows`.
        settings: of the run, copied into the result.
        seed: of the bootstrap samples.

    Returns:
        settings; protocols, in full; interval {kind, level, resamples, seed}; groups: one a (by, key): ("all", ""), ("level", L)
        and ("category", C) for each L and C, with shapes (asked for), failed, status {status: count} and, over the `ok` shapes,
        metrics {column: {n, mean, low, high, median, worst, floor, oracle, oracle_low, oracle_high}}, where floor and oracle are
        means, and worst names the shape that is farthest from its floor; sizes and seconds {column: {n, mean, low, high, median}}.
        Seconds leave out each process's first shape, which compiles kernels, where there are others. None is what is not known;
        numbers have six digits.
    """
    names = columns_of(rows)
    groups = [_group("all", "", list(rows), names, seed)]
    for by in ("level", "category"):
        keys = sorted({row.get(by) or "" for row in rows} - {""})
        groups += [_group(by, key, [row for row in rows if row.get(by) == key], names, seed) for key in keys]
    return {
        "settings": settings,
        "protocols": [describe_measure(name) for name in settings["protocols"]],
        "interval": {"kind": "BCa bootstrap of the mean", "level": LEVEL, "resamples": RESAMPLES, "seed": seed},
        "groups": groups,
    }


def _group(by: str, key: str, rows: list[Row], names: list[str], seed: int) -> dict[str, Any]:
    done = [row for row in rows if row["status"] == "ok"]
    metrics = metric_columns(names)
    kinds = ("", "floor.", "oracle.")
    table = {kind: numbers(done, [kind + name for name in metrics]) for kind in kinds}
    means, oracles = (bootstrap_means(table[kind], seed=seed) for kind in ("", "oracle."))
    scores: dict[str, Any] = {}
    for c, name in enumerate(metrics):
        least, truth = table["floor."][:, c], _summary(oracles, table["oracle."], c)
        scores[name] = {
            **_summary(means, table[""], c),
            "worst": _worst(done, table[""][:, c], least),
            "floor": _mean(least),
            "oracle": truth["mean"],
            "oracle_low": truth["low"],
            "oracle_high": truth["high"],
        }
    seconds = [name for name in names if name.startswith("seconds.")]
    warm = [row for row in done if row.get("warm")] or done
    return {
        "by": by,
        "key": key,
        "shapes": len(rows),
        "failed": len(rows) - len(done),
        "status": {status: sum(row["status"] == status for row in rows) for status in ("ok", *FAILURES)},
        "metrics": scores,
        "sizes": _plain(done, list(_SIZES), seed),
        "seconds": _plain(warm, seconds, seed),
    }


def numbers(rows: Sequence[Row], names: Sequence[str]) -> np.ndarray:
    """(rows, names) float64, NaN where a row has no value."""
    values = [[np.nan if row.get(name) is None else float(row[name]) for name in names] for row in rows]
    return np.array(values, np.float64).reshape(len(rows), len(names))


def _plain(rows: list[Row], names: list[str], seed: int) -> dict[str, Any]:
    table = numbers(rows, names)
    means = bootstrap_means(table, seed=seed)
    return {name.removeprefix("seconds."): _summary(means, table, c) for c, name in enumerate(names)}


def _summary(means: Intervals, table: np.ndarray, c: int) -> dict[str, Any]:
    """One column; None where there is nothing to tell."""
    known = table[np.isfinite(table[:, c]), c]
    values = {"mean": means.mean[c], "low": means.low[c], "high": means.high[c]}
    return {
        "n": len(known),
        **{key: _rounded(value) for key, value in values.items()},
        "median": _rounded(np.median(known)) if len(known) else None,
    }


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return _rounded(known.mean()) if len(known) else None


def _rounded(value: float) -> float | None:
    """Six digits, which halve the file: no interval is known to more than two."""
    return float(f"{value:.6g}") if np.isfinite(value) else None


def _worst(rows: list[Row], values: np.ndarray, floors: np.ndarray) -> str | None:
    distance = np.abs(values - floors)
    return str(rows[int(np.nanargmax(distance))]["name"]) if np.isfinite(distance).any() else None
