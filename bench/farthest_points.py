"""Farthest points: ours beside the plain torch loop and the least time of a step; as JSON.

    python bench/farthest_points.py                      # CUDA if there is one
    python bench/farthest_points.py --configurations     # every number of warps, and buckets for sizes that fit registers
    python bench/farthest_points.py --device cpu --threads 1

A pick needs the one before, so the limit is a step's latency. On CUDA it is measured in the same run as the time of a
pick on 128 points, which has nothing to do but reduce: the difference is the work on points. `rows_equal` compares all rows
with the plain loop's. On CUDA, times are those of the device (events, the launches included); on a CPU, of the wall clock.
"""

import argparse
import json
import os
import platform
import statistics
import time
from importlib.metadata import version

import torch

from shapecodec.ops.farthest_points import farthest_points
from shapecodec.ops.farthest_points.reference import farthest_points as plain_loop

SIZES = [(64, 2048, 512), (64, 2048, 32), (4, 8192, 2048), (8, 8192, 2048), (1, 16384, 2048), (1, 100_000, 4096)]
WARPS = (4, 8, 16, 32)


def cloud(items, size, device):
    """Points on ellipsoids: a surface, as the codecs sample it."""
    draw = torch.Generator().manual_seed(size)
    points = torch.nn.functional.normalize(torch.randn(items, size, 3, generator=draw), dim=2)
    return (points * torch.tensor([0.5, 0.3, 0.2])).to(device)


def seconds(run, device, repeats):
    """Median time of run() after two warm-ups."""
    times = []
    for _ in range(repeats + 2):
        if device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) * 1e-3)
        else:
            begin = time.perf_counter()
            run()
            times.append(time.perf_counter() - begin)
    return statistics.median(times[2:])


def configurations(points, start, count, want, repeats):
    """Seconds of each number of warps, with points in registers where they fit and in buckets."""
    from shapecodec.ops.farthest_points.triton import farthest_points as run

    found = {}
    for name, resident in (("registers", 16384), ("buckets", 0)):
        if name == "registers" and points.shape[1] > resident:
            continue
        for warps in WARPS:
            if name == "registers" and points.shape[1] > 64 * 32 * warps:  # most of it would spill
                continue

            def once(warps=warps, resident=resident):
                return run(points, start, count, warps=warps, resident=resident)

            taken = seconds(once, points.device, repeats)
            found[f"{name}, {warps} warps"] = {"seconds": taken, "rows_equal": bool(torch.equal(once(), want))}
    return found


def measure(args):
    device, results = torch.device(args.device), []
    torch.set_num_threads(args.threads or torch.get_num_threads())
    few = cloud(1, 128, device)
    step = seconds(lambda: farthest_points(few, 128), device, args.repeats) / 128
    for items, size, count in SIZES:
        points, start = cloud(items, size, device), torch.zeros(items, dtype=torch.int64, device=device)
        ours = seconds(lambda p=points, c=count: farthest_points(p, c), device, args.repeats)
        plain = seconds(lambda p=points, s=start, c=count: plain_loop(p, s, c), device, 1)
        want = plain_loop(points, start, count)
        result = {
            "items": items,
            "points": size,
            "count": count,
            "seconds": ours,
            "seconds_a_pick": ours / count,
            "plain_loop_seconds": plain,
            "ratio": plain / ours,
            "rows_equal": bool(torch.equal(farthest_points(points, count), want)),
        }
        if device.type == "cuda":
            result["fraction_of_reduction_limit"] = step * count / ours
        if args.configurations:
            result["configurations"] = configurations(points, start, count, want, args.repeats)
        results.append(result)
    return {
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("torch", "numba")},
        "seconds_a_pick_of_128_points": step,
        "sizes": results,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--configurations", action="store_true", help="CUDA only")
    parser.add_argument("--threads", type=int, default=0, help="of torch on a CPU; 0: its default")
    parser.add_argument("--repeats", type=int, default=5)
    print(json.dumps(measure(parser.parse_args()), indent=2))


if __name__ == "__main__":
    main()
