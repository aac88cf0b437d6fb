"""udf_blocks on a mesh: seconds by stage, memory, known libraries on the same voxels, the machine's limits, as JSON.

    python bench/udf_blocks.py nefertiti.obj --resolution 1024
    python bench/udf_blocks.py nefertiti.obj --resolution 1024 --backend cpu --peers open3d libigl

Peers (CPU, all cores) are given the voxels closer than the truncation, which udf_blocks finds by itself: a sample of
them is timed and extrapolated; building their trees is counted once. The limit is the larger of two times: the distance
tests that this algorithm makes at the rate of a float32 matrix product, and writing the values once at the rate of a
copy, both measured in the same run. `process_seconds` counts all threads: it shows what a loaded machine hides.
"""

import argparse
import json
import platform
import resource
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from shapecodec.io.mesh_files import read_mesh
from shapecodec.ops.dispatch import choose
from shapecodec.ops.udf_blocks import reference, udf_blocks

TRUNCATION = 4.0
OPERATIONS = 72  # float32 operations of one point-to-triangle test: 7 linear forms, 3 edges, minima


def wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(run, device, repeats):
    """Median wall time of run() and its last result, after one warm-up that also compiles."""
    result = run()
    times = []
    for _ in range(repeats):
        wait(device)
        start = time.perf_counter()
        result = run()
        wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times), result


def stages(mesh, resolution, backend, repeats):
    """Seconds of each stage, run one by one with a wait between them, and the number of (triangle, block) pairs."""
    device, reach, found = mesh.vertices.device, TRUNCATION + reference.CULL_SLACK, {}

    def step(name, run):
        found[name], result = seconds(run, device, repeats)
        return result

    frames = step("frames", lambda: reference.triangle_frames(mesh.vertices, mesh.faces, resolution))
    if backend == "triton":
        from shapecodec.ops.udf_blocks import triton as path

        pairs = step("pairs", lambda: path.candidate_pairs(frames, resolution, reach))
        lists = step("sort", lambda: path.sort_pairs(pairs, frames, resolution))
        squared, lowest = step("nearest", lambda: path.nearest(lists, frames))
        step("finish", lambda: path.finish(lists, squared, lowest, TRUNCATION, TRUNCATION))
        return found, len(pairs.flat)
    if backend == "cpu":
        from shapecodec.ops.udf_blocks import cpu as path

        rows = frames.numpy()
        keys, triangles = step("pairs", lambda: path.candidate_pairs(rows, resolution, reach))
        step("nearest", lambda: path.nearest(rows, keys, triangles, resolution, TRUNCATION, TRUNCATION))
        return found, len(keys)
    return found, len(step("pairs", lambda: reference.candidate_pairs(frames, resolution, reach))[0])


def limits(device, tests, blocks, repeats):
    """Seconds that arithmetic and memory traffic cost at the rates measured here."""
    size = 8192 if device.type == "cuda" else 2048
    torch.backends.cuda.matmul.allow_tf32 = False
    a, b = torch.randn(2, size, size, device=device)
    rate = 2 * size**3 / seconds(lambda: a @ b, device, repeats)[0]
    source = torch.zeros((1 << 30 if device.type == "cuda" else 1 << 27) // 4, device=device)
    bandwidth = 2 * 4 * len(source) / seconds(lambda: source.clone(), device, repeats)[0]
    return {
        "tflops_float32": rate / 1e12,
        "gigabytes_per_second": bandwidth / 1e9,
        "arithmetic_seconds": tests * OPERATIONS / rate,
        "traffic_seconds": blocks * 2048 / bandwidth,
    }


def open3d_distances(vertices, faces):
    import open3d

    start = time.perf_counter()
    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(open3d.core.Tensor(vertices), open3d.core.Tensor(faces.astype(np.uint32)))
    build = time.perf_counter() - start
    return lambda points: scene.compute_distance(open3d.core.Tensor(points)).numpy(), build


def libigl_distances(vertices, faces):
    import igl

    v, f = vertices.astype(np.float64), faces.astype(np.int64)
    return lambda points: np.sqrt(igl.point_mesh_squared_distance(points.astype(np.float64), v, f)[0]), 0.0


PEERS = {"open3d": open3d_distances, "libigl": libigl_distances}


def compare(peer, mesh, grid, values, resolution, count, ours):
    """A peer's seconds on a sample of the near voxels, extrapolated to all of them, and the largest difference."""
    near = (values < 1).flatten().nonzero()[:, 0].cpu()
    picked = near[torch.randint(len(near), (count,), generator=torch.Generator().manual_seed(0))]
    voxel = picked % 512
    inner = torch.stack([voxel // 64, voxel // 8 % 8, voxel % 8], 1)
    points = ((grid.coords.cpu()[picked // 512] * 8 + inner + 0.5) / resolution - 0.5).numpy()
    run, build = PEERS[peer](*mesh.to("cpu").numpy())
    run(points[:1000])
    start = time.perf_counter()
    theirs = run(points)
    sample = time.perf_counter() - start
    difference = theirs * resolution - values.flatten().cpu()[picked].numpy() * TRUNCATION
    total = build + sample * len(near) / count
    return {
        "peer": peer,
        "build_seconds": build,
        "sample_points": count,
        "sample_seconds": sample,
        "points": len(near),
        "seconds_extrapolated": total,
        "ratio": total / ours,
        "largest_difference_voxels": float(np.abs(difference).max()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mesh", type=Path)
    parser.add_argument("--resolution", type=int, default=1024)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--sample", type=int, default=400_000)
    arguments = parser.parse_args()
    device, resolution = torch.device(arguments.device), arguments.resolution
    backend = choose(arguments.backend, device, available=("reference", "cpu", "triton"), op="udf_blocks")
    mesh = read_mesh(arguments.mesh).normalise()[0].to(device)

    def whole():
        return udf_blocks(mesh.vertices, mesh.faces, resolution, truncation=TRUNCATION, backend=backend)

    if device.type == "cuda":
        whole()
        torch.cuda.reset_peak_memory_stats()
    total, (grid, values) = seconds(whole, device, arguments.repeats)
    peak = (
        torch.cuda.max_memory_allocated()
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    began = time.process_time()
    whole()
    process = time.process_time() - began
    by_stage, pairs = stages(mesh, resolution, backend, arguments.repeats)
    limit = limits(device, pairs * 512, len(grid), arguments.repeats)
    floor = max(limit["arithmetic_seconds"], limit["traffic_seconds"])
    report = {
        "operation": "udf_blocks",
        "hardware": torch.cuda.get_device_name()
        if device.type == "cuda"
        else platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "mesh": arguments.mesh.stem,
        "faces": len(mesh.faces),
        "resolution": resolution,
        "backend": backend,
        "blocks": len(grid),
        "near_voxels": int((values < 1).sum()),
        "pairs": pairs,
        "seconds": total,
        "process_seconds": process,
        "seconds_by_stage": by_stage,
        "peak_memory_bytes": peak,
        "limit": limit,
        "fraction_of_limit": floor / total,
        "peers": [compare(p, mesh, grid, values, resolution, arguments.sample, total) for p in arguments.peers],
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
