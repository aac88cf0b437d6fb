"""Submanifold 3^3 convolution on a voxel shell: milliseconds and useful TFLOP/s, forward and backward, as JSON.

    python bench/sparse_conv.py                     # bf16 on CUDA, float32 on the CPU
    python bench/sparse_conv.py --sizes 60000 --channels 256x256 --backend triton
    python bench/sparse_conv.py --bricks            # shells refined once and twice: whole 2^3 and 4^3 bricks
    python bench/sparse_conv.py --sweep             # candidates for tiles and stages, 96x96; with --bricks on 4^3 bricks

TFLOP/s count 2 * pairs * C * C' forward and twice that backward (gradients of feats and weight): products with absent
neighbours are not counted. The fraction is of the square matrix product measured in the same run. `neighbours_ms` and
`plan_ms` are paid once a grid, not once a layer; of bricks `plan_ms` is all, from the unrefined grid with its neighbours on.
"""

import argparse
import json
import platform
import statistics
import time
from contextlib import contextmanager

import torch

from shapecodec.grid import SparseGrid
from shapecodec.ops.neighbour_table import neighbour_table
from shapecodec.ops.sparse_conv import BrickPlan, conv_plan, sparse_conv

# Constants to try of `sparse_conv.triton` on shells and of `sparse_conv.triton_bricks`; `depth_of` and `split` are functions
# made to answer so: see `patched`.
SHELL_SWEEP = [
    {},
    {"FEW_COLUMNS": 0},
    {"FEW_COLUMNS": 0, "SHALLOW_STAGES": 5},
    {"SHALLOW_STAGES": 5},
    {"SHALLOW_STAGES": 9},
    {"depth_of": 64},
    {"FEW_COLUMNS": 0, "depth_of": 64},
    {"split": (128, 0)},
    {"PROGRAMS": 528},
    {"PROGRAMS": 2112},
]
BRICK_SWEEP = [
    {},
    {"SHALLOW_STAGES": 5},
    {"SHALLOW_STAGES": 9},
    {"split": (128, 0)},
    {"depth_of": 64, "STAGES": 5},
    {"depth_of": 64, "STAGES": 7},
    {"MANY_ROWS": 128, "WARPS": 4, "SHALLOW_STAGES": 5},
    {"MANY_ROWS": 128, "WARPS": 4, "SHALLOW_STAGES": 7},
    {"MANY_ROWS": 128, "WARPS": 4, "depth_of": 64, "STAGES": 5},
    {"MANY_ROWS": 128, "WARPS": 4, "SHALLOW_STAGES": 1},
    {"MANY_ROWS": 128, "WARPS": 8},
    {"GRADIENT_STAGES": 5},
    {"GRADIENT_STAGES": 9},
    {"GRADIENT_DEPTH": 64, "GRADIENT_STAGES": 5},
    {"GRADIENT_ROWS": 64, "GRADIENT_WARPS": 4},
    {"GRADIENT_ROWS": 64, "GRADIENT_DEPTH": 64, "GRADIENT_STAGES": 5},
    {"GRADIENT_COLUMNS": 64},
    {"PROGRAMS": 396},
    {"PROGRAMS": 1188},
]


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


def gradient_ms(forward, inputs, device, repeats):
    """Median time of the gradients of those inputs that require them."""
    out = forward(*inputs)
    cotangent = torch.randn_like(out)
    wanted = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
    return milliseconds(lambda: torch.autograd.grad(out, wanted, cotangent, retain_graph=True), device, repeats)


