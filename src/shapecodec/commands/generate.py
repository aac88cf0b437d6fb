"""`generate`: new meshes from a trained generator, with everything that repeats them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch

from shapecodec.codecs.base import Codec
from shapecodec.codecs.registry import bundled_names, load_codec
from shapecodec.commands.console import Reporter
from shapecodec.commands.memory import peak_memory
from shapecodec.commands.steps import choose_device
from shapecodec.errors import BadArgument, BadFile, BadMesh
from shapecodec.generate.base import Generator
from shapecodec.generate.guidance import Guidance
from shapecodec.generate.pipeline import Request, generate_latents
from shapecodec.generate.registry import load_generator
from shapecodec.io.codec_folder import read_header
from shapecodec.io.codec_locate import locate
from shapecodec.io.environment import package_version
from shapecodec.io.latent_file import load_latents, save_latents
from shapecodec.io.mesh_files import write_mesh
from shapecodec.io.quantise import quantise_latents
from shapecodec.latents import Latents
from shapecodec.mesh import Mesh
from shapecodec.render.gallery import gallery
from shapecodec.rng import counted_seed

BITS = 16  # of the latent files; the meshes are decoded from what they hold, so `decode` gives them again
SHEET, RECORD, FORMAT = "sheet.png", "generation.json", 1
_OURS = re.compile(rf"\d{{3,}}\.(glb|safetensors)|{re.escape(SHEET)}")  # what a record may list


@torch.inference_mode()
def run(
    *,
    out: Path,
    number: int,
    generator: str | None,
    codec: str | None,
    category: tuple[str, ...],
    steps: int,
    guidance: float,
    interval: tuple[float, float] | None,
    resolution: int | None,
    fix_levels: int,
    like: Path | None,
    batch: int,
    picture: bool,
    device: str,
    seed: int,
    as_json: bool,
) -> None:
    """See `cli.generate`."""
    guide = Guidance(guidance) if interval is None else Guidance(guidance, interval)
    request = Request(number, seed, category, steps, guide, fix_levels, batch)
    if generator is None:
        hint = "train one with 'shapecodec train cascade-small --run RUN', then --generator RUN."
        raise BadArgument("no generator was given, and none ships yet.", where="--generator", hint=hint)
    _earlier(out)
    if like is not None and like.resolve().is_relative_to(out.resolve()):
        hint = "--out with another folder."
        raise BadArgument("lies in the folder whose files are replaced.", where=f"--like {like}", hint=hint)
    report = Reporter(as_json)
    with report.stage("load", "read the generator and its codec"):
        chosen = choose_device(device)
        torch.manual_seed(counted_seed(seed))
        if chosen == "cuda":
            torch.cuda.reset_peak_memory_stats()
        model = load_generator(generator, chosen)
        decoder = open_decoder(model, codec, chosen)
        start = None if like is None else _start(like, decoder, fix_levels)
        report.device = model.device
    size = model.config.resolution if resolution is None else resolution
    with report.counted("sample", f"generate {number} latents", request.evaluations(model)) as advance:
        made = [latents.to("cpu") for latents in generate_latents(model, request, like=start, progress=advance)]
    with report.counted("decode", f"decode at {size}^3", number) as advance:
        meshes = []
        for index, latents in enumerate(made):
            meshes.append(_decoded(decoder, quantise_latents(latents, BITS), size))
            if index == 0:  # what an earlier call made stays until there is something to put in its place
                _cleared(out)
            save_latents(latents, out / f"{index:03}.safetensors", bits=BITS)
            if meshes[-1] is not None:
                write_mesh(meshes[-1], out / f"{index:03}.glb")
            advance()
    shapes = [_row(index, mesh, request) for index, mesh in enumerate(meshes)]
    record = _record(model, decoder, request, size, like)
    record |= {"picture": SHEET if picture else None, "shapes": shapes}
    if picture:
        with report.stage("picture", "draw the sheet"):
            _draw(meshes, request, model).save(out / SHEET)
    (out / RECORD).write_text(json.dumps(record, indent=1) + "\n")
    empty = sum(mesh is None for mesh in meshes)
    if empty:
        report.note(f"  warning: {empty} of {number} latents decode to nothing; they have no mesh.")
    values = {"output": str(out), **record, "device": str(model.device)}
    values |= {"seconds": report.total(), "peak_memory_bytes": peak_memory(model.device)}
    report.result(values, f"{out}: {number - empty} meshes at {size}^3, {SHEET if picture else 'no picture'}, {RECORD}")


def open_decoder(generator: Generator, codec: str | None, device: str) -> Codec:
    """The codec that a generator belongs to: the one given, the bundled one with its hash, or the one that it names.

    Raises:
        BadArgument: it has other weights. BadFile: there is none of that name.
    """
    if codec is None:
        wanted = generator.config.codec_hash
        same = (name for name in bundled_names() if read_header(locate(name)).get("codec_hash") == wanted)
        codec = next(same, generator.config.codec)
    found = load_codec(codec, device)
    generator.check_codec(found)
    return found


def _earlier(out: Path) -> list[Path]:
    """The files of an earlier call, its record first: what a new one may replace. Nothing is deleted here.

    Raises:
        BadArgument: a file. BadFile: a folder that holds something that its own record does not list.
    """
    if out.exists() and not out.is_dir():
        raise BadArgument("is a file; meshes go into a folder.", where=str(out), hint="--out with another name.")
    found = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if not found:
        return []
    foreign = sorted(found - _listed(out / RECORD))
    if foreign:
        raise BadFile(
            f"the folder holds something that no earlier call lists in {RECORD} ({foreign[0]}).",
            where=str(out),
            hint="a new or empty folder.",
        )
    return [out / name for name in sorted(found, key=lambda name: (name != RECORD, name))]


def _listed(record: Path) -> set[str]:
    """Names of the files that a record says were written with it, and its own; none where it is not a record of ours."""
    try:
        values = json.loads(record.read_bytes()) if record.is_file() else None
    except ValueError:  # not JSON, or not text
        return set()
    if not isinstance(values, dict) or values.get("format") != FORMAT or not isinstance(values.get("shapes"), list):
        return set()
    rows = [row for row in values["shapes"] if isinstance(row, dict)]
    named = [values.get("picture"), *(row.get(key) for row in rows for key in ("latents", "mesh"))]
    return {RECORD, *(name for name in named if isinstance(name, str) and _OURS.fullmatch(name))}


def _cleared(out: Path) -> None:
    """The folder, without the files of an earlier call. They are looked for again: sampling takes long."""
    for path in _earlier(out):
        path.unlink()
    out.mkdir(parents=True, exist_ok=True)


def _start(like: Path, codec: Codec, fix_levels: int) -> Latents:
    """The latents whose coarsest levels are kept."""
    if not fix_levels:
        raise BadArgument("--like keeps levels of a shape, and none is kept.", where="--like", hint="--fix-levels 1.")
    latents = load_latents(like)
    codec.check_latents(latents)
    return latents


def _decoded(codec: Codec, latents: Latents, resolution: int) -> Mesh | None:
    """The mesh in the unit cube; None where nothing is inside, which a generator may well make."""
    try:
        return codec.decode(latents.to(codec.device)).to_mesh(resolution).to("cpu")
    except BadMesh:
        return None


def _row(index: int, mesh: Mesh | None, request: Request) -> dict[str, Any]:
    row: dict[str, Any] = {"latents": f"{index:03}.safetensors", "category": request.category(index)}
    if mesh is None:
        return row | {"mesh": None}
    counts = {"vertices": len(mesh.vertices), "faces": len(mesh.faces), "watertight": mesh.is_watertight()}
    return row | {"mesh": f"{index:03}.glb", **counts}


def _record(generator: Generator, codec: Codec, request: Request, resolution: int, like: Path | None) -> dict[str, Any]:
    """All that decides the files."""
    low, high = request.guidance.interval
    return {
        "format": FORMAT,
        "generator": generator.name,
        "generator_hash": generator.codec_hash,
        "codec": codec.name,
        "codec_hash": codec.codec_hash,
        "number": request.count,
        "seed": request.seed,
        "category": list(request.categories),
        "steps": request.steps,
        "guidance": request.guidance.scale,
        "interval": [low, high] if high < float("inf") else None,
        "resolution": resolution,
        "fix_levels": request.fix_levels,
        "like": None if like is None else str(like),
        "batch": request.batch,
        "bits": BITS,
        "versions": {name: package_version(name) for name in ("shapecodec", "torch")},
    }


def _draw(meshes: list[Mesh | None], request: Request, generator: Generator) -> Any:
    captions = []
    for index, mesh in enumerate(meshes):
        kept = f"levels kept: {request.fix_levels}" if request.fix_levels and index else ""
        words = [f"{index:03}", request.category(index) or "", kept, "" if mesh else "nothing inside"]
        captions.append("   ".join(word for word in words if word))
    guide = f"   guidance {request.guidance.scale:g}" if request.guidance.scale != 1 else ""
    subtitle = f"seed {request.seed}   {request.steps} steps{guide}"
    return gallery(meshes, captions, title=f"{generator.name}", subtitle=subtitle)
