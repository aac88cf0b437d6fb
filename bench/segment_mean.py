"""Means of runs of rows: milliseconds, bytes a second, and the fraction of a copy's, as JSON.

    python bench/segment_mean.py                    # 819,200 rows of 256 in 40,000 runs; CUDA if there is one

Bytes are those that have to move: the values read once and the means written, or the reverse for the gradient. A copy is
measured in the same run (read + write).
"""

import argparse
import json
import platform
import statistics
import time

import torch

from shapecodec.ops.segment_mean import segment_mean


def milliseconds(run, device, repeats):
    """Median time of run() after three warm-ups."""
    times = []
    for _ in range(repeats + 3):
        if device.type == "cuda":
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record()
            run()
            last.record()
            last.synchronize()
            times.append(first.elapsed_time(last))
        else:
            start = time.perf_counter()
            run()
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[3:])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rows", type=int, default=819_200)
    parser.add_argument("--runs", type=int, default=40_000)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--backends", nargs="+", default=None)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    on_gpu = device.type == "cuda"
    draw = torch.Generator().manual_seed(0)
    cuts = torch.randint(0, arguments.rows + 1, (arguments.runs - 1,), generator=draw).sort().values
    offsets = torch.cat([torch.tensor([0]), cuts, torch.tensor([arguments.rows])]).to(device)
    rows = []
    for name in arguments.dtypes:
        values = torch.randn(arguments.rows, arguments.channels, device=device, dtype=getattr(torch, name))
        values.requires_grad_()
        kept = values.detach().clone()
        copy_ms = milliseconds(lambda kept=kept, values=values: kept.copy_(values.detach()), device, arguments.repeats)
        copy_rate = 2 * kept.nbytes / copy_ms / 1e6
        for backend in arguments.backends or (["reference", "triton"] if on_gpu else ["reference"]):
            out = segment_mean(values, offsets, backend=backend)
            cotangent = torch.randn_like(out)
            moved = (values.nbytes + out.nbytes) / 1e6

            def forward(values=values, backend=backend):
                return segment_mean(values, offsets, backend=backend)

            def backward(values=values, out=out, cotangent=cotangent):
                return torch.autograd.grad(out, values, cotangent, retain_graph=True)

            forward_ms, backward_ms = (milliseconds(f, device, arguments.repeats) for f in (forward, backward))
            row = {"dtype": name, "backend": backend, "copy_gb_s": copy_rate}
            row |= {"forward_ms": forward_ms, "forward_fraction": moved / forward_ms / copy_rate}
            row |= {"backward_ms": backward_ms, "backward_fraction": moved / backward_ms / copy_rate}
            rows.append(row)
    hardware = torch.cuda.get_device_name() if on_gpu else f"{platform.processor()}, {torch.get_num_threads()} threads"
    shape = {"rows": arguments.rows, "runs": arguments.runs, "channels": arguments.channels}
    print(json.dumps({"hardware": hardware, "torch": torch.__version__, **shape, "results": rows}, indent=1))


if __name__ == "__main__":
    main()
