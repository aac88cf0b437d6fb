"""Comparisons as a page of text: every number with its unit, its floor and its standard error; definitions once."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from shapecodec.evaluate.normal_maps import NORMAL_PROTOCOLS
from shapecodec.evaluate.protocol import EXACT, PROTOCOLS, find_protocol

WIDTH = 110
SIDES = ("accuracy", "completeness")
COUNTS = (
    "faces",
    "vertices",
    "components",
    "boundary_edges",
    "non_manifold_edges",
    "self_intersections",
    "intersecting_faces",
    "watertight",
    "area",
    "volume",
)


def format_comparison(result: dict[str, Any], *, definitions: bool = True) -> str:
    """The result of `metrics.compare` as text, with the protocol's definitions below the numbers."""
    return format_comparisons({result["protocol"]: result}, definitions=definitions)


def format_comparisons(results: Mapping[str, dict[str, Any]], *, definitions: bool = True) -> str:
    """The results of `metrics.compare_all` and of `normal_maps.normal_map_scores` as text.

    The first protocol of distances, or exact-v1 where it is among them, is shown in full; of the others what their
    papers print.
    """
    distances = {name: result for name, result in results.items() if name in PROTOCOLS}
    blocks: list[list[str]] = []
    if distances:
        main = distances.get(EXACT.name) or next(iter(distances.values()))
        tables = (_exact_table, _sampled_table, _normal_table, _volume_lines, _topology_table)
        blocks += [[_heading(main)], *(table(main) for table in tables), _paper_tables(distances)]
    blocks += [_normal_map_table(result) for name, result in results.items() if name in NORMAL_PROTOCOLS]
    if definitions:
        words = {name: protocol.definitions for name, protocol in PROTOCOLS.items()}
        words |= {name: protocol.definitions for name, protocol in NORMAL_PROTOCOLS.items()}
        blocks.append(_definitions({name: words[name] for name in results}))
    return "\n".join("\n".join([*block, ""]) for block in blocks if block).rstrip("\n")


