"""Table 3 of Focusing: training steps an hour and peak memory of its three modes, as JSON and as a table (CUDA).

python bench/focusing_table3.py --data FOLDER_OR_FILE [--resolutions 512 1024] [--steps 12] [--stages] [--output FILE]

A step is what `train` does on one shape of the data with 20,000 faces or more, with the paper's network (178.8M parameters): voxels
and points, carving, zooming, truth rendered with the zoomed camera, encoder, decoder, extraction, rendering, all losses but
LPIPS, backward, gradient norm and AdamW, in bf16 with float32 parameters. Every configuration sees the same shapes and cameras.
`--stages` measures in a second pass where the time goes, with the device waited for between stages. The rate counts the networks'
matrix products of a step (forward, and twice that backward) against a bf16 product of 8192^3 in the same run.
"""

import argparse
import gc
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from sparse_conv import matrix_limit
from torch.utils.flop_counter import FlopCounterMode

from shapecodec.codecs.focusing import FocusConfig, Focusing, FocusingConfig, WeightsConfig, supervise
from shapecodec.codecs.focusing.inputs import PointVoxels, latent_voxels
from shapecodec.codecs.focusing.look import look
from shapecodec.data.collection import MeshCollection
from shapecodec.data.view_source import ViewBatch, ViewSource, ViewSourceConfig
from shapecodec.grid import SparseGrid
from shapecodec.render.image_losses import ImageLossConfig
from shapecodec.rng import rng
from shapecodec.train.config import RunConfig
from shapecodec.train.loop import CodecLoss, make_optimizer

PAPER = {"all": (2652, 64), "carve": (5337, 50), "zoom": (8640, 32)}  # A100, steps an hour and GB
PUBLIC = {  # the same network of public parts on an H100: steps an hour and GB, blocks not checkpointed and checkpointed
    (512, "all"): (12345, 72.6), (512, "carve"): (13245, 19.8), (512, "zoom"): (22352, 36.0),
    (1024, "carve"): (4563, 62.4), (1024, "zoom"): (8316, 19.6),
}  # fmt: skip


def cases(resolution):
    """Name and focus of each row."""
    zoom = FocusConfig()
    rows = [("zoom", zoom), ("zoom, halo 12", replace(zoom, halo=12)), ("zoom, halo 4", replace(zoom, halo=4))]
    rows += [("zoom, halo 2", replace(zoom, halo=2)), ("zoom, halo 1", replace(zoom, halo=1))]
    if resolution <= 1024:
        rows += [("carve", replace(zoom, mode="carve")), ("carve, halo 2", replace(zoom, mode="carve", halo=2))]
    if resolution <= 512:
        rows += [(f"zoom, alpha to {a}", replace(zoom, alpha=(0.1, a), most=1 << 19)) for a in (0.15, 0.3, 0.6)]
        rows += [("all", replace(zoom, mode="all"))]
    return rows


def make(config, focus, resolution, *, checkpoint, points):
    weights = WeightsConfig(images=ImageLossConfig(lpips=0.0), tsdf_steps=0)
    torch.manual_seed(0)
    codec = Focusing(
        replace(config, resolution=resolution, focus=focus, weights=weights, checkpoint=checkpoint, points=points)
    ).cuda()
    torch.nn.init.normal_(codec.decoder.head.weight, std=0.3)  # at zero there is no surface to extract and render
    return codec


def batches(data, resolution, count):
    meshes = MeshCollection.from_path(data, "val", workers=8).to("cuda")
    source = ViewSource(meshes, None, ViewSourceConfig(split="val", procedural=0))
    found = []
    step = 0
    while len(found) < count:
        batch = source.batch(step, 0, 1, "cuda")
        step += 1
        if len(batch.meshes[0].faces) >= 20_000:
            found.append(ViewBatch(batch.meshes, batch.cameras, resolution))
    return found


def measure(codec, shapes, steps):
    """Median seconds of a step, its peak GiB, and the networks' operations."""
    run = RunConfig(steps=1, lr=1e-5)
    model, optimizer = CodecLoss(codec, "bf16", torch.device("cuda")), make_optimizer(codec, run)

    def step(number):
        optimizer.zero_grad(set_to_none=True)
        total, _ = model(shapes[number % len(shapes)], number, rng(0, number, device="cuda"))
        total.backward()
        torch.nn.utils.clip_grad_norm_(codec.parameters(), 1.0)
        optimizer.step()

    for number in range(len(shapes)):
        step(number)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    times = []
    for number in range(steps):
        began = time.perf_counter()
        step(number)
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() / 2**30
    with FlopCounterMode(display=False) as counter:
        model(shapes[0], 0, rng(0, 0, device="cuda"))
    return statistics.mean(times), statistics.median(times), peak, 3 * counter.get_total_flops()


