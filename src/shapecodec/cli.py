"""The command line: verbs and their flags. What a verb does stands in `commands`.

Nothing but tyro is imported here, so that --help answers at once; torch alone takes seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from shapecodec.commands.failure import failed, fault
from shapecodec.errors import UserError

Surface = Literal["auto", "single", "snapped", "shell"]
Device = Literal["auto", "cpu", "cuda"]
Output = Annotated[Path | None, arg(aliases=["-o"])]
Json = Annotated[bool, arg(name="json", help="Print one JSON object on stdout, and everything else on stderr.")]
MAX_FACES = 20_000_000


def reconstruct(
    mesh: Positional[Path],
    *,
    codec: str = "log3d-tiny",
    resolution: int | None = None,
    tokens: float | None = None,
    surface: Surface = "auto",
    bits: int = 8,
    output: Output = None,
    picture: Path | None = None,
    device: Device = "auto",
    seed: int = 0,
    points: int = 200_000,
    max_faces: int = MAX_FACES,
    as_json: Json = False,
) -> None:
    """Send a mesh through the codec and back; report the error beside its floor and the oracle.

    Args:
        mesh: An .obj, .ply, .stl, .off, .glb, .gltf or .drc file.
        codec: A bundled name, a codec folder, a training run, or org/name of the Hugging Face hub.
        resolution: Voxels an axis, a multiple of 8; the codec's own if left out.
        tokens: Times the codec's own number of latent vectors, 0.25 to 8; for vector sets (lagem) only.
        surface: How a surface is made of the decoded field; auto keeps one layer where nothing is lost by it.
        bits: Bits a latent channel in the latent file: 6, 8, 16 or 32.
        output: The mesh to write (.glb .ply .obj .stl .drc); NAME.rebuilt.glb if left out.
        picture: Also draw original, reconstruction and error into this .png.
        device: Where the network runs.
        seed: Of all randomness; only the sampled metrics have any.
        points: How many to sample on each mesh for the metrics.
        max_faces: Refuse meshes with more triangles.
    """
    from shapecodec.commands import reconstruct as command

    command.run(
        mesh, codec=codec, resolution=resolution, tokens=tokens, surface=surface, bits=bits, output=output, picture=picture,
        device=device, seed=seed, points=points, max_faces=max_faces, as_json=as_json,
    )  # fmt: skip


def encode(
    mesh: Positional[Path],
    *,
    codec: str = "log3d-tiny",
    resolution: int | None = None,
    tokens: float | None = None,
    bits: int = 8,
    output: Output = None,
    device: Device = "auto",
    seed: int = 0,
    max_faces: int = MAX_FACES,
    as_json: Json = False,
) -> None:
    """Turn a mesh into a latent file.

    Args:
        mesh: An .obj, .ply, .stl, .off, .glb, .gltf or .drc file.
        codec: A bundled name, a codec folder, a training run, or org/name of the Hugging Face hub.
        resolution: Voxels an axis, a multiple of 8; the codec's own if left out.
        tokens: Times the codec's own number of latent vectors, 0.25 to 8; for vector sets (lagem) only.
        bits: Bits a latent channel: 6, 8, 16 or 32.
        output: The .safetensors file to write; NAME.safetensors if left out.
        device: Where the network runs.
        seed: Of all randomness; encoding has none.
        max_faces: Refuse meshes with more triangles.
    """
    from shapecodec.commands import files as command

    command.encode(
        mesh, codec=codec, resolution=resolution, tokens=tokens, bits=bits, output=output, device=device, seed=seed,
        max_faces=max_faces, as_json=as_json,
    )  # fmt: skip


def decode(
    latents: Positional[Path],
    *,
    codec: str | None = None,
    surface: Surface = "auto",
    output: Output = None,
    device: Device = "auto",
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Turn a latent file back into a mesh, in its original scale and position.

    Args:
        latents: A .safetensors file that encode wrote.
        codec: The codec that made it; if left out, the bundled one whose weights the file names.
        surface: How a surface is made of the decoded field; auto keeps one layer where nothing is lost by it.
        output: The mesh to write (.glb .ply .obj .stl .drc); NAME.decoded.glb if left out.
        device: Where the network runs.
        seed: Of all randomness; decoding has none.
    """
    from shapecodec.commands import files as command

    command.decode(latents, codec=codec, surface=surface, output=output, device=device, seed=seed, as_json=as_json)


