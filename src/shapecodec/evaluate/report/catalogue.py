"""What a column of the rows means: its label, its unit, and which direction is the good one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

Better = Literal["low", "high", "one", ""]
FLOOR, ORACLE = "floor.", "oracle."

_COLUMN = re.compile(r"(?P<protocol>[a-z][a-z0-9]*(?:-[a-z0-9]+)*-v\d+)\.(?P<path>.+)", re.IGNORECASE)
_PIECE = re.compile(r"\d+\.\d+(?:e-?\d+)?|[^.]+")
_KINDS = ("exact", "sampled")  # how distances were found; says nothing about what they are
_SILENT = re.compile(r"standard_error\..*|iou\.(points|inside_.*)")  # numbers about numbers: they stay in the rows

# a piece of a path -> label, unit, good direction
_STEMS: dict[str, tuple[str, str, Better]] = {
    "accuracy_voxels": ("Reconstruction to input", "voxels", "low"),
    "completeness_voxels": ("Input to reconstruction", "voxels", "low"),
    "accuracy": ("Reconstruction to input", "lengths", "low"),
    "completeness": ("Input to reconstruction", "lengths", "low"),
    "hausdorff": ("Hausdorff distance", "lengths", "low"),
    "chamfer_l1": ("Chamfer distance", "lengths", "low"),
    "chamfer_l2": ("Squared Chamfer distance", "lengths²", "low"),
    "f_score": ("F-score", "", "high"),
    "normal_error_degrees": ("Normal error", "degrees", "low"),
    "normal_error_signed_degrees": ("Normal error with sign", "degrees", "low"),
    "nmse": ("Normal map error", "", "low"),
    "sne": ("Normal map error at edges", "", "low"),
    "nmse_unsigned": ("Normal map error, unsigned", "", "low"),
    "sne_unsigned": ("Normal map error at edges, unsigned", "", "low"),
    "overlap": ("Overlap of the outlines", "", "high"),
    "iou": ("Volume IoU", "", "high"),
    "area_ratio": ("Area ratio", "", "one"),
    "volume_ratio": ("Volume ratio", "", "one"),
    "watertight": ("Watertight", "share", "high"),
    "nonmanifold_edges": ("Non-manifold edges", "", "low"),
    "self_intersections": ("Self-intersections", "", "low"),
}
_PARTS = {"p50": "median", "max": "maximum", "f": "", "value": ""}

# The metrics that stand for a run: the first path of each line that a protocol has. Exact distances come first because they have
# no sampling floor.
_HEADLINE: tuple[tuple[str, ...], ...] = (
    ("exact.accuracy_voxels.mean", "accuracy_voxels.mean", "exact.accuracy.mean", "accuracy.mean"),
    ("exact.completeness_voxels.mean", "completeness_voxels.mean", "exact.completeness.mean", "completeness.mean"),
    ("exact.accuracy_voxels.p95", "accuracy_voxels.p95", "exact.accuracy.p95", "accuracy.p95"),
    ("exact.completeness_voxels.p95", "completeness_voxels.p95", "exact.completeness.p95", "completeness.p95"),
    ("exact.f_score.0.001.f", "sampled.f_score.0.001.f", "f_score.0.001", "f_score.0.001.f"),
    ("normal_error_degrees.mean",),
    ("sampled.chamfer_l1.half_sum", "chamfer_l1.half_sum"),
    ("iou.value", "iou"),
    ("nmse",),
    ("sne",),
)
_KEY = re.compile(
    r"((exact\.)?(accuracy|completeness)_voxels\.(mean|p95|p99|max))|((exact|sampled)\.)?f_score\.[\d.]+(\.f)?"
    r"|(sampled\.)?chamfer_l[12]\.(half_sum|sum)|normal_error_degrees\.mean|(nmse|sne|iou)(\.(mean|value))?|overlap"
    r"|(area|volume)_ratio|prediction\.watertight|hausdorff\.(lower|upper)"
)


@dataclass(frozen=True)
class Metric:
    """A metric column.

    Args:
        column: its name in the rows.
        protocol: what was measured by.
        path: the column without its protocol.
        label: for people.
        unit: "voxels", "lengths" (of the protocol's frame), "degrees" or empty.
        better: the good direction: "low", "high", "one" (a ratio), or empty where there is none.
    """

    column: str
    protocol: str
    path: str
    label: str
    unit: str
    better: Better

    def badness(self, value: float | None) -> float | None:
        """A number that grows as the value gets worse; None where there is no value or no bad direction."""
        if value is None or not self.better:
            return None
        if self.better == "one":
            return max(value, 1.0 / value) if value > 0 else float("inf")
        return value if self.better == "low" else -value


def describe(column: str) -> Metric | None:
    """The metric of a column, or None where it is no metric (a floor, an oracle, seconds, a name)."""
    match = _COLUMN.fullmatch(column)
    if match is None or column.startswith((FLOOR, ORACLE)) or _SILENT.fullmatch(match["path"]):
        return None
    pieces = _PIECE.findall(re.sub(r"\bf_(?=\d)", "f_score.", match["path"]))  # f_0.005 of a paper
    kind = pieces.pop(0) if pieces[0] in _KINDS and len(pieces) > 1 else ""
    if pieces[0] in ("paper", "prediction", "both") and len(pieces) > 1:
        kind = pieces.pop(0)
    stem, *rest = pieces
    if kind == "paper" and stem == "chamfer":
        label, unit, better = "Chamfer distance", "", _STEMS["chamfer_l1"][2]
    else:
        label, unit, better = _STEMS.get(stem, (_words(stem).capitalize(), "", ""))
    label += "".join(map(_suffix, rest))
    for part in ("precision", "recall"):
        if part in rest:
            label = label.replace("F-score", part.capitalize()).removesuffix(f", {part}")
    if kind == "paper":
        label += ", as in the paper"
    elif kind == "both":
        label += ", where both are seen"
    elif kind and stem == "f_score":
        label += f", {kind}"
    return Metric(column, match["protocol"], match["path"], label, "" if kind == "paper" else unit, better)


def _suffix(part: str) -> str:
    """A further piece of a path, behind the label."""
    if re.fullmatch(r"\d.*", part):
        return f" at {part}"
    word = _STEMS[part][0].lower() if part in ("accuracy", "completeness") else _PARTS.get(part, _words(part))
    return f", {word}" if word else ""


def _words(piece: str) -> str:
    return piece.replace("_", " ")


def find_metrics(columns: Iterable[str]) -> list[Metric]:
    """The metrics of the columns, in their order, one protocol after the other, the exact one first."""
    found = [metric for metric in map(describe, columns) if metric is not None]
    protocols = sorted(
        dict.fromkeys(metric.protocol for metric in found), key=lambda name: not name.startswith("exact")
    )
    return [metric for protocol in protocols for metric in found if metric.protocol == protocol]


def key_metrics(metrics: Sequence[Metric]) -> list[Metric]:
    """Those that a first table shows: of a paper's protocol what the paper prints, of others what `_KEY` names."""
    papers = {metric.protocol for metric in metrics if metric.path.startswith("paper.")}
    found = [
        metric
        for metric in metrics
        if (metric.path.startswith("paper.") if metric.protocol in papers else _KEY.fullmatch(metric.path))
    ]
    return found or list(metrics)


def headline_metrics(metrics: Sequence[Metric], most: int = 7) -> list[Metric]:
    """Those that stand for the run, at most `most`, with a good direction each."""
    able = [metric for metric in metrics if metric.better]
    chosen: list[Metric] = []
    for paths in _HEADLINE:
        hits = [metric for path in paths for metric in able if metric.path == path]
        chosen += hits[:1]
    return (chosen or key_metrics(able))[:most]
