"""A comparison as a page of text: every number with its unit and its definition."""

from __future__ import annotations

from typing import Any

from shapecodec.evaluate.protocol import find_protocol


def format_comparison(result: dict[str, Any], *, definitions: bool = True) -> str:
    """The result of `metrics.compare` as text, with the protocol's definitions below the numbers."""
    protocol = find_protocol(result["protocol"])
    lines = [f"protocol {protocol.name}, {result['points']:,} points a mesh, seed {result['seed']}", ""]
    lines += _exact_lines(result)
    lines += _sampled_lines(result)
    lines += _normal_lines(result)
    lines += _topology_lines(result)
    if definitions:
        lines += ["", *(f"{key}: {text}" for key, text in protocol.definitions.items())]
    return "\n".join(lines)


def _exact_lines(result: dict[str, Any]) -> list[str]:
    unit = "voxels" if result["voxel"] is not None else "unit"
    lines = [f"{'exact distance, ' + unit:28}{'mean':>10}{'p50':>10}{'p95':>10}{'p99':>10}{'max':>10}"]
    for name in ("accuracy", "completeness"):
        numbers = result["exact"][f"{name}_voxels" if unit == "voxels" else name]
        lines.append(f"  {name:26}" + "".join(f"{numbers[key]:10.4g}" for key in ("mean", "p50", "p95", "p99", "max")))
    for threshold, score in result["exact"]["f_score"].items():
        lines.append(f"  {'F(' + threshold + ') exact':26}{score['f']:10.4f}")
    return lines


def _sampled_lines(result: dict[str, Any]) -> list[str]:
    lines = ["", f"{'sampled':28}{'score':>10}{'floor':>10}"]
    for name, label in (("chamfer_l1", "Chamfer L1, half sum"), ("chamfer_l2", "Chamfer squared, half sum")):
        numbers = result["sampled"][name]
        lines.append(f"  {label:26}{numbers['half_sum']:10.3e}{numbers['floor']['half_sum']:10.3e}")
    for threshold, score in result["sampled"]["f_score"].items():
        lines.append(f"  {'F(' + threshold + ')':26}{score['f']:10.4f}{score['floor']:10.4f}")
    return lines


def _normal_lines(result: dict[str, Any]) -> list[str]:
    lines = ["", f"{'normal error, degrees':28}{'mean':>10}{'p50':>10}{'p95':>10}"]
    for name in ("accuracy", "completeness"):
        numbers = result["normal_error_degrees"][name]
        cells = (f"{'-':>10}" if numbers[key] is None else f"{numbers[key]:10.3f}" for key in ("mean", "p50", "p95"))
        lines.append(f"  {name:26}" + "".join(cells))
    return lines


def _topology_lines(result: dict[str, Any]) -> list[str]:
    lines = ["", f"{'topology':28}{'prediction':>16}{'reference':>16}"]
    for key in (
        "faces",
        "vertices",
        "components",
        "boundary_edges",
        "non_manifold_edges",
        "watertight",
        "area",
        "volume",
    ):
        cells = (_cell(result[side][key]) for side in ("prediction", "reference"))
        lines.append(f"  {key.replace('_', ' '):26}" + "".join(f"{cell:>16}" for cell in cells))
    return [*lines, f"  {'area ratio':26}{result['area_ratio']:16.4f}"]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
