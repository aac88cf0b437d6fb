"""Exact distances, closest points and mesh comparison: times, and libraries on the same queries in the same run; as JSON.

    python bench/metrics.py                          # 1M points and two tori of 102,400 faces
    python bench/metrics.py --device cuda            # the same on a GPU, with the stages of one direction
    python bench/metrics.py --points 200000 --shell 512 --peers open3d
    python bench/metrics.py --mesh chair.obj --peers

`exact_distances` is what an evaluation does: --points samples of a mesh to the exact closest point of another one of about
its size, which lies within a thousandth of it, and back. `closest_point` asks points half within about 1% of the surface
and half uniform in the unit cube. Building trees is in every time; drawing the samples is not, and stands beside. Each
time is the best of --repeats after a warm-up that compiles; the device is waited for. `process_seconds` sums over
threads: on a shared machine it is steadier than the wall clock. `--shell N` also compares the paper's eps-surface of the
exact field at N^3 (1-2M faces at 512) with the mesh.

Libraries that are installed (`--peers` picks) run on the CPU on the same queries. The exit status is 1 if any distance
differs by more than 1e-6 from a library's, from the specification's (brute force in float64 on some of the queries) or,
on a GPU, from the CPU path's.
"""

import argparse
import json
import os
import resource
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numba
import numpy as np
import torch

from shapecodec.codecs.log3d.field import BlockField
from shapecodec.evaluate.metrics import compare
from shapecodec.io.environment import hardware
from shapecodec.io.mesh_files import read_mesh
from shapecodec.mesh import Mesh, Similarity
from shapecodec.ops.closest_point import closest_point
from shapecodec.ops.nearest_point import nearest_point
from shapecodec.ops.udf_blocks import udf_blocks
from shapecodec.rng import rng

TOLERANCE = 1e-6  # unit-cube lengths
CHECKED = {"cpu": 1 << 23, "cuda": 1 << 28}  # point-triangle pairs of the specification


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


def tori():
    """A torus, and another on which each vertex is moved by about a third of a thousandth."""
    reference = torus().normalise()[0]
    return nearby(reference), reference


def nearby(mesh):
    """The mesh scaled by 1.001, each vertex moved by about a third of a thousandth."""
    noise = 3e-4 * torch.randn(mesh.vertices.shape, generator=rng(0, purpose="bench noise"))
    return Mesh(1.001 * mesh.vertices + noise, mesh.faces)


