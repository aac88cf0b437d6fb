"""How fast generators are: denoisers against the matrix limit, sampling and decoding, training; as JSON.

    python bench/generate.py                                   # everything at the paper's sizes, on the GPU if there is one
    python bench/generate.py --generator runs/cascade --only cascade
    python bench/generate.py --device cpu --batch 1 --channels 64 --depth 1 --steps 2 --shapes 1 --train-steps 2 --no-compile

`denoiser`: one forward pass of each level's network under bf16 autocast (fp32 on a CPU), its products counted by torch's flop
counter, as a share of what a plain square matrix product reaches on the same device. `cascade`: all levels with so many Heun steps,
of networks with random weights at the paper's sizes, whose time does not depend on the weights; with --generator also a trained one
with its codec, decoded to meshes, each of which counts. `training`: the ordinary loop on latents that are random points of the
codec's sphere, with and without compilation.
"""

import argparse
import json
import os
import platform
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from shapecodec.commands.generate import open_decoder
from shapecodec.data.latent_cache import LatentCache, LatentSource
from shapecodec.errors import BadMesh
from shapecodec.generate.cascade import Cascade, CascadeConfig, standardise
from shapecodec.generate.pipeline import shape_of
from shapecodec.generate.registry import load_generator
from shapecodec.recipes import find_recipe
from shapecodec.train.loop import train

SHAPENET = {"tokens": (32, 128, 512), "latent": (32, 16, 8)}
OBJAVERSE = {"tokens": (128, 512, 2048), "latent": (64, 32, 16)}


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work, device, least=0.5):
    """Median of repeated calls after two that warm up."""
    for _ in range(2):
        work()
    times, began = [], time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < least:
        wait(device)
        start = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def matrix_limit(device):
    """FLOP/s of a square product in the networks' dtype."""
    size, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / seconds(lambda: a @ b, device)


def awake(cascade):
    """Random weights instead of the zeros that networks begin with."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in cascade.parameters():
            parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return cascade.eval()


def made(args, device, levels, **options):
    sizes = {"channels": (args.channels,) * 3, "depth": (args.depth,) * 3, "classes": tuple(map(str, range(55)))}
    return awake(Cascade(CascadeConfig(codec_hash="bench", **levels, **sizes, **options)).to(device))


@torch.inference_mode()
def denoisers(args, device, levels, limit):
    """Each level's network, as it is and compiled."""
    cascade, rows = made(args, device, levels), []
    for index, stage in enumerate(cascade.stages):
        size = [(args.batch, m, z) for m, z in zip(levels["tokens"], levels["latent"], strict=True)]
        x, *coarser = (torch.randn(s, device=device) for s in (size[index], *size[:index]))
        label, classes = (
            torch.zeros(args.batch, device=device),
            torch.zeros(args.batch, dtype=torch.long, device=device),
        )

        def forward(stage=stage, x=x, label=label, classes=classes, coarser=coarser):
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                return stage(x, label, classes, coarser, label)

        with FlopCounterMode(display=False) as counter:
            forward()
        flops = counter.get_total_flops()
        row = {"tokens": size[index][1], "batch": args.batch, "gigaflops": flops / 1e9}
        row["parameters"] = sum(p.numel() for p in stage.parameters())
        for name in ("plain", "compiled") if args.compile else ("plain",):
            if name == "compiled":
                for part in cascade.compiled_parts():
                    part.compile(dynamic=False)
            spent = seconds(forward, device)
            row[name] = {"ms": 1e3 * spent, "of_matrix_limit": flops / spent / limit}
        for part in cascade.compiled_parts():
            part._compiled_call_impl = None
        rows.append(row)
    return rows


