"""`reconstruct`: a mesh through the codec and back, with honest numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image

from shapecodec.codecs.base import Codec
from shapecodec.commands.console import Reporter, size_text
from shapecodec.commands.memory import check_memory, peak_memory
from shapecodec.commands.numbers import measure, quality_table
from shapecodec.commands.steps import (
    check_output,
    describe_latents,
    encode_mesh,
    open_codec,
    read_input,
    rebuild,
    through_file,
)
from shapecodec.errors import BadArgument
from shapecodec.evaluate.metrics import floor_of
from shapecodec.io.atomic import atomic_file
from shapecodec.io.mesh_files import write_mesh
from shapecodec.io.quantise import check_bits
from shapecodec.mesh import Mesh
from shapecodec.render import contact_sheet


@torch.inference_mode()
def run(
    source: Path,
    *,
    codec: str,
    resolution: int | None,
    tokens: float | None,
    surface: str,
    bits: int,
    output: Path | None,
    picture: Path | None,
    device: str,
    seed: int,
    points: int,
    max_faces: int,
    as_json: bool,
) -> None:
    """See `cli.reconstruct`."""
    output = output or Path(f"{source.stem}.rebuilt.glb")
    check_output(output, "mesh", source)
    if picture is not None:
        check_output(picture, "picture", source)
    check_bits(bits)
    if points < 1:
        raise BadArgument(f"at least 1 point is needed, not {points}.", where="--points")
    report = Reporter(as_json)
    with report.stage("load", "read the codec and the mesh"):
        mesh = read_input(source, max_faces)
        model = open_codec(codec, device, seed)
        report.device = model.device
    if tokens is not None:
        model.scale_tokens(tokens)
    size = model.config.resolution if resolution is None else resolution
    unit, frame = model.normalise(mesh)
    with report.stage("prepare", f"prepare at {size}^3"):
        check_memory(model, unit, size)
        inputs: Any = model.prepare(unit.to(model.device), resolution=size)
    remarks = model.remarks(inputs)
    for remark in remarks:
        report.note(f"  warning: {remark}")
    with report.stage("encode", "encode"):
        latents, stored = through_file(encode_mesh(model, inputs, frame), bits)
    rebuilt = rebuild(model, latents, surface, report)
    with report.stage("metrics", f"measure with {points:,} points"):
        numbers = measure(rebuilt.unit, unit, size, points, seed)
        oracle = measure(_oracle(model, inputs, surface), unit, size, points, seed)
    values = {
        "codec": model.name,
        "input": str(source),
        "output": str(output),
        "resolution": size,
        "device": str(model.device),
        "seed": seed,
        "warnings": list(remarks),
        "latents": describe_latents(latents, stored),
        "mesh": {
            "vertices": numbers["prediction"]["vertices"],
            "faces": numbers["prediction"]["faces"],
            "watertight": numbers["prediction"]["watertight"],
            "surface": rebuilt.surface,
        },
        "metrics": numbers,
        "floor": floor_of(numbers),
        "oracle": oracle,
        "seconds": report.total(),
        "peak_memory_bytes": peak_memory(model.device),
    }
    if picture is None:
        write_mesh(rebuilt.mesh, output)
    else:
        with report.stage("picture", "draw the picture"), atomic_file(picture) as file:  # both files or none
            _draw(values, unit, rebuilt.unit).save(file, format=Image.registered_extensions()[picture.suffix.lower()])
            write_mesh(rebuilt.mesh, output)
    report.result(values, *_tables(values, mesh))


def _oracle(codec: Codec, inputs: Any, surface: str) -> Mesh:
    """The exact field behind the same extraction."""
    exact: Any = codec
    return exact.oracle(inputs).to_surface(None, surface)[0]


def _draw(values: dict[str, Any], original: Mesh, rebuilt: Mesh) -> Image.Image:
    resolution = values["resolution"]
    distances, oracle = (values[key]["exact"]["accuracy_voxels"] for key in ("metrics", "oracle"))
    tokens = sum(level["tokens"] for level in values["latents"]["levels"])
    return contact_sheet(
        original,
        rebuilt,
        resolution=resolution,
        title=f"{Path(values['input']).name}   {values['codec']} at {resolution} voxels an axis",
        subtitle=f"{tokens:,} tokens in {size_text(values['latents']['bytes'])}   distance to the original: mean "
        f"{distances['mean']:.3f} voxel, p99 {distances['p99']:.2f}   (oracle: {oracle['mean']:.3f}, {oracle['p99']:.2f})",
    )


def _tables(values: dict[str, Any], mesh: Mesh) -> list[Any]:
    latents, made, seconds = values["latents"], values["mesh"], values["seconds"]
    tokens = " + ".join(f"{level['tokens']:,} x {level['channels']}" for level in latents["levels"])
    facts = [
        ("codec", f"{values['codec']} at {values['resolution']}^3 on {values['device']}"),
        ("input", f"{values['input']} ({len(mesh.vertices):,} vertices, {len(mesh.faces):,} faces)"),
        ("latents", f"{tokens} channels, {size_text(latents['bytes'])} as a file"),
        (
            "output",
            f"{values['output']} ({made['vertices']:,} vertices, {made['faces']:,} faces, surface {made['surface']}, "
            f"{'watertight' if made['watertight'] else 'not watertight'})",
        ),
        ("time", "  ".join(f"{key} {spent:.2f}" for key, spent in seconds.items()) + " s"),
        ("memory", f"{size_text(values['peak_memory_bytes'])} at most"),
    ]
    summary = "\n".join(f"{name:9}{text}" for name, text in facts)
    return [summary, "", quality_table(values["metrics"], values["oracle"], "Quality (floor and oracle beside it)")]
