"""Sparse marching cubes and the block halo: seconds a stage, peak memory, fraction of the byte floor, a peer; as JSON.

    python bench/marching_cubes.py                                  # a torus at 1024^3, CUDA if there is one
    python bench/marching_cubes.py --mesh bunny.drc --resolution 2048
    python bench/marching_cubes.py --device cpu --peer-resolution 512

The surface is the field's level of one voxel, a shell on both sides of the input. The floor counts the values read once
and the mesh written once, at the copy bandwidth measured in the same run (a copy's bytes count twice). The peer is
scikit-image on the dense volume of the same shape at --peer-resolution, where it fits in memory, beside ours there.
`cpu_seconds` sums over threads: on a shared machine it is steadier than the wall clock.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import time
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import numba
import torch
from skimage.measure import marching_cubes as dense_marching_cubes

from shapecodec.grid import SparseGrid
from shapecodec.io.mesh_files import read_mesh
from shapecodec.ops.block_halo import gather_halo, pad_average
from shapecodec.ops.marching_cubes import marching_cubes
from shapecodec.ops.udf_blocks import udf_blocks

LEVEL = 0.25  # one voxel of a truncation of four


def torus_blocks(resolution, device):
    """Blocks and values in [0, 1] of the distance to a torus, as `udf_blocks` gives them for a mesh."""

    def distance(x, y, z):
        return (((x * x + z * z).sqrt() - 0.32).square() + y * y).sqrt().sub(0.13).abs()

    side = resolution // 8
    axis = torch.arange(side, device=device)
    coords = torch.cartesian_prod(axis, axis, axis)
    near = distance(*((coords + 0.5) / side - 0.5).unbind(1)) < (4 + 3.5 * 3**0.5) / resolution
    grid = SparseGrid.build(coords[near], side)[0]
    steps = (torch.arange(8, device=device) + 0.5) / resolution
    kept, values = [], []
    for coords in grid.coords.split(16384):
        x, y, z = ((coords[:, d, None] / side - 0.5 + steps) for d in range(3))
        block = distance(x[:, :, None, None], y[:, None, :, None], z[:, None, None, :])
        block = block.mul_(resolution / 4).clamp_(max=1)
        active = block.flatten(1).amin(1) < 1
        kept.append(coords[active])
        values.append(block[active])
    return SparseGrid.build(torch.cat(kept), side)[0], torch.cat(values)


def field_blocks(mesh_path, resolution, device):
    """(grid, values) of a mesh file, or of the torus."""
    if mesh_path is None:
        return torus_blocks(resolution, device)
    mesh = read_mesh(mesh_path).normalise()[0].to(device)
    return udf_blocks(mesh.vertices, mesh.faces, resolution)


def seconds(run, device, repeats):
    """Median wall time of run() after one warm-up."""
    times = [once(run, device) for _ in range(repeats + 1)]
    return statistics.median(times[1:])


def once(run, device):
    """Wall time of a single run()."""
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device):
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def kernel_seconds(run, device):
    """Device time of each kernel in run(), the longest first; empty on the CPU."""
    if device.type != "cuda":
        return {}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        synchronise(device)
    total = defaultdict(float)
    for event in profile.events():
        total[event.name[:60]] += event.device_time * 1e-6
    return dict(sorted(total.items(), key=lambda item: -item[1])[:12])


def copy_bandwidth(device):
    """Bytes a second, read and written, of a copy of 256 MB (1 GB on CUDA)."""
    source = torch.ones((256 if device.type == "cuda" else 64) << 20, device=device)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), device, 5)


def peak_memory(run, device):
    """Bytes that run() holds at most: allocated on CUDA (its input included), of the process on the CPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device)
    run()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def against_peer(mesh_path, resolution, device, repeats):
    """scikit-image on the dense volume, ours on the blocks."""
    grid, values = field_blocks(mesh_path, resolution, device)
    dense = torch.ones((resolution + 2,) * 3)
    for (x, y, z), block in zip((grid.coords.long().cpu() * 8 + 1).tolist(), values.cpu(), strict=True):
        dense[x : x + 8, y : y + 8, z : z + 8] = block
    start = time.perf_counter()
    faces = dense_marching_cubes(dense.numpy(), LEVEL)[1]
    theirs = time.perf_counter() - start
    ours = seconds(lambda: marching_cubes(values, grid, LEVEL), device, repeats)
    count = len(marching_cubes(values, grid, LEVEL)[1])
    return {
        "name": "scikit-image (Lewiner, dense, CPU)",
        "resolution": resolution,
        "seconds": theirs,
        "ours_seconds": ours,
        "ratio": theirs / ours,
        "triangles": len(faces),
        "ours_triangles": count,
        "equal_triangles": len(faces) == count,
    }


def halo(values, grid, device, repeats):
    """Seconds of both halo operations and their fraction of the byte floor."""
    padded = gather_halo(values, grid)
    runs = {"gather_halo": lambda: gather_halo(values, grid), "pad_average": lambda: pad_average(padded, grid)}
    times = {name: seconds(run, device, repeats) for name, run in runs.items()}
    floor = (values.nbytes + padded.nbytes) / copy_bandwidth(device)
    return {"seconds": times, "fraction_of_floor": {name: floor / taken for name, taken in times.items()}}


def measure(args):
    """Everything that is printed."""
    device = torch.device(args.device)
    grid, values = field_blocks(args.mesh, args.resolution, device)
    fresh = SparseGrid(grid.coords, grid.offsets, grid.resolution)  # without cached plans
    times = {"neighbours": once(fresh.neighbours, device)}

    def extract(index_dtype=torch.int32):
        return marching_cubes(values, fresh, LEVEL, index_dtype=index_dtype, backend=args.backend)

    times["first_call"] = once(extract, device)
    times["marching_cubes"] = seconds(extract, device, args.repeats)
    times["marching_cubes_int64"] = seconds(lambda: extract(torch.int64), device, args.repeats)
    cpu_start = time.process_time()
    vertices, faces = extract()
    cpu_seconds = time.process_time() - cpu_start
    bandwidth = copy_bandwidth(device)
    floor = values.nbytes + vertices.nbytes + faces.nbytes
    result = {
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": numba.get_num_threads(),
        "load": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("torch", "numba", "scikit-image")},
        "shape": args.mesh.name if args.mesh else "torus",
        "resolution": args.resolution,
        "L": len(grid),
        "vertices": len(vertices),
        "triangles": len(faces),
        "seconds": times,
        "cpu_seconds": cpu_seconds,
        "kernel_seconds": kernel_seconds(extract, device),
        "copy_bytes_per_second": bandwidth,
        "floor_bytes": floor,
        "floor_seconds": floor / bandwidth,
        "fraction_of_floor": floor / bandwidth / times["marching_cubes"],
    }
    del vertices, faces
    result["peak_memory_bytes"] = peak_memory(extract, device)
    result["halo"] = halo(values, fresh, device, args.repeats)
    if args.peer_resolution:
        result["peer"] = against_peer(args.mesh, args.peer_resolution, device, args.repeats)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", type=Path, help="a mesh file; a torus without it")
    parser.add_argument("--resolution", type=int, default=1024)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--peer-resolution", type=int, default=256, help="0: no peer")
    parser.add_argument("--repeats", type=int, default=5)
    print(json.dumps(measure(parser.parse_args()), indent=2))


if __name__ == "__main__":
    main()
