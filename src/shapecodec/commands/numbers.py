"""The metrics of a reconstruction, beside the floor of sampling and the oracle of the extraction."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from shapecodec.commands.console import grid
from shapecodec.evaluate.metrics import compare
from shapecodec.mesh import Mesh, Similarity

Numbers = dict[str, Any]


def measure(prediction: Mesh, reference: Mesh, resolution: int, points: int, seed: int) -> Numbers:
    """`metrics.compare` of two meshes of the codec's cube."""
    return compare(prediction, reference, resolution=resolution, points=points, seed=seed, frame=Similarity())


def quality_table(numbers: Numbers, oracle: Numbers | None, title: str = "Quality") -> Table:
    """Every number with its floor and the oracle's."""
    voxels = numbers["voxel"] is not None
    suffix, unit = ("_voxels", "voxel") if voxels else ("", "unit cube")
    rows: list[tuple[str, ...]] = []

    def add(label: str, path: tuple[str, ...], floor: str, style: str) -> None:
        cells = [_at(numbers, path), floor, None if oracle is None else _at(oracle, path)]
        rows.append((label, *(c if isinstance(c, str) else "-" if c is None else format(c, style) for c in cells)))

    for name, text in (("accuracy", "reconstruction to input"), ("completeness", "input to reconstruction")):
        for key in ("mean", "p99", "max"):
            add(
                f"{text}, {key} [{unit}]".replace("[", "\\["),
                ("exact", name + suffix, key),
                "0",
                ".3f" if voxels else ".3e",
            )
    for threshold, score in numbers["sampled"]["f_score"].items():
        add(f"F-score at {threshold}", ("sampled", "f_score", threshold, "f"), f"{score['floor']:.4f}", ".4f")
    least = numbers["sampled"]["chamfer_l1"]["floor"]["half_sum"]
    add("Chamfer L1, half sum", ("sampled", "chamfer_l1", "half_sum"), f"{least:.3e}", ".3e")
    add("normal error, mean \\[degrees]", ("normal_error_degrees", "mean"), "0", ".2f")
    add("area, output / input", ("area_ratio",), "1", ".3f")
    return grid(title, ("", "value", "floor", "oracle"), rows)


def _at(numbers: Numbers, path: tuple[str, ...]) -> float | None:
    value: Any = numbers
    for key in path:
        value = value[key]
    return value