class Stages:
    """Seconds between marks, the device waited for at each."""

    def __init__(self):
        self.seconds = {}
        self.last = time.perf_counter()

    def mark(self, name):
        torch.cuda.synchronize()
        now = time.perf_counter()
        if name:
            self.seconds.setdefault(name, []).append(now - self.last)
        self.last = time.perf_counter()

    def medians(self):
        return {name: round(1e3 * statistics.median(values), 2) for name, values in self.seconds.items()}


def stages(codec, shapes):
    """Milliseconds of the parts of a step, in the order of `supervise.forward` and `supervise.shape_terms`."""
    found, config = Stages(), codec.config
    for number in range(2 * len(shapes)):
        if number == len(shapes):
            found = Stages()  # the first pass warms up
        batch = shapes[number % len(shapes)]
        generator, draws = rng(0, number, device="cuda"), rng(0, number)
        mesh, camera = batch.meshes[0], batch.cameras[0]
        found.mark(None)
        grid = latent_voxels(mesh, batch.resolution, config.factor)
        found.mark("voxels")
        view = look(mesh, grid, camera, config.focus, config.depth, config.window, draws)
        found.mark("carve, zoom, render the truth")
        inputs = PointVoxels.pack([codec.points(mesh, view.encoded, generator, batch.resolution)])
        found.mark("points")
        with torch.autocast("cuda", torch.bfloat16):
            lifted = codec.encoder.lift(codec.encoder.points(inputs.points, inputs.offsets))
            found.mark("PointNet")
            feats = codec.encoder.norm(codec.encoder.transformer(lifted, inputs.grid))
            latents = codec.bottleneck(feats).sample(generator)[view.kept]
            found.mark("encoder")
            grid = SparseGrid.concatenate([view.decoded])
            feats = codec.decoder.attend(latents, grid)
            found.mark("decoder")
            refined = codec.decoder.refine(feats, grid)
            found.mark("subdivide")
        shape = supervise._one(codec, view, refined, 0)
        found.mark("corners")
        terms = supervise.shape_terms(codec, shape, number, generator)
        found.mark("extraction, rendering, losses")
        torch.stack(list(terms.values())).sum().backward()
        found.mark("backward")
    return found.medians() | {"latent voxels": len(view.decoded), "encoded": len(view.encoded), "of": view.total}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--resolutions", type=int, nargs="*", default=[512, 1024])
    parser.add_argument("--cases", nargs="*", help="names of rows; all by default")
    parser.add_argument("--shapes", type=int, default=6)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--points", type=int, default=819_200)
    parser.add_argument("--checkpoint", action="store_true", help="recompute transformer blocks")
    parser.add_argument("--small", action="store_true", help="a tenth of the network, to try the script")
    parser.add_argument("--stages", action="store_true")
    parser.add_argument("--output")
    options = parser.parse_args()
    config = FocusingConfig()
    if options.small:
        config = replace(config, channels=256, heads=8, depth=4, up_channels=(96, 48), point_channels=128)
    limit = matrix_limit(torch.device("cuda"), torch.bfloat16, 20) * 1e12
    results = {
        "device": torch.cuda.get_device_name(),
        "matrix_tflops": limit / 1e12,
        "torch": torch.__version__,
        "rows": [],
    }
    for resolution in options.resolutions:
        shapes = batches(options.data, resolution, options.shapes)
        for name, focus in cases(resolution):
            if options.cases and name not in options.cases:
                continue
            row = {"resolution": resolution, "case": name}
            try:
                codec = make(config, focus, resolution, checkpoint=options.checkpoint, points=options.points)
                mean, median, peak, operations = measure(codec, shapes, options.steps)
                row |= {"s_step": mean, "s_median": median, "steps_h": 3600 / mean, "peak_gib": peak}
                row |= {"matrix_share": operations / median / limit}
                row |= {
                    "paper": PAPER.get(name) if resolution == 512 else None,
                    "public": PUBLIC.get((resolution, name)),
                }
                if options.stages:
                    row["stages_ms"] = stages(codec, shapes)
            except torch.OutOfMemoryError:
                row["error"] = "out of memory"
            codec = None
            gc.collect()
            torch.cuda.empty_cache()
            results["rows"].append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
    text = json.dumps(results, indent=1)
    print(text)
    if options.output:
        Path(options.output).write_text(text + "\n")


if __name__ == "__main__":
    main()