def matrix_limit(device, dtype, repeats):
    """TFLOP/s of a square matrix product."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / milliseconds(lambda: a @ b, device, repeats) / 1e9


def refined(base, levels):
    """New grids of children, `levels` times over, whose only known table is that of `base`."""
    grid = fresh(base)
    grid.cached("neighbours", base.neighbours)
    for _ in range(levels):
        grid = grid.children()
    return grid


def measure(base, levels, channels, out_channels, arguments, dtype, limit):
    """One row of the table."""
    device = base.device
    grid = refined(base, levels)
    plan = conv_plan(grid)
    feats = torch.randn(len(grid), channels, device=device, dtype=dtype, requires_grad=True)
    weight = torch.randn(27, channels, out_channels, device=device) * (13 * channels) ** -0.5
    weight = weight.to(dtype).requires_grad_()
    bias = torch.zeros(out_channels, device=device, requires_grad=True)

    def forward(feats, weight, bias):
        return sparse_conv(feats, weight, bias, plan, arguments.backend)

    pairs = int((grid.neighbours() >= 0).sum())
    useful = 2 * pairs * channels * out_channels / 1e9
    forward_ms = milliseconds(lambda: forward(feats, weight, bias), device, arguments.repeats)
    backward_ms = gradient_ms(forward, (feats, weight, bias), device, arguments.repeats)
    rates = [useful / forward_ms, 2 * useful / backward_ms]
    row = {"voxels": len(grid), "bricks": 2**levels, "pairs_a_voxel": round(pairs / len(grid), 2)}
    row |= {"channels": channels, "out_channels": out_channels}
    if levels == 0:
        row["taps_a_tile"] = round(float(plan.tiles.counts.float().mean()), 2)
        row["neighbours_ms"] = milliseconds(lambda: neighbour_table(fresh(base)), device, 5)
    return row | {
        "plan_ms": milliseconds(lambda: touch(conv_plan(refined(base, levels))), device, 5),
        "forward_ms": forward_ms,
        "backward_ms": backward_ms,
        "feats_gradient_ms": gradient_ms(forward, (feats, weight.detach(), None), device, arguments.repeats),
        "weight_gradient_ms": gradient_ms(forward, (feats.detach(), weight, None), device, arguments.repeats),
        "forward_tflops": rates[0],
        "backward_tflops": rates[1],
        "forward_fraction": rates[0] / limit,
        "backward_fraction": rates[1] / limit,
    }


def fresh(grid):
    """The same grid without its cached plans."""
    return SparseGrid(grid.coords, grid.offsets, grid.resolution)


def touch(plan):
    """Builds every part of a plan that the Triton kernels read."""
    return plan.above if isinstance(plan, BrickPlan) else (plan.pairs, plan.tall_tiles)


@contextmanager
def patched(module, changes):
    """The kernels with other constants; values stand for functions that always answer so."""
    kept = {name: getattr(module, name) for name in changes}
    for name, value in changes.items():
        setattr(module, name, (lambda *_, value=value: value) if name.islower() else value)
    yield
    for name, value in kept.items():
        setattr(module, name, value)


def sweep(base, arguments, dtype, limit):
    """Rows of the candidates at one shape; one that fails (too much shared memory) says so in its row."""
    from shapecodec.ops.sparse_conv import triton, triton_bricks

    module, candidates = (triton_bricks, BRICK_SWEEP) if arguments.bricks else (triton, SHELL_SWEEP)
    channels, out_channels = map(int, (arguments.channels or ["96x96"])[0].split("x"))
    rows = []
    for changes in candidates:
        with patched(module, changes):
            try:
                row = measure(base, 2 if arguments.bricks else 0, channels, out_channels, arguments, dtype, limit)
            except Exception as error:
                row = {"error": f"{type(error).__name__}: {error}"[:200]}
        rows.append({"constants": changes} | row)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--dtype", default=None, help="bfloat16, float16 or float32")
    parser.add_argument("--sizes", type=int, nargs="+", default=None, help="voxels")
    parser.add_argument("--channels", nargs="+", default=None, help="such as 256x256")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--bricks", action="store_true", help="whole 2^3 and 4^3 bricks; sizes are those before")
    parser.add_argument(
        "--sweep", action="store_true", help="candidates for the kernels' constants, at the first of --channels"
    )
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    dtype = getattr(torch, arguments.dtype or ("bfloat16" if on_gpu else "float32"))
    if arguments.bricks:
        sizes = arguments.sizes or [16_000 if on_gpu else 300]
        shapes = {1: ["192x192", "768x192"], 2: ["96x96", "192x96"]} if on_gpu else {1: ["32x32"]}
        shapes = {level: arguments.channels or shapes[level] for level in shapes}
    else:
        sizes = arguments.sizes or ([60_000, 131_000, 340_000, 1_050_000] if on_gpu else [4_000])
        shapes = {0: arguments.channels or (["256x256", "192x192", "96x96", "768x192"] if on_gpu else ["128x128"])}
    limit = matrix_limit(device, dtype, arguments.repeats)
    rows = []
    for size in sizes:
        base = shell(size, device)
        if arguments.sweep:
            rows += sweep(base, arguments, dtype, limit)
            continue
        for level, pairs in shapes.items():
            for shape in pairs:
                channels, out_channels = map(int, shape.split("x"))
                rows.append(measure(base, level, channels, out_channels, arguments, dtype, limit))
    hardware = torch.cuda.get_device_name() if on_gpu else f"{platform.processor()}, {torch.get_num_threads()} threads"
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    report = {"hardware": hardware, "versions": versions, "dtype": str(dtype), "matrix_tflops": limit, "rows": rows}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
