"""A run folder in memory: rows, settings, protocols and the groups' averages."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shapecodec.errors import BadFile
from shapecodec.evaluate.report.catalogue import FLOOR, ORACLE, Metric, find_metrics

Row = dict[str, Any]


@dataclass(frozen=True)
class Score:
    """One metric of one group: the mean, the ends of its confidence interval, and the means of floor and oracle.

    `count` is how many shapes have the metric; None where that is not known or not asked.
    """

    mean: float | None
    low: float | None = None
    high: float | None = None
    floor: float | None = None
    oracle: float | None = None
    count: int | None = None


@dataclass(frozen=True)
class Group:
    """Averages over some shapes.

    Args:
        by: "all", "level" or "category".
        key: which one.
        shapes: how many were asked for, failures counted.
        failed: how many of them failed.
        metrics: column -> score.
    """

    by: str
    key: str
    shapes: int
    failed: int
    metrics: dict[str, Score]


@dataclass(frozen=True)
class Run:
    """What a report is made of.

    Args:
        folder: of the run.
        rows: one a shape, as stored.
        settings: of the evaluation, as stored.
        protocols: each with its `name`, `definitions` and the numbers that decide its scores, as `measure.describe_measure` gives.
        groups: averages.
        metrics: the metric columns that a row has a number in.
        level: of the confidence intervals.
    """

    folder: Path
    rows: list[Row]
    settings: dict[str, Any]
    protocols: list[dict[str, Any]]
    groups: list[Group]
    metrics: list[Metric] = field(default_factory=list)
    level: float = 0.95

    @property
    def confidence(self) -> str:
        """What the intervals are called."""
        return f"{100 * self.level:g}% CI"

    @property
    def measured(self) -> list[Row]:
        """The rows of shapes that did not fail."""
        return [row for row in self.rows if row.get("status") == "ok"]

    @property
    def failed(self) -> list[Row]:
        """The rows of shapes that did, or whose process was killed or ran out of time."""
        return [row for row in self.rows if row.get("status") != "ok"]

    def select(self, by: str) -> list[Group]:
        """The groups of one kind."""
        return [group for group in self.groups if group.by == by]


def number(row: Row, column: str) -> float | None:
    """A finite number of a row, or None."""
    value = row.get(column)
    if isinstance(value, bool | int | float) and math.isfinite(value):
        return float(value)
    return None


def score_of(row: Row, metric: Metric) -> Score:
    """A shape's own value, floor and oracle."""
    column = metric.column
    return Score(number(row, column), floor=number(row, FLOOR + column), oracle=number(row, ORACLE + column))


def read_run(folder: Path) -> Run:
    """Read rows.parquet and aggregate.json of a run folder.

    Raises:
        BadFile: one of them is missing, or not what its name says.
    """
    rows = _read_rows(folder / "rows.parquet")
    path = folder / "aggregate.json"
    try:
        aggregate = json.loads(path.read_text(encoding="utf-8"))
        groups = [_group(entry) for entry in aggregate["groups"]]
        protocols = [dict(entry) for entry in aggregate["protocols"]]
        settings = dict(aggregate["settings"])
        if not all(isinstance(protocol.get("name"), str) for protocol in protocols):
            raise ValueError("a protocol without a name")
        units = _paper_units(protocols)
        level = float(aggregate.get("interval", {}).get("level", 0.95))
    except OSError as error:
        raise BadFile(f"cannot be read ({error.strerror}).", where=str(path), hint="finish the evaluation.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadFile(f"is not a run's aggregate ({type(error).__name__}: {error}).", where=str(path)) from error
    columns = list(dict.fromkeys(column for row in rows for column in row))
    present = [column for column in columns if any(number(row, column) is not None for row in rows)]
    metrics = [replace(metric, unit=units.get(metric.column, metric.unit)) for metric in find_metrics(present)]
    return Run(folder, rows, settings, protocols, groups, metrics, level)


def _paper_units(protocols: list[dict[str, Any]]) -> dict[str, str]:
    """Column -> unit of what a paper prints, such as "sum of mean distances, times 100"."""
    units = {}
    for protocol in protocols:
        for printed in protocol.get("printed", ()):
            unit = str(printed["unit"])
            column = f"{protocol['name']}.paper.{printed['name']}.value"
            units[column] = unit.partition(", ")[2] if unit.startswith("F-score") else unit  # the label says the rest
    return units


def _read_rows(path: Path) -> list[Row]:
    import pyarrow.parquet as parquet

    try:
        rows: list[Row] = parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:  # Arrow's own errors are of these kinds
        raise BadFile(f"cannot be read ({error}).", where=str(path), hint="finish the evaluation.") from error
    if not rows or not all(isinstance(row.get(key), str) for row in rows for key in ("name", "status")):
        raise BadFile("holds no rows with a name and a status.", where=str(path))
    return rows


def _group(entry: dict[str, Any]) -> Group:
    metrics = {}
    for column, score in entry["metrics"].items():
        mean, low, high, floor, oracle = (_finite(score.get(key)) for key in ("mean", "low", "high", "floor", "oracle"))
        metrics[column] = Score(mean, low, high, floor, oracle, score.get("n"))
    return Group(str(entry["by"]), str(entry["key"]), int(entry["shapes"]), int(entry["failed"]), metrics)


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, bool | int | float) and math.isfinite(value) else None
