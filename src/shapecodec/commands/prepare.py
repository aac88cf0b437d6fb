"""`prepare`: what is done to a mesh file before other tools can use it. So far one stage, --watertight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from shapecodec.commands.console import Reporter
from shapecodec.commands.steps import check_output, choose_device, read_input
from shapecodec.data.watertight import make_watertight
from shapecodec.errors import BadArgument
from shapecodec.io.mesh_files import write_mesh
from shapecodec.mesh import Mesh
from shapecodec.ops.closest_point import closest_point
from shapecodec.rng import rng


def run(
    source: Path,
    output: Path,
    *,
    watertight: bool,
    resolution: int,
    thickness: float,
    tolerance: float,
    points: int,
    device: str,
    seed: int,
    max_faces: int,
    as_json: bool,
) -> None:
    """See `cli.prepare`."""
    if not watertight:
        raise BadArgument("no stage is named.", where="prepare", hint="--watertight.")
    if points < 1:
        raise BadArgument(f"at least 1 point is needed, not {points}.", where="--points")
    check_output(output, "mesh", source)
    chosen = choose_device(device)
    report = Reporter(as_json, torch.device(chosen))
    with report.stage("load", "read the mesh"):
        mesh = read_input(source, max_faces).to(chosen)
    with report.stage("watertight", f"rebuild it at {resolution}^3"):
        made = make_watertight(mesh, resolution=resolution, thickness=thickness, tolerance=tolerance)
    with report.stage("distances", f"measure with {points:,} points"):
        low, high = mesh.bounds()
        voxel = float((high - low).max()) / resolution
        distances = {
            "to_input": _distances(made, mesh, voxel, points, seed),
            "from_input": _distances(mesh, made, voxel, points, seed),
        }
    write_mesh(made.to("cpu"), output)
    values = {
        "input": str(source),
        "output": str(output),
        "stage": "watertight",
        "resolution": resolution,
        "thickness": thickness,
        "tolerance": tolerance,
        "device": chosen,
        "seed": seed,
        "source": _facts(mesh),
        "mesh": _facts(made),
        "distance_voxels": distances,
        "seconds": report.total(),
    }
    report.result(values, _text(values))


def _facts(mesh: Mesh) -> dict[str, Any]:
    return {"vertices": len(mesh.vertices), "faces": len(mesh.faces), "watertight": mesh.is_watertight()}


def _distances(mesh: Mesh, other: Mesh, voxel: float, points: int, seed: int) -> dict[str, float]:
    """Of points sampled on `mesh` to `other`, in voxels."""
    generator = rng(seed, purpose="prepare", device=mesh.vertices.device)
    found = closest_point(mesh.sample(points, generator)[0], other.vertices, other.faces).distance.cpu() / voxel
    return {
        "mean": float(found.mean()),
        "p99": float(found.kthvalue(max(round(0.99 * points), 1)).values),
        "max": float(found.max()),
    }


def _text(values: dict[str, Any]) -> str:
    source, made, distances = values["source"], values["mesh"], values["distance_voxels"]
    lines = [
        f"{values['output']}: {made['faces']:,} faces, closed and manifold, of {source['faces']:,} faces"
        + ("" if source["watertight"] else ", not watertight"),
    ]
    for key, name in (("to_input", "new surface to the input"), ("from_input", "input to the new surface")):
        numbers = distances[key]
        lines.append(
            f"  {name:26}mean {numbers['mean']:.3f}  p99 {numbers['p99']:.2f}  max {numbers['max']:.2f} voxels"
        )
    lines.append("  What lies inside the solid is not part of its surface: it counts in the second line.")
    return "\n".join(lines)
