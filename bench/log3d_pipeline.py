"""Mesh in memory to mesh in memory: every stage of LoG3D, its time, peak memory and share of the arithmetic limit, as JSON.

python bench/log3d_pipeline.py MESH [--codec log3d-base | paper] [--resolution 1024 2048] [--surface snapped] [--repeats 3]

`paper` is the paper's 75.8M-parameter network with fresh weights: its own time does not depend on what it has learnt, but the
surface's does (fresh weights give a sixth of the triangles), so take `extract` from a trained codec. FLOPs are the nominal 27 taps
of each output; upsampling layers execute 8, so the share of the matrix rate is that of the work asked for, not of the work done.
"""

import argparse
import json
import platform
import statistics
import time

import torch

from shapecodec.codecs import load_codec
from shapecodec.codecs.log3d import Log3D, Log3DConfig
from shapecodec.io.mesh_files import read_mesh


def matrix_rate(device):
    """Measured bf16 rate of an 8192^3 product on random data, FLOP/s (CUDA), or None."""
    if device.type != "cuda":
        return None
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = timed(lambda: a @ b, device, 10)
    return 2 * 8192**3 / seconds


def timed(function, device, repeats):
    times = []
    for _ in range(repeats + 1):
        synchronise(device)
        start = time.perf_counter()
        function()
        synchronise(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def synchronise(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def network_flops(config, tokens, pairs):
    """Multiply-adds times two that the network needs (nominal 27-tap convolutions; 13-odd pairs a token in sparse ones)."""
    w = config.width
    encoder = 1728 * 27 * w * w * 2 + 216 * 27 * 4 * w * w * 2 + 27 * 27 * 16 * w * w * 2 + 2 * 64 * w * w
    decoder = sum(
        27 * (2 * s) ** 3 * (c * c // 2 + c * c // 4) for s, c in ((1, 8 * w), (2, 4 * w), (4, 2 * w), (8, w))
    )
    c = config.channels
    block = 12 * c * c * tokens + config.convs_per_block * pairs * c * c
    return 2 * ((encoder + decoder) * tokens + 2 * config.depth * block)


@torch.inference_mode()
def stages(codec, mesh, resolution, surface):
    """One pass; seconds of each stage."""
    device, seconds = codec.device, {}

    def lap(name, function):
        synchronise(device)
        start = time.perf_counter()
        out = function()
        synchronise(device)
        seconds[name] = time.perf_counter() - start
        return out

    inputs = lap("prepare", lambda: codec.prepare(mesh, None, resolution=resolution))
    pairs = int((inputs.grid.neighbours() >= 0).sum())
    latents = lap("encode", lambda: codec.encode(inputs))
    field = lap("decode", lambda: codec.decode(latents))
    out, _ = lap("extract", lambda: field.to_surface(surface=surface))
    return seconds, len(latents.levels[0].feats), pairs, len(out.faces)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mesh")
    parser.add_argument("--codec", default="paper")
    parser.add_argument("--resolution", type=int, nargs="+", default=[1024])
    parser.add_argument("--surface", default="snapped")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    codec = Log3D(Log3DConfig()) if args.codec == "paper" else load_codec(args.codec)
    codec = codec.to(device).eval()
    mesh = read_mesh(args.mesh).normalise()[0].to(device)
    limit = matrix_rate(device)
    report = {
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine(),
        "torch": torch.__version__, "codec": args.codec, "parameters": sum(p.numel() for p in codec.parameters()),
        "mesh": args.mesh.rsplit("/", 1)[-1], "faces": len(mesh.faces), "surface": args.surface,
        "matrix_tflops": limit and limit / 1e12, "runs": [],
    }  # fmt: skip
    for resolution in args.resolution:
        stages(codec, mesh, resolution, args.surface)  # compiles kernels
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        passes = [stages(codec, mesh, resolution, args.surface) for _ in range(args.repeats)]
        seconds = {name: statistics.median(p[0][name] for p in passes) for name in passes[0][0]}
        _, tokens, pairs, triangles = passes[0]
        flops = network_flops(codec.config, tokens, pairs)
        network = seconds["encode"] + seconds["decode"]
        report["runs"].append({
            "resolution": resolution, "tokens": tokens, "triangles": triangles, "seconds": seconds,
            "total_seconds": sum(seconds.values()), "network_tflop": flops / 1e12,
            "network_tflops": flops / network / 1e12, "fraction_of_matrix_limit": limit and flops / network / limit,
            "peak_memory_gib": torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None,
        })  # fmt: skip
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
