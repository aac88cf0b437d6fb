"""`compare`: how far one mesh is from another, under every protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shapecodec.commands.console import Reporter
from shapecodec.commands.steps import read_input
from shapecodec.errors import BadArgument
from shapecodec.evaluate.compare import format_comparisons
from shapecodec.evaluate.measure import MEASURES
from shapecodec.evaluate.metrics import compare_all, floor_of
from shapecodec.evaluate.normal_maps import NORMAL_PROTOCOLS, normal_map_scores
from shapecodec.evaluate.protocol import CUBE, EXACT, PROTOCOLS
from shapecodec.mesh import Mesh


def run(
    prediction: Path,
    reference: Path,
    *,
    resolution: int | None,
    points: int | None,
    protocol: str | None,
    seed: int,
    max_faces: int,
    definitions: bool,
    as_json: bool,
) -> None:
    """See `cli.compare`."""
    names = MEASURES if protocol is None else (protocol,)
    if names[0] not in MEASURES:
        raise BadArgument(f"unknown protocol '{names[0]}'.", where="--protocol", hint=f"one of {', '.join(MEASURES)}.")
    report = Reporter(as_json)
    with report.stage("load", "read both meshes"):
        meshes = read_input(prediction, max_faces), read_input(reference, max_faces)
    distances, normals = ([name for name in names if name in kind] for kind in (PROTOCOLS, NORMAL_PROTOCOLS))
    results: dict[str, dict[str, Any]] = {}
    if distances:
        with report.stage("metrics", "measure distances"):
            results = compare_all(*meshes, resolution=resolution, points=points, seed=seed, protocols=distances)
            results = {name: {**result, "floor": floor_of(result)} for name, result in results.items()}
    for name in normals:
        with report.stage("normal_maps", "draw and compare normal maps"):
            results[name] = _normal_maps(*meshes, name)
    main = results.get(EXACT.name) or next(iter(results.values()))
    values = {
        "prediction": str(prediction),
        "reference": str(reference),
        "resolution": resolution,
        "seed": seed,
        "metrics": {key: value for key, value in main.items() if key != "floor"},
        "floor": main["floor"],
        "protocols": results,
        "seconds": report.total(),
    }
    report.result(values, format_comparisons(results, definitions=definitions))


def _normal_maps(prediction: Mesh, reference: Mesh, name: str) -> dict[str, Any]:
    """Normal maps drawn in the cube: float32 pictures of coordinates far from the origin are coarse."""
    frame = CUBE.similarity(reference)
    pictures = prediction.transformed(frame), reference.transformed(frame)
    return normal_map_scores(*pictures, NORMAL_PROTOCOLS[name])