def compare(
    prediction: Positional[Path],
    reference: Positional[Path],
    *,
    resolution: int | None = None,
    points: int | None = None,
    protocol: str | None = None,
    definitions: bool = True,
    seed: int = 0,
    max_faces: int = MAX_FACES,
    as_json: Json = False,
) -> None:
    """Measure how far one mesh is from another: exact distances, and the scores of each paper beside their floors.

    Args:
        prediction: The mesh to judge, in the reference's scale and position.
        reference: The mesh that it should be.
        resolution: Also give distances in voxels of a grid with so many an axis.
        points: How many to sample on each mesh, instead of each protocol's own number.
        protocol: One of exact-v1, log3d-v1, log3d-outer-v1, focusing-v1, focusing-outer-v1, lagem-v1, normals-v1; all if left out.
        definitions: Leave out the definitions that are printed below the numbers.
        seed: Of the samples.
        max_faces: Refuse meshes with more triangles.
    """
    from shapecodec.commands import compare as command

    command.run(
        prediction, reference, resolution=resolution, points=points, protocol=protocol, seed=seed,
        max_faces=max_faces, definitions=definitions, as_json=as_json,
    )  # fmt: skip


def train(
    recipe: Positional[str | None] = None,
    *,
    data: Path | None = None,
    run: Path | None = None,
    resume: Path | None = None,
    init: str | None = None,
    steps: int | None = None,
    time_budget: float | None = None,
    lr: float | None = None,
    budget: int | None = None,
    codec: str | None = None,
    seed: int | None = None,
    workers: int = 1,
    pools: Path | None = None,
    stop_after: float | None = None,
    device: str = "auto",
    as_json: Json = False,
) -> None:
    """Train a codec or a generator from a recipe, or go on with a run.

    Args:
        recipe: A name of shapecodec.recipes, such as log3d-tiny.
        data: Folder of meshes with a manifest.csv, or a packed collection; generated meshes alone if left out.
        run: New folder for the log, checkpoints and the finished codec or generator.
        resume: Go on with the run in this folder, which says everything else.
        init: Start from the weights of this codec or generator (fine-tuning).
        steps: Optimiser steps, instead of the recipe's.
        time_budget: Seconds of training, instead of the recipe's end.
        lr: Peak learning rate, instead of the recipe's.
        budget: Blocks a batch and process (LoG3D) or shapes a step (LaGeM, Focusing and generators), instead of the recipe's.
        codec: The codec whose latents a generator learns to make, instead of the recipe's.
        seed: Of weights, batches and noise, instead of the recipe's.
        workers: Processes that decode meshes at the start.
        pools: Folder that keeps the labelled points (LaGeM) for the next run or process that asks for the same.
        stop_after: End this call after so many seconds, with a checkpoint to resume from.
        device: auto, cpu or cuda.
    """
    from shapecodec.commands import train as command

    command.run(
        recipe, data=data, folder=run, resume=resume, init=init, steps=steps, time_budget=time_budget, lr=lr,
        budget=budget, codec=codec, seed=seed, workers=workers, pools=pools, stop_after=stop_after, device=device, as_json=as_json,
    )  # fmt: skip


