"""Shifted-window attention on a shell of blocks: milliseconds and useful TFLOP/s, forward and backward, as JSON.

    python bench/window_attention.py                # bf16 on CUDA, float32 on the CPU
    python bench/window_attention.py --sizes 60000 --backends triton fused segment

TFLOP/s count 4 * sum of squared window lengths * channels forward and 2.5 times that backward, as FlashAttention does.
"""

import argparse
import json
import platform

import torch
from sparse_conv import matrix_limit, milliseconds, shell

from shapecodec.ops.window_attention import window_attention


def measure(grid, heads, width, backend, arguments, dtype, limit):
    """One row of the table, averaged over plain and shifted windows."""
    device = grid.device
    qkv = torch.randn(len(grid), 3, heads, width, device=device, dtype=dtype, requires_grad=True)
    q, k, v = qkv.unbind(1)  # as the layer hands them over: strided views
    plans = [grid.windows(arguments.window, shift) for shift in (0, arguments.window // 2)]
    forward_ms = backward_ms = useful = 0.0
    for plan in plans:
        out = window_attention(q, k, v, plan, backend)
        cotangent = torch.randn_like(out)

        def forward(plan=plan):
            return window_attention(q, k, v, plan, backend)

        def backward(out=out, cotangent=cotangent):
            torch.autograd.grad(out, (q, k, v), cotangent, retain_graph=True)

        forward_ms += milliseconds(forward, device, arguments.repeats) / len(plans)
        backward_ms += milliseconds(backward, device, arguments.repeats) / len(plans)
        useful += 4 * float(plan.offsets.diff().double().square().sum()) * heads * width / 1e9 / len(plans)
    rates = [useful / forward_ms, 2.5 * useful / backward_ms]
    return {
        "backend": backend,
        "tokens": len(grid),
        "windows": len(plans[0].offsets) - 1,
        "mean_tokens_a_window": round(len(grid) / (len(plans[0].offsets) - 1), 1),
        "longest": plans[0].longest,
        "heads": heads,
        "head_channels": width,
        "forward_ms": forward_ms,
        "backward_ms": backward_ms,
        "forward_tflops": rates[0],
        "backward_tflops": rates[1],
        "forward_fraction": rates[0] / limit,
        "backward_fraction": rates[1] / limit,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backends", nargs="+", default=None)
    parser.add_argument("--dtype", default=None, help="bfloat16, float16 or float32")
    parser.add_argument("--sizes", type=int, nargs="+", default=None, help="tokens")
    parser.add_argument("--heads", nargs="+", default=["8x32", "12x64"], help="heads x channels a head")
    parser.add_argument("--window", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    dtype = getattr(torch, arguments.dtype or ("bfloat16" if on_gpu else "float32"))
    sizes = arguments.sizes or ([60_000, 100_000, 300_000] if on_gpu else [4_000])
    backends = arguments.backends or (BACKENDS_ON_GPU if on_gpu else ["segment"])
    limit = matrix_limit(device, dtype, arguments.repeats)
    rows = []
    for size in sizes:
        grid = shell(size, device)
        for shape in arguments.heads:
            heads, width = map(int, shape.split("x"))
            rows += [measure(grid, heads, width, backend, arguments, dtype, limit) for backend in backends]
    hardware = torch.cuda.get_device_name() if on_gpu else f"{platform.processor()}, {torch.get_num_threads()} threads"
    versions = {"torch": torch.__version__, "python": platform.python_version()}
    report = {"hardware": hardware, "versions": versions, "dtype": str(dtype), "matrix_tflops": limit, "rows": rows}
    print(json.dumps(report, indent=1))


BACKENDS_ON_GPU = ["triton", "fused", "segment"]

if __name__ == "__main__":
    main()
