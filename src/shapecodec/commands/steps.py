"""The steps that reconstruct, encode and decode share, so that they give the same bytes."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from shapecodec.codecs.base import Codec
from shapecodec.codecs.registry import load_codec
from shapecodec.commands.console import Reporter
from shapecodec.errors import BadArgument, BadFile
from shapecodec.io.latent_file import save_latents
from shapecodec.io.mesh_files import FORMATS, WRITE_FORMATS, read_mesh
from shapecodec.io.quantise import quantise_latents
from shapecodec.latents import Latents
from shapecodec.mesh import Mesh, Similarity
from shapecodec.rng import counted_seed


@dataclass(frozen=True)
class Rebuilt:
    """A decoded surface.

    Args:
        unit: in the unit cube.
        mesh: in the user's own scale and position.
        surface: the mode that was used.
    """

    unit: Mesh
    mesh: Mesh
    surface: str


def choose_device(device: str) -> str:
    """`cpu` or `cuda` for what --device says; refuses what is not there."""
    if device not in ("auto", "cpu", "cuda"):
        raise BadArgument(f"unknown device '{device}'.", where="--device", hint="auto, cpu or cuda.")
    if device == "cuda" and not torch.cuda.is_available():
        raise BadArgument("there is no CUDA device.", where="--device", hint="--device cpu, or `shapecodec doctor`.")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def open_codec(name: str, device: str, seed: int) -> Codec:
    """The codec on its device, with every global generator seeded."""
    chosen = choose_device(device)
    torch.manual_seed(counted_seed(seed))
    if chosen == "cuda":
        torch.cuda.reset_peak_memory_stats()
    return load_codec(name, chosen)


def check_output(path: Path, kind: str, source: Path) -> None:
    """Refuse a file that could not be written, or that is the input itself, before any work is done."""
    suffixes = {"mesh": WRITE_FORMATS, "latents": (".safetensors",), "picture": (".png", ".jpg", ".jpeg", ".webp")}[
        kind
    ]
    if path.suffix.lower() not in suffixes:
        raise BadArgument(
            f"'{path.suffix}' is not a format of {kind} that can be written.",
            where=str(path),
            hint=f"one of {' '.join(suffixes)}.",
        )
    if path.resolve() == source.resolve():
        raise BadArgument("would be written over the input.", where=str(path), hint="give another --output.")
    if not path.resolve().parent.is_dir():
        raise BadArgument("the folder does not exist.", where=str(path), hint=f"mkdir -p {path.parent}")
    if not os.access(path.resolve().parent, os.W_OK | os.X_OK):
        raise BadFile("the folder cannot be written.", where=str(path.parent), hint="give another --output.")


def read_input(path: Path, max_faces: int) -> Mesh:
    """A mesh from an untrusted file, at most `max_faces` triangles."""
    if path.suffix.lower() == ".safetensors":
        raise BadArgument("is a latent file.", where=str(path), hint=f"shapecodec decode {path}, or a mesh: {FORMATS}.")
    return read_mesh(path, max_faces=max_faces)


def encode_mesh(codec: Codec, inputs: Any, frame: Similarity) -> Latents:
    """Latents on the CPU that know their codec and the way back to the user's frame."""
    latents = codec.encode(inputs).to("cpu")
    return replace(latents, frames=(frame,), codec=codec.kind, codec_hash=codec.codec_hash)


def through_file(latents: Latents, bits: int) -> tuple[Latents, int]:
    """What a latent file of these latents holds, and its size in bytes; no file stays."""
    with tempfile.TemporaryDirectory(prefix="shapecodec-") as folder:
        size = save_latents(latents, Path(folder) / "latents.safetensors", bits=bits)
    return quantise_latents(latents, bits), size


def rebuild(codec: Codec, latents: Latents, surface: str, report: Reporter) -> Rebuilt:
    """Latents -> surface, in the unit cube and in the user's frame."""
    codec.check_latents(latents)
    with report.stage("decode", "decode"):
        field: Any = codec.decode(latents.to(codec.device))
    with report.stage("extract", f"extract the surface ({surface})"):
        unit, made = field.to_surface(None, surface)
        frame = latents.frames[0] if latents.frames else Similarity()
        mesh = unit.transformed(frame, inverse=True)
    if made.mode != surface:
        report.note(f"  surface '{made.mode}': {made.reason}")
    return Rebuilt(unit, mesh, made.mode)


def describe_latents(latents: Latents, size: int) -> dict[str, Any]:
    """The `latents` entry of the JSON contract."""
    levels = [{"tokens": len(level.feats), "channels": level.feats.shape[1]} for level in latents.levels]
    return {"levels": levels, "bytes": size}
