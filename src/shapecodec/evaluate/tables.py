"""An evaluation as text: a page of markdown for docs/results, and the lines that the command line prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from shapecodec.evaluate.rows import metric_columns

# What stands for a run, as paths below a protocol or with it; the first of each line that the run has is taken.
HEADLINE: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("to input, mean", ("exact.accuracy_voxels.mean", "exact.accuracy.mean")),
    ("to input, p95", ("exact.accuracy_voxels.p95", "exact.accuracy.p95")),
    ("from input, mean", ("exact.completeness_voxels.mean", "exact.completeness.mean")),
    ("from input, p95", ("exact.completeness_voxels.p95", "exact.completeness.p95")),
    ("F(0.005), sampled", ("sampled.f_score.0.005.f",)),
    ("IoU", ("iou.value",)),
    ("LaGeM's Chamfer x 100", ("lagem-v1.paper.chamfer.value",)),
    ("LaGeM's F(0.02), %", ("lagem-v1.paper.f_0.02.value",)),
    ("normal error, degrees", ("normal_error_degrees.mean",)),
    ("area ratio", ("area_ratio",)),
    ("normal maps, NMSE", ("nmse",)),
)


def headline(columns: Sequence[str]) -> list[tuple[str, str]]:
    """(label, column) of the scores that stand for a run, of the first protocol that has them; with the unit of distances."""
    protocols = list(dict.fromkeys(name.split(".")[0] for name in metric_columns(columns)))
    found: list[tuple[str, str]] = []
    for label, paths in HEADLINE:
        names = [*paths, *(f"{protocol}.{path}" for protocol in protocols for path in paths)]
        column = next((name for name in names if name in columns), None)
        if column is not None:
            unit = ", voxels" if "_voxels" in column else ", lengths" if ".exact." in column else ""
            found.append((label + unit, column))
    return found


def cell(value: float | None) -> str:
    """Three digits, or a dash."""
    return "-" if value is None else f"{value:.3g}"


def group_name(group: dict[str, Any]) -> str:
    """How a group is called in tables."""
    return "all" if group["by"] == "all" else f"{group['by']} {group['key']}"


def counted(group: dict[str, Any]) -> str:
    """Shapes done, and how many failed."""
    done = group["shapes"] - group["failed"]
    return f"{done}" + (f" ({group['failed']} failed)" if group["failed"] else "")


def summary_page(means: dict[str, Any], environment: str) -> str:
    """An aggregate as markdown.

    Args:
        means: of `aggregate`.
        environment: the sessions' versions and hardware.
    """
    settings, groups = means["settings"], means["groups"]
    everything = groups[0]
    heads = headline(list(everything["metrics"]))
    lines = [
        f"# {settings['codec']} on {settings['data']}",
        "",
        ", ".join(f"{key} {_text(value)}" for key, value in settings.items() if value not in (None, "")) + ".",
        "",
        f"Prediction first, **oracle in brackets**, floor behind the bar. {_interval(means['interval'])}.",
        "",
        "| over all shapes | n | mean | interval | median | floor | oracle | worst shape |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for label, column in heads:
        score = everything["metrics"][column]
        interval = f"{cell(score['low'])} to {cell(score['high'])}"
        others = (cell(score[key]) for key in ("median", "floor", "oracle"))
        lines.append(_line([label, str(score["n"]), cell(score["mean"]), interval, *others, score["worst"] or "-"]))
    lines += ["", _line(["shapes", "done", *(label for label, _ in heads)]), "|" + "---|" * (2 + len(heads))]
    for group in groups:
        scores = [group["metrics"][column] for _, column in heads]
        texts = [f"{cell(s['mean'])} ({cell(s['oracle'])}) \\| {cell(s['floor'])}" for s in scores]
        lines.append(_line([group_name(group), counted(group), *texts]))
    lines += ["", *_costs(everything), "", "```", environment.strip(), "```", "", *_definitions(means["protocols"])]
    return "\n".join(lines) + "\n"


def _text(value: Any) -> str:
    return " ".join(value) if isinstance(value, dict) else str(value)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _interval(interval: dict[str, Any]) -> str:
    level, kind = round(100 * interval["level"]), interval["kind"]
    return f"Intervals: {level}%, {kind}, {interval['resamples']:,} resamples, seed {interval['seed']}"


def _costs(group: dict[str, Any]) -> list[str]:
    """Sizes and seconds of all shapes."""
    lines = ["| a shape | mean | median |", "|---|---|---|"]
    for name, values in (*group["sizes"].items(), *((f"{key}, s", value) for key, value in group["seconds"].items())):
        if values["n"]:
            lines.append(f"| {name} | {values['mean']:,.4g} | {values['median']:,.4g} |")
    return lines


def _definitions(protocols: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for protocol in protocols:
        words = (f"- {key}: {text}" for key, text in protocol["definitions"].items())
        lines += [f"`{protocol['name']}`, digest {protocol['digest']}", "", *words, ""]
    return lines