def generate(
    *,
    out: Path,
    number: Annotated[int, arg(aliases=["-n"])] = 8,
    generator: str | None = None,
    codec: str | None = None,
    category: tuple[str, ...] = (),
    steps: int = 18,
    guidance: float = 1.0,
    interval: tuple[float, float] | None = None,
    resolution: int | None = None,
    fix_levels: int = 0,
    like: Path | None = None,
    batch: int = 8,
    picture: bool = True,
    device: Device = "auto",
    seed: int = 0,
    as_json: Json = False,
) -> None:
    """Make new meshes: .glb files, a picture of all, their latents, and generation.json, which says how to repeat them.

    Args:
        out: Folder to write into: new, empty, or of an earlier call, whose files are replaced once the first shape is made.
        number: How many.
        generator: Required: a training run, a generator folder, or org/name of the Hugging Face hub. None ships with the package
            yet: train one first, with shapecodec train cascade-small.
        codec: The codec that it was trained for; found by its hash or name if left out.
        category: What to make; several are taken in turn. Anything if left out.
        steps: Of the sampler, a level.
        guidance: How strongly the category decides: 1 as learnt, 2 to 4 more typical and less varied.
        interval: Noise levels (sigma, from 0.002 to 80) between which guidance is applied; all if left out.
        resolution: Voxels an axis, a multiple of 8; the codec's own if left out.
        fix_levels: Keep so many of the coarsest levels of the first shape in all of them, and generate the finer ones anew.
        like: With --fix-levels, a latent file that encode wrote, outside the folder: its shape is the first one.
        batch: How many at a time.
        picture: Leave out the picture.
        device: Where the networks run.
        seed: The same seed gives the same files on the same machine.
    """
    from shapecodec.commands import generate as command

    command.run(
        out=out, number=number, generator=generator, codec=codec, category=category, steps=steps, guidance=guidance,
        interval=interval, resolution=resolution, fix_levels=fix_levels, like=like, batch=batch, picture=picture,
        device=device, seed=seed, as_json=as_json,
    )  # fmt: skip


def evaluate(
    *,
    data: Path,
    codec: str | None = None,
    meshes: Path | None = None,
    label: str = "",
    align: Literal["none", "box"] = "none",
    split: Literal["train", "val", "test", "all"] | None = None,
    resolution: int | None = None,
    surface: Surface | None = None,
    bits: int = 8,
    protocols: tuple[str, ...] = (),
    points: int | None = None,
    limit: int | None = None,
    workers: int | None = None,
    out: Path | None = None,
    resume: bool = False,
    against: Path | None = None,
    time_budget: float | None = None,
    timeout: float = 3600.0,
    pictures: bool = True,
    device: Device = "auto",
    seed: int = 0,
    max_faces: int = MAX_FACES,
    as_json: Json = False,
) -> None:
    """Score a codec, or meshes from elsewhere, on a folder of meshes: rows, intervals, pictures and a page to look at.

    Args:
        data: A folder with a manifest.csv, any folder of mesh files, or one mesh.
        codec: A bundled name, a codec folder, a training run, or org/name of the Hugging Face hub.
        meshes: Instead of a codec: a folder of reconstructions with the originals' names, in any format that is read.
        label: What the --meshes are called in tables; their folder's name if left out.
        align: Of --meshes: none trusts their scale and position, box fits their boxes to the originals'.
        split: Of the manifest: train, val, test or all; test if left out.
        resolution: Voxels an axis, a multiple of 8; the codec's own if left out. For --meshes the unit of voxel distances.
        surface: How a surface is made of the decoded field, for codecs that offer it; auto if left out.
        bits: Bits a latent channel of the file that is decoded: 6, 8, 16 or 32.
        protocols: What the shapes are measured under, such as exact-v1; all if left out.
        points: How many to sample on each mesh; each protocol's own number if left out.
        limit: Only the first so many shapes of a random order that is always the same; a resume may raise it.
        workers: Processes; half of the cores if left out, 0 for none but this one.
        out: Folder of the run; runs/CODEC-DATA-RESOLUTION if left out.
        resume: Go on with the run that the folder holds; its settings must be the same.
        against: Another run's rows.parquet, to compare with shape by shape.
        time_budget: Begin no shape after so many seconds; resume later.
        timeout: Give a shape up after so many seconds.
        pictures: Leave out the pictures and 3D views of each shape.
        device: Where the network runs and distances are found.
        seed: Of the samples, the order and the intervals.
        max_faces: Refuse originals with more triangles.
    """
    from shapecodec.commands import evaluate as command

    command.run(
        data=data, codec=codec, meshes=meshes, label=label, align=align, split=split, resolution=resolution,
        surface=surface, bits=bits, protocols=protocols, points=points, limit=limit, workers=workers, out=out, resume=resume,
        against=against, time_budget=time_budget, timeout=timeout, pictures=pictures, device=device, seed=seed,
        max_faces=max_faces, as_json=as_json,
    )  # fmt: skip


