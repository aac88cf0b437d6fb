"""`compare`: how far one mesh is from another."""

from __future__ import annotations

from pathlib import Path

from shapecodec.commands.console import Reporter
from shapecodec.commands.numbers import floor_of
from shapecodec.commands.steps import read_input
from shapecodec.evaluate.compare import format_comparison
from shapecodec.evaluate.metrics import compare


def run(
    prediction: Path,
    reference: Path,
    *,
    resolution: int | None,
    points: int,
    protocol: str,
    seed: int,
    max_faces: int,
    definitions: bool,
    as_json: bool,
) -> None:
    """See `cli.compare`."""
    report = Reporter(as_json)
    with report.stage("load", "read both meshes"):
        meshes = read_input(prediction, max_faces), read_input(reference, max_faces)
    with report.stage("metrics", f"measure with {points:,} points"):
        numbers = compare(*meshes, resolution=resolution, points=points, seed=seed, protocol=protocol)
    values = {
        "prediction": str(prediction),
        "reference": str(reference),
        "resolution": resolution,
        "seed": seed,
        "metrics": numbers,
        "floor": floor_of(numbers),
        "seconds": report.total(),
    }
    report.result(values, format_comparison(numbers, definitions=definitions))
