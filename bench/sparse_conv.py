"""Submanifold 3^3 convolution on a voxel shell: milliseconds and useful TFLOP/s, forward and backward, as JSON.

    python bench/sparse_conv.py                     # bf16 on CUDA, float32 on the CPU
    python bench/sparse_conv.py --sizes 60000 --channels 256x256 --backend triton

TFLOP/s count 2 * pairs * C * C' forward and twice that backward (gradients of feats and weight): products with absent
neighbours are not counted. The fraction is of the square matrix product measured in the same run.
"""

import argparse
import json
import platform
import statistics
import time

import torch

from shapecodec.grid import SparseGrid
from shapecodec.ops.sparse_conv import ConvPlan, sparse_conv


def shell(count, device):
    """A grid of about `count` voxels: those that a sphere passes through, 13 pairs a voxel."""
    radius = (count / 18.8) ** 0.5  # 6 pi radius^2 voxels
    resolution = 2 * int(radius + 3)
    axis = torch.arange(resolution, device=device) + 0.5 - resolution / 2
    kept = []
    for x in range(resolution):
        place = torch.cartesian_prod(axis[x : x + 1], axis, axis)
        length = place.norm(dim=1)
        touched = (length - radius).abs() < 0.5 * place.abs().sum(1) / length
        kept.append((place[touched] + resolution / 2).floor().to(torch.int32))
    return SparseGrid.build(torch.cat(kept), resolution)[0]


def milliseconds(run, device, repeats):
    """Median time of run(), after warm-ups."""
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        if device.type == "cuda":
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            run()
            last.record()
            torch.cuda.synchronize()
            times.append(first.elapsed_time(last))
        else:
            start = time.perf_counter()
            run()
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times)


def matrix_limit(device, dtype, repeats):
    """TFLOP/s of a square matrix product."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / milliseconds(lambda: a @ b, device, repeats) / 1e9


def measure(grid, channels, out_channels, arguments, dtype, limit):
    """One row of the table."""
    device = grid.device
    plan = ConvPlan(grid.neighbours())
    feats = torch.randn(len(grid), channels, device=device, dtype=dtype, requires_grad=True)
    weight = torch.randn(27, channels, out_channels, device=device) * (13 * channels) ** -0.5
    weight = weight.to(dtype).requires_grad_()
    bias = torch.zeros(out_channels, device=device, requires_grad=True)

    def forward():
        return sparse_conv(feats, weight, bias, plan, arguments.backend)

    out = forward()
    cotangent = torch.randn_like(out)

    def backward():
        torch.autograd.grad(out, (feats, weight, bias), cotangent, retain_graph=True)

    pairs = int((plan.neighbours >= 0).sum())
    useful = 2 * pairs * channels * out_channels / 1e9
    forward_ms, backward_ms = (milliseconds(f, device, arguments.repeats) for f in (forward, backward))
    rates = [useful / forward_ms, 2 * useful / backward_ms]
    return {
        "voxels": len(grid),
        "pairs_a_voxel": round(pairs / len(grid), 2),
        "taps_a_tile": round(float(plan.tiles.counts.float().mean()), 2),
        "channels": channels,
        "out_channels": out_channels,
        "neighbours_ms": milliseconds(lambda: fresh(grid).neighbours(), device, 5),
        "plan_ms": milliseconds(lambda: touch(ConvPlan(grid.neighbours())), device, 5),
        "forward_ms": forward_ms,
        "backward_ms": backward_ms,
        "forward_tflops": rates[0],
        "backward_tflops": rates[1],
        "forward_fraction": rates[0] / limit,
        "backward_fraction": rates[1] / limit,
    }


def fresh(grid):
    """The same grid without its cached plans."""
    return SparseGrid(grid.coords, grid.offsets, grid.resolution)


def touch(plan):
    """Builds every part of a plan."""
    return plan.pairs, plan.tiles


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--dtype", default=None, help="bfloat16, float16 or float32")
    parser.add_argument("--sizes", type=int, nargs="+", default=None, help="voxels")
    parser.add_argument("--channels", nargs="+", default=None, help="such as 256x256")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    dtype = getattr(torch, arguments.dtype or ("bfloat16" if on_gpu else "float32"))
    sizes = arguments.sizes or ([60_000, 131_000, 340_000, 1_050_000] if on_gpu else [4_000])
    shapes = arguments.channels or (["256x256", "192x192", "96x96", "768x192"] if on_gpu else ["128x128"])
    limit = matrix_limit(device, dtype, arguments.repeats)
    rows = []
    for size in sizes:
        grid = shell(size, device)
        for shape in shapes:
            channels, out_channels = map(int, shape.split("x"))
            rows.append(measure(grid, channels, out_channels, arguments, dtype, limit))
    hardware = torch.cuda.get_device_name() if on_gpu else f"{platform.processor()}, {torch.get_num_threads()} threads"
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    report = {"hardware": hardware, "versions": versions, "dtype": str(dtype), "matrix_tflops": limit, "rows": rows}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