def prepare(
    mesh: Positional[Path],
    output: Positional[Path],
    *,
    watertight: bool = False,
    resolution: int = 256,
    thickness: float = 2.0,
    tolerance: float = 0.0,
    points: int = 100_000,
    device: Device = "auto",
    seed: int = 0,
    max_faces: int = MAX_FACES,
    as_json: Json = False,
) -> None:
    """Rebuild a mesh as the closed, manifold surface of a solid (needs the extra 'prepare').

    Args:
        mesh: An .obj, .ply, .stl, .off, .glb, .gltf or .drc file: any triangle soup.
        output: The mesh to write (.glb .ply .obj .stl .drc), in the input's scale and position.
        watertight: The stage to run; there is no other yet.
        resolution: Voxels an axis, a multiple of 8.
        thickness: Of the walls that open sheets and thin plates become, in voxels.
        tolerance: Voxels by which the surface may move to save faces.
        points: How many to sample on each mesh for the distances that are reported.
        device: Where fields are computed.
        seed: Of the samples.
        max_faces: Refuse meshes with more triangles.
    """
    from shapecodec.commands import prepare as command

    command.run(
        mesh, output, watertight=watertight, resolution=resolution, thickness=thickness, tolerance=tolerance,
        points=points, device=device, seed=seed, max_faces=max_faces, as_json=as_json,
    )  # fmt: skip


def doctor(*, as_json: Json = False) -> None:
    """Show versions, hardware, and what each bundled codec needs: paste it into an issue."""
    from shapecodec.commands import doctor as command

    command.run(as_json=as_json)


VERBS: dict[str, Callable[..., None]] = {
    verb.__name__: verb for verb in (reconstruct, encode, decode, generate, compare, evaluate, prepare, train, doctor)
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exits with 0 when done, 1 when the input is at fault, 2 when we are."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: list[str]) -> int:
    """Run one verb; returns the exit code and raises nothing."""
    as_json = "--json" in arguments
    try:
        tyro.extras.subcommand_cli_from_dict(
            VERBS,
            prog="shapecodec",
            description="Any triangle mesh into a compact latent and back, at up to 2048^3.",
            args=arguments or ["--help"],
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except SystemExit as stop:  # tyro has printed help, or what is wrong with the flags
        if stop.code in (0, None):
            return 0
        return failed("the command line was not understood; see stderr.", "BadArgument", as_json, said=True)
    except UserError as error:
        return failed(error.args[0], type(error).__name__, as_json, error=error)
    except KeyboardInterrupt:
        return failed("interrupted.", "Interrupted", as_json)
    except MemoryError as error:
        return failed(f"out of memory ({error}). Try: a lower --resolution.", "OutOfMemory", as_json)
    except Exception as error:  # the last door: whatever went wrong inside is said, with where, and exit code 2
        if "out of memory" in str(error).lower() or "can't allocate memory" in str(error).lower():
            return failed("out of memory. Try: a lower --resolution.", "OutOfMemory", as_json)
        return fault(error, as_json)
    return 0


if __name__ == "__main__":
    main()