def cascade(args, device):
    """Sampling at the paper's sizes; with a trained generator also meshes."""
    model = made(args, device, SHAPENET)
    spent = seconds(lambda: model.sample(args.shapes, steps=args.steps), device, least=0)
    result = {"steps": args.steps, "shapes": args.shapes, "paper_seconds_a_shape": spent / args.shapes}
    if args.generator is None:
        return result
    trained = load_generator(args.generator, device)
    codec = open_decoder(trained, args.codec, str(device))
    spent = seconds(lambda: trained.sample(args.shapes, steps=args.steps), device, least=0)
    latents, faces = trained.sample(args.shapes, steps=args.steps), []

    def decode():
        faces.clear()
        for index in range(args.shapes):
            try:
                faces.append(len(codec.decode(shape_of(latents, index)).to_mesh(args.resolution).faces))
            except BadMesh:
                faces.append(0)

    with torch.inference_mode():
        decoded = seconds(decode, device, least=0)
    result |= {"generator": trained.name, "sample_seconds_a_shape": spent / args.shapes}
    return result | {"resolution": args.resolution, "decode_seconds_a_shape": decoded / args.shapes, "faces": faces}


def training(args, device):
    """Steps a second of the recipe for minutes, and of the paper's network."""
    rows = []
    small = find_recipe("cascade-small")
    paper = replace(
        find_recipe("cascade-shapenet"), source=replace(find_recipe("cascade-shapenet").source, shapes=(64,) * 3)
    )
    recipes = {"cascade-small": small, "cascade-shapenet": paper}
    if device.type == "cpu":  # the others take minutes a step there
        recipes = {"cascade-overfit": find_recipe("cascade-overfit")}
    for name, recipe in recipes.items():
        for compiled in (False, True) if args.compile else (False,):
            rows.append({"recipe": name, **trained_rate(args, device, recipe, compiled)})
    return rows


def trained_rate(args, device, recipe, compiled):
    torch.manual_seed(0)
    sizes = zip(SHAPENET["tokens"], SHAPENET["latent"], strict=True)
    latents = tuple(standardise(torch.randn(64, 1, m, z, device=device)).half() for m, z in sizes)
    cache = LatentCache(latents, torch.arange(64, device=device) % 3, ("a", "b", "c"), tuple(map(str, range(64))), 0)
    model = Cascade(replace(recipe.codec, codec_hash="bench", classes=cache.classes, **SHAPENET))
    run = replace(
        recipe.run, steps=args.train_steps, time_budget_s=None, warmup_steps=0, compile=compiled,
        cuda_graphs=compiled and device.type == "cuda", log_every=max(args.train_steps // 4, 1), checkpoint_every_s=None,
    )  # fmt: skip
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with tempfile.TemporaryDirectory() as folder:
        train(model, LatentSource(cache, recipe.source), run, Path(folder) / "run", device=device.type)
        lines = [json.loads(line) for line in (Path(folder) / "run" / "log.jsonl").read_text().splitlines()]
    last = lines[-1]  # the first lines hold compilation
    row = {"compile": compiled, "shapes": recipe.source.shapes, "steps_per_second": last["steps_per_second"]}
    row |= {"tokens_per_second": last["tokens_per_second"], "parameters": sum(p.numel() for p in model.parameters())}
    return row | {"peak_memory_bytes": last.get("peak_memory_bytes"), "first_line_seconds": lines[0]["seconds"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--generator", help="a trained one, for the time to meshes")
    parser.add_argument("--codec", help="of the generator")
    parser.add_argument("--only", choices=["denoiser", "cascade", "training"])
    parser.add_argument("--batch", type=int, default=64, help="of the denoisers")
    parser.add_argument("--shapes", type=int, default=8, help="of the cascade")
    parser.add_argument("--channels", type=int, default=768)
    parser.add_argument("--depth", type=int, default=12)
    parser.add_argument("--steps", type=int, default=18)
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--train-steps", type=int, default=80)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    limit = matrix_limit(device)
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    result = {
        "hardware": hardware,
        "torch": torch.__version__,
        "load": os.getloadavg()[0],
        "matrix_teraflops": limit / 1e12,
    }
    if args.only in (None, "denoiser"):
        result["denoiser"] = {"shapenet": denoisers(args, device, SHAPENET, limit)}
        if device.type == "cuda":
            result["denoiser"]["objaverse"] = denoisers(args, device, OBJAVERSE, limit)
    if args.only in (None, "cascade"):
        result["cascade"] = cascade(args, device)
    if args.only in (None, "training"):
        result["training"] = training(args, device)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
