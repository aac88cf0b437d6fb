"""Closest points and mesh comparison: seconds, and two libraries on the same queries in the same run; as JSON.

    python bench/metrics.py                          # 1M points and a torus of 102,400 faces
    python bench/metrics.py --points 200000 --shell 512 --peers open3d
    python bench/metrics.py --mesh chair.obj --peers

Queries: half within about 1% of the surface, half uniform in the unit cube. Building the tree is in every time. Each
time is the best of --repeats after a warm-up that compiles. `process_seconds` sums over threads: on a shared machine it
is steadier than the wall clock. `--shell N` also compares the paper's eps-surface of the exact field at N^3 (1-2M faces
at 512) with the mesh.
"""

import argparse
import json
import os
import platform
import resource
import time
from importlib.metadata import version
from pathlib import Path

import numba
import numpy as np
import torch

from shapecodec.codecs.log3d.field import BlockField
from shapecodec.evaluate.metrics import compare
from shapecodec.io.mesh_files import read_mesh
from shapecodec.mesh import Mesh, Similarity
from shapecodec.ops.closest_point import closest_point
from shapecodec.ops.nearest_point import nearest_point
from shapecodec.ops.udf_blocks import udf_blocks
from shapecodec.rng import rng


def torus(around=320, across=160):
    """A closed torus of 2 * around * across faces."""
    i, j = np.meshgrid(np.arange(around), np.arange(across), indexing="ij")
    u, v = i * (2 * np.pi / around), j * (2 * np.pi / across)
    radius = 0.32 + 0.12 * np.cos(v)
    vertices = np.stack([radius * np.cos(u), 0.12 * np.sin(v), radius * np.sin(u)], -1).reshape(-1, 3)

    def at(di, dj):
        return ((i + di) % around) * across + (j + dj) % across

    corners = [at(0, 0), at(0, 1), at(1, 1)], [at(0, 0), at(1, 1), at(1, 0)]
    return Mesh.from_arrays(vertices, np.concatenate([np.stack(c, -1).reshape(-1, 3) for c in corners]), "torus")


def best(run, repeats):
    """(result, {wall, process}) of the fastest of `repeats` calls after one warm-up."""
    result, times = run(), []
    for _ in range(repeats):
        wall, process = time.perf_counter(), time.process_time()
        result = run()
        times.append((time.perf_counter() - wall, time.process_time() - process))
    wall, process = min(times)
    return result, {"seconds": round(wall, 3), "process_seconds": round(process, 3)}


def open3d_distances(points, vertices, faces):
    """Distances by Open3D's closest points (Embree)."""
    import open3d

    scene = open3d.t.geometry.RaycastingScene()
    scene.add_triangles(open3d.core.Tensor(vertices), open3d.core.Tensor(faces.astype(np.uint32)))
    found = scene.compute_closest_points(open3d.core.Tensor(points))["points"].numpy()
    return np.linalg.norm(found.astype(np.float64) - points, axis=1)


def libigl_distances(points, vertices, faces):
    """Distances by libigl's AABB tree (float64)."""
    import igl

    return np.sqrt(igl.point_mesh_squared_distance(points.astype(np.float64), vertices.astype(np.float64), faces)[0])


PEERS = {"open3d": open3d_distances, "libigl": libigl_distances}


def bench_closest(mesh, points, peers, repeats):
    """One direction: points to the mesh, and the peers' times and largest difference."""
    found, times = best(lambda: closest_point(points, mesh.vertices, mesh.faces), repeats)
    report = {"points": len(points), "faces": len(mesh.faces), "ours": times}
    vertices, faces = mesh.numpy()
    for name in peers:
        distances, peer = best(lambda name=name: PEERS[name](points.numpy(), vertices, faces), 1)
        report[name] = {
            "version": version({"open3d": "open3d-cpu"}.get(name, name)),
            **peer,
            "times_ours": round(peer["seconds"] / times["seconds"], 2),
            "largest_difference": float(np.abs(distances - found.distance.numpy()).max()),
        }
    return report


def shell(mesh, resolution):
    """The eps-surface of the mesh's exact field."""
    grid, values = udf_blocks(mesh.vertices, mesh.faces, resolution)
    return BlockField(values, grid, resolution).to_mesh(surface="shell")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", type=Path, help="a mesh file; default a torus")
    parser.add_argument("--points", type=int, default=1_000_000, help="queries of closest_point")
    parser.add_argument("--compare-points", type=int, default=200_000, help="samples of compare")
    parser.add_argument("--shell", type=int, default=0, help="also compare the eps-surface at this resolution")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    options = parser.parse_args()
    mesh = (read_mesh(options.mesh) if options.mesh else torus()).normalise()[0]
    generator = rng(0, purpose="bench queries")
    near = mesh.sample(options.points // 2, generator)[0]
    near += 0.01 * torch.randn(near.shape, generator=generator)
    queries = torch.cat([near, torch.rand(options.points - len(near), 3, generator=generator) - 0.5])
    other = Mesh(mesh.vertices * 1.001, mesh.faces)
    report = {
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count(), "threads": numba.get_num_threads()},
        "versions": {"numba": numba.__version__, "torch": torch.__version__},
        "load_average": os.getloadavg(),
        "closest_point": bench_closest(mesh, queries, options.peers, options.repeats),
        "closest_point_near": bench_closest(mesh, near, options.peers, options.repeats),
        "nearest_point": best(lambda: nearest_point(near, mesh.sample(len(near), rng(1))[0]), options.repeats)[1],
    }
    shells = {"same size": other}
    if options.shell:
        shells[f"shell {options.shell}"] = shell(mesh, options.shell)
    for name, prediction in shells.items():
        _, times = best(
            lambda prediction=prediction: compare(
                prediction, mesh, points=options.compare_points, resolution=512, frame=Similarity()
            ),
            options.repeats,
        )
        report[f"compare, {name}"] = {"faces": len(prediction.faces), "points": options.compare_points, **times}
    report["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
