"""Winding numbers: seconds, error, and libigl on the same queries in the same run; as JSON.

    python bench/winding_number.py                       # 1M points, a ball of 100k faces with and without its cap
    python bench/winding_number.py --mesh bike.obj --points 200000
    python bench/winding_number.py --backend triton --points 40000 --faces 10000 --no-peers

Queries: half within about 1% of the surface, half uniform in the unit cube. Everything is in every time: trees, records,
the check of the arguments. Each time is the best of --repeats after a warm-up that compiles; `process_seconds` sums over
threads, which a loaded machine disturbs less. libigl's fast winding numbers (Barill et al. 2018) and its exact ones see
the same points, the exact ones --exact of them, extrapolated. Errors are against the float64 reference on --exact points.

The limit of the triton path is arithmetic: OPERATIONS float32 operations a pair, at the rate of a float32 matrix product
measured in the same run (which does two a lane and cycle), and four square roots and divisions at a sixteenth of that.
"""

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from shapecodec.io.mesh_files import read_mesh
from shapecodec.mesh import Mesh
from shapecodec.ops.winding_number import winding_number
from shapecodec.ops.winding_number.boundary import boundary_chain
from shapecodec.rng import rng

OPERATIONS = (
    53  # FFMA, FMUL and FADD a pair in the code for sm_90 (1,288 instructions for 16 pairs); 4 roots and divisions
)


def ball(faces, cap):
    """A sphere of about `faces` faces, without the top eighth of its rows if `cap` is missing."""
    across = max(round((faces / 4) ** 0.5), 2)
    theta, phi = np.meshgrid(np.linspace(0, np.pi, across + 1), np.arange(2 * across) * (np.pi / across), indexing="ij")
    vertices = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], -1)
    vertices[0], vertices[-1] = vertices[0, 0], vertices[-1, 0]
    i, j = np.meshgrid(np.arange(0 if cap else across // 8, across), np.arange(2 * across), indexing="ij")
    a, b = i * 2 * across + j, i * 2 * across + (j + 1) % (2 * across)
    corners = np.stack([a, a + 2 * across, b, b, a + 2 * across, b + 2 * across], -1).reshape(-1, 3)
    return Mesh.from_arrays(vertices.reshape(-1, 3), corners, "ball" if cap else "ball without its cap")


def best(run, device, repeats):
    """(result, {wall, process}) of the fastest of `repeats` calls after one warm-up."""
    result, times = run(), []
    for _ in range(repeats):
        wait(device)
        wall, process = time.perf_counter(), time.process_time()
        result = run()
        wait(device)
        times.append((time.perf_counter() - wall, time.process_time() - process))
    wall, process = min(times)
    return result, {"seconds": round(wall, 5), "process_seconds": round(process, 5)}


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def limit(pairs, repeats):
    """Seconds that the arithmetic of `pairs` would take at the measured rate of the card."""
    torch.backends.cuda.matmul.allow_tf32 = False
    a, b = torch.randn(2, 8192, 8192, device="cuda")
    rate = 2 * 8192**3 / best(lambda: a @ b, "cuda", repeats)[1]["seconds"]
    lanes = rate / 2
    return {
        "tflops_float32": rate / 1e12,
        "arithmetic_seconds": pairs * OPERATIONS / lanes,
        "roots_and_divisions_seconds": pairs * 4 * 8 / lanes,
    }


def peers(points, vertices, faces, exact):
    """libigl's two functions."""
    import igl

    places, corners = points.numpy().astype(np.float64), vertices.numpy().astype(np.float64)
    fast, times = best(lambda: igl.fast_winding_number(corners, faces.numpy(), places), "cpu", 1)
    _, brute = best(lambda: igl.winding_number(corners, faces.numpy(), places[:exact]), "cpu", 1)
    share = len(points) / exact
    return torch.from_numpy(fast).float(), {
        "version": version("libigl"),
        "fast": times,
        "exact_extrapolated": {key: round(spent * share, 2) for key, spent in brute.items()},
    }


def bench(mesh, options):
    device = "cuda" if options.backend == "triton" else "cpu"
    generator = rng(0, purpose="bench queries")
    near = mesh.sample(options.points // 2, generator)[0]
    near += 0.01 * torch.randn(near.shape, generator=generator)
    spread = torch.rand(options.points - len(near), 3, generator=generator) - 0.5
    points = torch.cat([near, spread])[torch.randperm(options.points, generator=generator)]
    arrays = [tensor.to(device) for tensor in (points, mesh.vertices, mesh.faces)]
    found, times = best(lambda: winding_number(*arrays, backend=options.backend), device, options.repeats)
    found, pairs = found.cpu(), len(points) * len(mesh.faces)
    exact = winding_number(points[: options.exact], mesh.vertices, mesh.faces, backend="reference")
    report = {
        "faces": len(mesh.faces),
        "points": len(points),
        "boundary_edges": len(boundary_chain(*mesh.numpy())[1]),
        "ours": {**times, "pairs_per_second": pairs / times["seconds"]},
        "largest_error": float((found[: options.exact] - exact).abs().max()),
    }
    if device == "cuda":
        report["limit"] = limit(pairs, options.repeats)
    if options.peers:
        fast, report["libigl"] = peers(points, mesh.vertices, mesh.faces, options.exact)
        report["libigl"]["fast_times_ours"] = round(report["libigl"]["fast"]["seconds"] / times["seconds"], 2)
        report["libigl"]["fast_largest_error"] = float((fast[: options.exact] - exact).abs().max())
        report["libigl"]["fast_labels_differ"] = int(((fast.abs() > 0.5) != (found.abs() > 0.5)).sum())
    return report


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", type=Path, nargs="*", help="mesh files; default a ball with and without its cap")
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--faces", type=int, default=100_000, help="of the ball")
    parser.add_argument("--exact", type=int, default=500, help="points for the reference and libigl's exact function")
    parser.add_argument("--backend", default="cpu", choices=("cpu", "triton"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-peers", dest="peers", action="store_false")
    options = parser.parse_args()
    meshes = [read_mesh(path) for path in options.mesh or []] or [ball(options.faces, cap) for cap in (True, False)]
    report = {
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "threads": torch.get_num_threads()},
        "device": torch.cuda.get_device_name() if options.backend == "triton" else "cpu",
        "versions": {"torch": torch.__version__},
        "load_average": os.getloadavg(),
    }
    for mesh in meshes:
        report[Path(mesh.name).name] = bench(mesh.normalise()[0], options)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
