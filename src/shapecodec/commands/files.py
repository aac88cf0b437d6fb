"""`encode` and `decode`: a mesh into a latent file, and the file back into a mesh."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from shapecodec.codecs.registry import bundled_names
from shapecodec.commands.console import Reporter, size_text
from shapecodec.commands.memory import check_memory, peak_memory
from shapecodec.commands.steps import check_output, describe_latents, encode_mesh, open_codec, read_input, rebuild
from shapecodec.errors import BadArgument
from shapecodec.io.codec_folder import read_header
from shapecodec.io.codec_locate import locate
from shapecodec.io.latent_file import load_latents, save_latents
from shapecodec.io.mesh_files import write_mesh
from shapecodec.io.quantise import check_bits
from shapecodec.latents import Latents


@torch.inference_mode()
def encode(
    source: Path,
    *,
    codec: str,
    resolution: int | None,
    tokens: float | None,
    bits: int,
    output: Path | None,
    device: str,
    seed: int,
    max_faces: int,
    as_json: bool,
) -> None:
    """See `cli.encode`."""
    output = output or Path(f"{source.stem}.safetensors")
    check_output(output, "latents", source)
    check_bits(bits)
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
        latents = encode_mesh(model, inputs, frame)
        stored = save_latents(latents, output, bits=bits)
    values = {
        "codec": model.name,
        "input": str(source),
        "output": str(output),
        "resolution": size,
        "bits": bits,
        "device": str(model.device),
        "seed": seed,
        "warnings": list(remarks),
        "latents": describe_latents(latents, stored),
        "seconds": report.total(),
        "peak_memory_bytes": peak_memory(model.device),
    }
    count = sum(len(level.feats) for level in latents.levels)
    report.result(values, f"{output}: {count:,} tokens at {bits} bits a channel, {size_text(stored)}")


@torch.inference_mode()
def decode(
    source: Path, *, codec: str | None, surface: str, output: Path | None, device: str, seed: int, as_json: bool
) -> None:
    """See `cli.decode`."""
    output = output or Path(f"{source.stem}.decoded.glb")  # NAME.glb may well be the mesh that was encoded
    check_output(output, "mesh", source)
    report = Reporter(as_json)
    with report.stage("load", "read the latents and the codec"):
        latents = load_latents(source)
        model = open_codec(codec or maker_of(latents, source), device, seed)
        report.device = model.device
    rebuilt = rebuild(model, latents, surface, report)
    write_mesh(rebuilt.mesh, output)
    values = {
        "codec": model.name,
        "input": str(source),
        "output": str(output),
        "resolution": latents.resolution,
        "device": str(model.device),
        "seed": seed,
        "latents": describe_latents(latents, source.stat().st_size),
        "mesh": {
            "vertices": len(rebuilt.mesh.vertices),
            "faces": len(rebuilt.mesh.faces),
            "watertight": rebuilt.mesh.is_watertight(),
            "surface": rebuilt.surface,
        },
        "seconds": report.total(),
        "peak_memory_bytes": peak_memory(model.device),
    }
    report.result(values, f"{output}: {len(rebuilt.mesh.faces):,} faces, surface {rebuilt.surface}")


def maker_of(latents: Latents, source: Path) -> str:
    """The bundled codec whose weights made the latents.

    Raises:
        BadArgument: none of them did.
    """
    for name in bundled_names():
        if read_header(locate(name)).get("codec_hash") == latents.codec_hash:
            return name
    raise BadArgument(
        f"no bundled codec has the weights {latents.codec_hash or '(unknown)'} that made these latents.",
        where=str(source),
        hint="--codec with the folder of the codec that encoded them.",
    )
