"""Subdivision with 3^3 convolution: milliseconds and TFLOP/s, forward and backward, beside copying and convolving; as JSON.

    python bench/subdivide_conv.py                  # 16,000 voxels 768 -> 192 and their children 192 -> 96; CUDA if there is one
    python bench/subdivide_conv.py --sizes 8000 --backends triton

`tflops` counts the products done, 2 * 64 * C * C' a parent forward and twice that backward, absent parents included, and
the fraction is of the square matrix product measured in the same run. `useful_tflops` counts what a convolution of the
copies would do, 2 * pairs * C * C': what libraries that convolve report. The row named `copies` is such a one: copy, then
`sparse_conv` (Triton) on the children.
"""

import argparse
import json
import platform

import torch
from sparse_conv import gradient_ms, matrix_limit, milliseconds, refined, shell

from shapecodec.ops.sparse_conv import conv_plan, sparse_conv
from shapecodec.ops.subdivide_conv import subdivide_conv


def measure(base, levels, channels, out_channels, backend, arguments, dtype, limit):
    """One row of the table; the peak is of memory above the inputs, forward and backward."""
    device = base.device
    grid = refined(base, levels)
    children = grid.children()
    plan = conv_plan(children)
    feats = torch.randn(len(grid), channels, device=device, dtype=dtype, requires_grad=True)
    weight = torch.randn(27, channels, out_channels, device=device) * (13 * channels) ** -0.5
    weight = weight.to(dtype).requires_grad_()
    bias = torch.zeros(out_channels, device=device, requires_grad=True)

    def forward(feats, weight, bias):
        if backend == "copies":
            return sparse_conv(feats.repeat_interleave(8, 0), weight, bias, plan)
        return subdivide_conv(feats, weight, bias, grid, backend)

    inputs = (feats, weight, bias)
    forward_ms = milliseconds(lambda: forward(*inputs), device, arguments.repeats)
    backward_ms = gradient_ms(forward, inputs, device, arguments.repeats)
    pairs = int((children.neighbours() >= 0).sum())
    done = 2 * 64 * len(grid) * channels * out_channels / 1e9
    useful = 2 * pairs * channels * out_channels / 1e9
    row = {"parents": len(grid), "channels": channels, "out_channels": out_channels, "backend": backend}
    row |= {"forward_ms": forward_ms, "backward_ms": backward_ms}
    row["feats_gradient_ms"] = gradient_ms(forward, (feats, weight.detach(), None), device, arguments.repeats)
    row["weight_gradient_ms"] = gradient_ms(forward, (feats.detach(), weight, None), device, arguments.repeats)
    row["useful_tflops"] = [useful / forward_ms, 2 * useful / backward_ms]
    if backend != "copies":
        row["tflops"] = [done / forward_ms, 2 * done / backward_ms]
        row["fraction"] = [rate / limit for rate in row["tflops"]]
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        forward(*inputs).sum().backward()
        row["peak_mib"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default=None, help="bfloat16, float16 or float32")
    parser.add_argument("--sizes", type=int, nargs="+", default=None, help="voxels before any subdivision")
    parser.add_argument("--backends", nargs="+", default=None, help="triton, folded, reference, copies")
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    dtype = getattr(torch, arguments.dtype or ("bfloat16" if on_gpu else "float32"))
    backends = arguments.backends or (["triton", "copies"] if on_gpu else ["folded", "reference"])
    limit = matrix_limit(device, dtype, arguments.repeats)
    rows = []
    for size in arguments.sizes or [16_000 if on_gpu else 600]:
        base = shell(size, device)
        for levels, channels, out_channels in ((0, 768, 192), (1, 192, 96)):
            for backend in backends:
                rows.append(measure(base, levels, channels, out_channels, backend, arguments, dtype, limit))
    hardware = torch.cuda.get_device_name() if on_gpu else f"{platform.processor()}, {torch.get_num_threads()} threads"
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    report = {"hardware": hardware, "versions": versions, "dtype": str(dtype), "matrix_tflops": limit, "rows": rows}
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