def wait():
    """For what a GPU still has to do."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def best(run, repeats):
    """(result, {wall, process}) of the fastest of `repeats` calls after one warm-up."""
    result, times = run(), []
    for _ in range(repeats):
        wait()
        wall, process = time.perf_counter(), time.process_time()
        result = run()
        wait()
        times.append((time.perf_counter() - wall, time.process_time() - process))
    wall, process = min(times)
    return result, {"seconds": round(wall, 5), "process_seconds": round(process, 5)}


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
MODULES = {"open3d": "open3d", "libigl": "igl"}
PACKAGES = {"open3d": ("open3d-cpu", "open3d"), "libigl": ("libigl",)}


def package_version(name):
    """Of the first of its packages that is installed."""
    for package in PACKAGES[name]:
        if find_spec(MODULES[name]):
            try:
                return version(package)
            except ModuleNotFoundError:
                continue
    return None


def to_mesh(points, mesh):
    return closest_point(points, mesh.vertices, mesh.faces).distance


def by_peer(name, points, mesh):
    return torch.from_numpy(PEERS[name](points.cpu().numpy(), *mesh.numpy()))


def bench_closest(ways, peers, repeats):
    """Points to meshes, one or more ways in one time; the peers' times; the largest difference of a distance to each."""
    found, times = best(lambda: [to_mesh(points, mesh) for points, mesh in ways], repeats)
    report = {
        "points": [len(points) for points, _ in ways],
        "faces": [len(mesh.faces) for _, mesh in ways],
        "ours": times,
    }

    def difference(other):
        return max(float((one.cpu().double() - two.cpu()).abs().max()) for one, two in zip(found, other, strict=True))

    def add(name, run, **about):
        distances, peer = best(run, 1)
        ratio = round(peer["seconds"] / times["seconds"], 2)
        report[name] = {**about, **peer, "times_ours": ratio, "largest_difference": difference(distances)}

    for name in peers:
        if find_spec(MODULES[name]) is None:
            report[name] = "not installed"
            continue
        add(name, lambda name=name: [by_peer(name, *way) for way in ways], version=package_version(name))
    if ways[0][0].is_cuda:
        add("cpu path", lambda: [to_mesh(points.cpu(), mesh.to("cpu")) for points, mesh in ways])
    most = CHECKED[found[0].device.type]
    some = [slice(None, None, max(len(points) * len(mesh.faces) // most, 1)) for points, mesh in ways]
    exact = [
        closest_point(points[part], mesh.vertices, mesh.faces, backend="reference").distance
        for part, (points, mesh) in zip(some, ways, strict=True)
    ]
    found = [distances[part] for part, distances in zip(some, found, strict=True)]
    report["specification"] = {"points": [len(part) for part in exact], "largest_difference": difference(exact)}
    return report


def bench_exact(prediction, reference, points, peers, repeats):
    """Exact distances of an evaluation, both ways; on a GPU with the stages of one."""

    def draw():
        return prediction.sample(points, generator(1))[0], reference.sample(points, generator(2))[0]

    def generator(seed):
        return rng(seed, device=reference.vertices.device)

    (there, back), sampling = best(draw, repeats)
    report = bench_closest([(there, reference), (back, prediction)], peers, repeats) | {"drawing the samples": sampling}
    return report | ({"stages of one way": stages(there, reference, repeats)} if there.is_cuda else {})


def stages(points, mesh, repeats):
    """Milliseconds of the GPU path's parts."""
    from shapecodec.ops.closest_point.triton import find_slots
    from shapecodec.ops.closest_point.triton_tree import build_tree, morton_cells, point_codes

    vertices, faces = mesh.vertices.contiguous(), mesh.faces.contiguous()
    parts = {
        "tree": lambda: build_tree(vertices, faces),
        "order of the queries": lambda: point_codes(points, morton_cells(points, points)).argsort(),
        "tree, order and walk": lambda: find_slots(points, vertices, faces),
        "all": lambda: to_mesh(points, mesh),
    }
    return {name: round(1000 * best(run, repeats)[1]["seconds"], 3) for name, run in parts.items()}


def disagreements(report):
    """(where, largest difference) of distances that differ by more than TOLERANCE."""
    found = []
    for name, part in report.items():
        if isinstance(part, dict):
            if part.get("largest_difference", 0.0) > TOLERANCE:
                found.append((name, part["largest_difference"]))
            found += [(f"{name}, {inner}", value) for inner, value in disagreements(part)]
    return found


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
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    mesh = (read_mesh(options.mesh) if options.mesh else torus()).normalise()[0]
    generator = rng(0, purpose="bench queries")
    near = mesh.sample(options.points // 2, generator)[0]
    near += 0.01 * torch.randn(near.shape, generator=generator)
    queries = torch.cat([near, torch.rand(options.points - len(near), 3, generator=generator) - 0.5])
    other, mesh, near, queries = (one.to(options.device) for one in (nearby(mesh), mesh, near, queries))
    on_mesh = mesh.sample(len(near), rng(1, device=options.device))[0]
    report = {
        "hardware": hardware(options.device),
        "threads": numba.get_num_threads(),
        "versions": {"numba": numba.__version__, "torch": torch.__version__},
        "load_average": os.getloadavg(),
        "exact_distances": bench_exact(other, mesh, options.points, options.peers, options.repeats),
        "closest_point": bench_closest([(queries, mesh)], options.peers, options.repeats),
        "nearest_point": best(lambda: nearest_point(near, on_mesh), options.repeats)[1],
    }
    shells = {"same size": other}
    if options.shell:
        shells[f"shell {options.shell}"] = shell(mesh.to("cpu"), options.shell)
    for name, prediction in shells.items():
        settings = {
            "points": options.compare_points,
            "resolution": 512,
            "frame": Similarity(),
            "device": options.device,
        }
        _, times = best(lambda prediction=prediction, s=settings: compare(prediction, mesh, **s), options.repeats)
        report[f"compare, {name}"] = {"faces": len(prediction.faces), "points": options.compare_points, **times}
    report["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps(report, indent=2))
    for where, value in disagreements(report):
        print(f"{where}: distances differ by {value:.3g}", file=sys.stderr)
    sys.exit(bool(disagreements(report)))


if __name__ == "__main__":
    main()
