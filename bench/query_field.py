"""Meshing a queried field: queries against a dense grid, seconds, memory, and whether the surface is the same; as JSON.

    python bench/query_field.py                                       # a torus at 256^3, 512^3 and 1024^3
    python bench/query_field.py --mesh chair.drc --resolutions 256 512
    python bench/query_field.py --mesh chair.drc --resolutions 512 --dense

Without --mesh the field is a torus inside a hollow ball, with values saturated like logits. With it, the exact signed
distance of the mesh: the closest point, and the inside by winding number. `field_seconds` is the time within the field,
the rest is what finding the voxels and marching cubes cost. --dense evaluates every voxel, too, and compares the
meshes: `same_surface` that they have the same triangles, `lost_components` how many pieces were missed.
"""

import argparse
import json
import os
import platform
import resource
import time
from importlib.metadata import version
from pathlib import Path

import torch

from shapecodec.codecs.lagem.field import QueryField
from shapecodec.codecs.lagem.inputs import RADIUS
from shapecodec.codecs.lagem.oracle import signed_distance
from shapecodec.grid import SparseGrid
from shapecodec.io.mesh_files import read_mesh
from shapecodec.mesh import Mesh
from shapecodec.ops.components import components
from shapecodec.ops.marching_cubes import marching_cubes


def torus_in_a_ball(points):
    """A tube of radius 0.1, and around it a wall of 0.02 (ten voxels of 512, a little more than one of 64)."""
    tube = 0.1 - ((points[:, :2].norm(dim=1) - 0.25).square() + points[:, 2].square()).sqrt()
    wall = 0.01 - (points.norm(dim=1) - 0.45).abs()
    return 12.0 * (40.0 * torch.maximum(tube, wall)).tanh()


def exact_field(path, device):
    """The signed distance of a mesh in the codec's frame: its box centred, its farthest vertex at RADIUS."""
    mesh = read_mesh(path)
    low, high = mesh.bounds()
    vertices = mesh.vertices - (low + high) / 2
    mesh = Mesh(vertices * (RADIUS / vertices.norm(dim=1).max()), mesh.faces, mesh.name).to(device)
    return lambda points: -signed_distance(points, mesh)


class Timed:
    """A field and the seconds within it."""

    def __init__(self, values, device):
        self.values, self.device, self.seconds = values, device, 0.0

    def __call__(self, points):
        self.wait()
        start = time.perf_counter()
        answers = self.values(points)
        self.wait()
        self.seconds += time.perf_counter() - start
        return answers

    def wait(self):
        """For the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def dense_mesh(values, resolution, device, chunk):
    """Every voxel evaluated, in Morton-ordered blocks."""
    axis = torch.arange(resolution // 8, dtype=torch.int32, device=device)
    grid = SparseGrid.build(torch.cartesian_prod(axis, axis, axis), resolution // 8)[0]
    voxel = torch.cartesian_prod(*[torch.arange(8, device=device)] * 3)
    blocks = torch.zeros((len(grid), 512), device=device)
    for rows in torch.arange(len(grid), device=device).split(max(chunk // 512, 1)):
        centres = (grid.coords[rows, None] * 8 + voxel).float() + 0.5
        blocks[rows] = values(centres.view(-1, 3) / resolution - 0.5).view(-1, 512)
    return marching_cubes(blocks.view(-1, 8, 8, 8), grid, 0.0, fill=-1e38, inside_is_below=False)


def against_dense(values, mesh, resolution, device, chunk):
    """What a dense evaluation finds, and how long it takes."""
    start = time.perf_counter()
    vertices, faces = dense_mesh(values, resolution, device, chunk)
    values.wait()
    pieces = int(components(len(vertices), faces).max()) + 1
    mine = int(components(len(mesh.vertices), mesh.faces).max()) + 1
    ours, theirs = (torch.unique(v[f].flatten(1), dim=0) for v, f in ((mesh.vertices, mesh.faces), (vertices, faces)))
    return {
        "seconds": time.perf_counter() - start,
        "triangles": len(faces),
        "components": pieces,
        "lost_components": pieces - mine,
        "same_surface": ours.shape == theirs.shape and bool(torch.equal(ours, theirs)),
    }


def measure(args, resolution, device):
    """One resolution."""
    values = Timed(exact_field(args.mesh, device) if args.mesh else torus_in_a_ball, device)
    field = QueryField(values, resolution, coarse=args.coarse, chunk=args.chunk, refine=args.refine, device=device)
    if device.type == "cuda":
        field.to_mesh(min(resolution, 64))  # kernels are compiled
        torch.cuda.reset_peak_memory_stats(device)
    values.seconds, start, processor = 0.0, time.perf_counter(), time.thread_time()
    mesh, report = field.to_surface()
    values.wait()
    result = {
        "resolution": resolution,
        "queries": report.queries,
        "dense": report.dense,
        "ratio": report.ratio,
        "seconds": time.perf_counter() - start,
        "field_seconds": values.seconds,
        "thread_seconds": time.thread_time() - processor,
        "peak_memory_bytes": torch.cuda.max_memory_allocated(device)
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "triangles": len(mesh.faces),
        "watertight": mesh.is_watertight(),
    }
    return (
        {**result, "against_dense": against_dense(values, mesh, resolution, device, args.chunk)}
        if args.dense
        else result
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", type=Path, help="a mesh file; a torus in a hollow ball without it")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--coarse", type=int, default=64)
    parser.add_argument("--chunk", type=int, default=1 << 18)
    parser.add_argument("--refine", type=int, default=0)
    parser.add_argument("--dense", action="store_true", help="also evaluate every voxel: 4 bytes each, up to 512^3")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    result = {
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "load": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("torch", "numba")},
        "shape": args.mesh.name if args.mesh else "torus in a hollow ball",
        "measured": [measure(args, resolution, device) for resolution in args.resolutions],
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