def _heading(result: dict[str, Any]) -> str:
    which = "" if result["surface"] == "all" else ", outer surface"
    frame = find_protocol(result["protocol"]).frame.in_words()
    return f"protocol {result['protocol']}: {result['points']:,} points a mesh{which}, seed {result['seed']}; {frame}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], first: int = 34) -> list[str]:
    """Columns as wide as they need to be: the first to the left, the others to the right."""
    cells = [list(head), *(list(row) for row in rows)]
    widths = [max(first, *(len(row[0]) for row in cells))]
    widths += [max(10, *(len(row[k]) + 2 for row in cells)) for k in range(1, len(head))]
    return [
        row[0].ljust(widths[0]) + "".join(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        for row in cells
    ]


def _exact_table(result: dict[str, Any]) -> list[str]:
    unit = "voxels" if result["voxel"] is not None else "lengths"
    suffix = "_voxels" if unit == "voxels" else ""
    keys = ("mean", "p50", "p95", "p99", "max")
    rows = []
    for side in SIDES:
        numbers, error = (part["exact"][side + suffix] for part in (result, result["standard_error"]))
        rows.append([f"  {side}", _number(numbers["mean"]), _number(error["mean"], 2)])
        rows[-1] += [_number(numbers[key]) for key in keys[1:]]
    lines = _table([f"exact distance, {unit}", "mean", "+-", *keys[1:]], rows)
    if result["hausdorff"] is not None:
        scale = 1.0 if result["voxel"] is None else 1.0 / result["voxel"]
        low, high = (result["hausdorff"][key] * scale for key in ("lower", "upper"))
        lines += [f"{'  Hausdorff distance':34}  between {low:.5g} and {high:.5g}"]
    errors = result["standard_error"]["exact"]["f_score"]
    shares = [
        [f"  F({threshold})", f"{score['f']:.4f}", _number(errors[threshold]["f"], 2), f"{1:.4f}"]
        for threshold, score in result["exact"]["f_score"].items()
    ]
    return [*lines, "", *_table(["exact F-score", "score", "+-", "floor"], shares)]


def _sampled_table(result: dict[str, Any]) -> list[str]:
    sampled, errors = result["sampled"], result["standard_error"]["sampled"]
    rows = []
    for name, label in (("chamfer_l1", "Chamfer L1, half sum"), ("chamfer_l2", "Chamfer squared, half sum")):
        values = sampled[name]["half_sum"], errors[name]["half_sum"], sampled[name]["floor"]["half_sum"]
        rows.append([f"  {label}", *(_number(value) for value in values)])
    rows += [
        [
            f"  F({threshold})",
            f"{score['f']:.4f}",
            _number(errors["f_score"][threshold]["f"], 2),
            f"{score['floor']:.4f}",
        ]
        for threshold, score in sampled["f_score"].items()
    ]
    return _table(["sampled, lengths", "score", "+-", "floor"], rows)


def _normal_table(result: dict[str, Any]) -> list[str]:
    rows = []
    for key, label in (("normal_error_degrees", "unsigned"), ("normal_error_signed_degrees", "signed")):
        for side in SIDES:
            numbers, error = result[key][side], result["standard_error"][key][side]
            values = numbers["mean"], error["mean"], numbers["p50"], numbers["p95"]
            rows.append([f"  {label}, {side}", *(_number(value, 3) for value in values)])
    return _table(["normal error, degrees", "mean", "+-", "p50", "p95"], rows)


def _volume_lines(result: dict[str, Any]) -> list[str]:
    iou = result["iou"]
    if iou is None:
        return []
    if iou["value"] is None:
        return [f"volume IoU: none, {iou['reason']}"]
    row = ["  IoU", f"{iou['value']:.4f}", _number(result["standard_error"]["iou"]["value"], 2), f"{iou['floor']:.4f}"]
    return _table([f"volume, {iou['points']:,} points", "score", "+-", "floor"], [row])


def _topology_table(result: dict[str, Any]) -> list[str]:
    sides = result["prediction"], result["reference"]
    rows = [[f"  {key.replace('_', ' ')}", *(_cell(side[key]) for side in sides)] for key in COUNTS]
    rows.append(["  area ratio", f"{result['area_ratio']:.4f}", "1.0000"])
    return _table(["topology", "prediction", "reference"], rows)


def _paper_tables(results: Mapping[str, dict[str, Any]]) -> list[str]:
    """Scores as the papers print them, each protocol's points, seed and frame beside its name."""
    lines: list[str] = []
    for result in results.values():
        if not result["paper"]:
            continue
        errors = result["standard_error"]["paper"]
        rows = [
            [f"  {score['unit']}", _number(score["value"]), _number(errors[key]["value"], 2), _number(score["floor"])]
            for key, score in result["paper"].items()
        ]
        lines += [_heading(result), *_table(["  as its paper prints", "score", "+-", "floor"], rows, 44), ""]
    return lines[:-1]


def _normal_map_table(result: dict[str, Any]) -> list[str]:
    views, least = result["views"], result["floor"] or {}
    heading = f"protocol {result['protocol']}: {views['count']} views ({views['name']}) of {views['resolution']} pixels a side"
    rows = [
        [f"  {label}", _number(result[key]), _number(result["both"][key]), _number(least.get(key))]
        for key, label in (
            ("nmse", "NMSE"),
            ("sne", "SNE"),
            ("nmse_unsigned", "NMSE, unsigned"),
            ("sne_unsigned", "SNE, unsigned"),
        )
    ]
    return [heading, *_table(["  normal maps", "score", "both seen", "floor"], rows)]


def _definitions(protocols: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Each definition once; those that are not of all protocols with the names of theirs."""
    texts: dict[tuple[str, str], list[str]] = {}
    for name, definitions in protocols.items():
        for key, text in definitions.items():
            texts.setdefault((key, text), []).append(name)
    shared = max(len(names) for names in texts.values())
    lines = ["definitions"]
    for (key, text), names in texts.items():
        whose = "" if len(names) == shared else f" ({', '.join(names)})"
        lines += textwrap.wrap(f"{key}{whose}: {text}", WIDTH, initial_indent="  ", subsequent_indent="    ")
    return lines


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
