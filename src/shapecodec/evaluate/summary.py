"""Averages of a benchmark's rows, over all meshes and by detail level, as JSON and as a markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]

# column of the table -> where the number stands within a result of `compare`
COLUMNS: dict[str, tuple[str, ...]] = {
    "accuracy_mean_voxels": ("exact", "accuracy_voxels", "mean"),
    "accuracy_p99_voxels": ("exact", "accuracy_voxels", "p99"),
    "completeness_mean_voxels": ("exact", "completeness_voxels", "mean"),
    "completeness_p99_voxels": ("exact", "completeness_voxels", "p99"),
    "f_0.001_exact": ("exact", "f_score", "0.001", "f"),
    "f_0.001": ("sampled", "f_score", "0.001", "f"),
    "f_0.001_floor": ("sampled", "f_score", "0.001", "floor"),
    "f_0.005": ("sampled", "f_score", "0.005", "f"),
    "f_0.005_floor": ("sampled", "f_score", "0.005", "floor"),
    "chamfer_l1": ("sampled", "chamfer_l1", "half_sum"),
    "chamfer_l1_floor": ("sampled", "chamfer_l1", "floor", "half_sum"),
    "normal_error_degrees": ("normal_error_degrees", "mean"),
    "area_ratio": ("area_ratio",),
    "watertight": ("prediction", "watertight"),
}


def summarise(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """One entry a (resolution, surface, level), level "all" first: means over the rows without an error.

    Each entry: resolution, surface, level, meshes, failed, tokens, bytes, seconds {stage: mean}, and for `prediction`
    and `oracle` the mean of every column of `COLUMNS` (None where no row has it).
    """
    groups: dict[tuple[int, str, str], list[Row]] = {}
    failed: dict[tuple[int, str, str], int] = {}
    surfaces = sorted({row["surface"] for row in rows if row["surface"] is not None})
    for row in rows:
        if row.get("error"):
            for surface in surfaces if row["surface"] is None else [row["surface"]]:
                for level in ("all", row["level"]):
                    failed[row["resolution"], surface, level] = failed.get((row["resolution"], surface, level), 0) + 1
            continue
        for level in dict.fromkeys(("all", row["level"])):
            groups.setdefault((row["resolution"], row["surface"], level), []).append(row)
    order = sorted({*groups, *failed}, key=lambda key: (key[0], key[1], key[2] != "all", key[2]))
    return [_means(key, groups.get(key, []), failed.get(key, 0)) for key in order if key[2]]


def _means(key: tuple[int, str, str], rows: list[Row], failed: int) -> dict[str, Any]:
    stages = dict.fromkeys(stage for row in rows for stage in row["seconds"])
    return {
        "resolution": key[0],
        "surface": key[1],
        "level": key[2],
        "meshes": len(rows),
        "failed": failed,
        "tokens": _mean([row["tokens"] for row in rows]),
        "bytes": _mean([row["bytes"] for row in rows]),
        "seconds": {stage: _mean([row["seconds"].get(stage) for row in rows]) for stage in stages},
        **{
            side: {name: _mean([_at(row.get(side), path) for row in rows]) for name, path in COLUMNS.items()}
            for side in ("prediction", "oracle")
        },
    }


def _at(numbers: Any, path: tuple[str, ...]) -> float | None:
    for key in path:
        if numbers is None:
            return None
        numbers = numbers.get(key)
    return None if numbers is None else float(numbers)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def markdown_table(summary: Sequence[dict[str, Any]], columns: Sequence[str] = tuple(COLUMNS)) -> str:
    """The summary as a markdown table; a cell is `prediction (oracle)`."""
    head = ["resolution", "surface", "level", "meshes", *columns]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for entry in summary:
        meshes = f"{entry['meshes']}" + (f" ({entry['failed']} failed)" if entry["failed"] else "")
        cells = [str(entry["resolution"]), entry["surface"], entry["level"], meshes]
        cells += [_cell(entry["prediction"][name], entry["oracle"][name]) for name in columns]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(prediction: float | None, oracle: float | None) -> str:
    texts = ["-" if value is None else f"{value:.3g}" for value in (prediction, oracle)]
    return texts[0] if oracle is None else f"{texts[0]} ({texts[1]})"
