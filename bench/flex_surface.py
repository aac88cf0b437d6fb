"""Extraction of a surface from sparse voxels, forward and backward, stage by stage, beside the reference; as JSON.

    python bench/flex_surface.py                                  # bricks of 8192 and 15360 latent voxels, and a surface's voxels
    python bench/flex_surface.py --mesh bunny.drc --resolution 1024
    python bench/flex_surface.py --device cpu --resolution 64 --latents 300 --repeats 1

`bricks` are the fine voxels of the latent voxels nearest to one direction, as a training step decodes them; `surface` are
the fine voxels within one voxel of the surface, what other sparse extractors are given. The signed distance is that of a
bumpy sphere or of the mesh, the other inputs are those of a network: predictions of all voxels for their corners that
disagree a little, deformations, weights around 1. `step` is all of it, from predictions to surface and back, with the
neighbours known from the layers before; `from_coordinates` adds neighbours and corners of a new grid. Times are medians of
CUDA events (of the wall clock on a CPU), memory is what is held at most above the grid, the predictions and their gradients.
The floor counts predictions and weights read once, their gradients, vertices and faces written once.
"""

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from rasterise import copy_bandwidth, held
from sparse_conv import milliseconds

from shapecodec.grid import SparseGrid
from shapecodec.io.mesh_files import read_mesh
from shapecodec.ops.closest_point import closest_point
from shapecodec.ops.flex_surface import average_corners, flex_surface, voxel_corners

BACKENDS = ("reference", "triton")


def signed_distance(mesh):
    """A function of points (Q, 3) in the cube; the sign of a mesh is that of its nearest face."""
    if mesh is None:

        def sphere(points):
            length = points.norm(dim=1)
            bumps = (40 * points).sin().prod(1)
            return length - 0.4 - 0.02 * bumps

        return sphere
    at = mesh.vertices[mesh.faces]
    normals = torch.linalg.cross(at[:, 1] - at[:, 0], at[:, 2] - at[:, 0])

    def nearest(points):
        found = closest_point(points, mesh.vertices, mesh.faces)
        away = points - found.point
        return away.norm(dim=1) * (away * normals[found.face]).sum(1).sign()

    return nearest


def near_voxels(distance, resolution, reach, device):
    """(M, 3) voxels whose centre is within `reach` voxels of the surface, sought in slabs."""
    axis = torch.arange(resolution, device=device)
    found = []
    for slab in axis.split(max(1, (1 << 22) // resolution**2)):
        coords = torch.cartesian_prod(slab, axis, axis)
        found.append(coords[distance((coords + 0.5) / resolution - 0.5).abs() < reach / resolution])
    return torch.cat(found)


def brick_grid(distance, resolution, latents, device):
    """The fine voxels of the `latents` latent voxels farthest along (1, 1, 1)."""
    coords = near_voxels(distance, resolution // 4, 1.0, device)
    kept = coords[coords.sum(1).argsort(descending=True)[:latents]]
    return SparseGrid.build(kept, resolution // 4)[0].children().children()


def surface_grid(distance, resolution, device):
    """The fine voxels near the surface: those of near voxels at a quarter of the resolution that are near themselves."""
    wide = brick_grid(distance, resolution, None, device)
    return SparseGrid.build(wide.coords[distance(wide.centres()).abs() < 1 / resolution], resolution)[0]


def predictions(grid, distance):
    """What a network says of a grid: raw (N, 8, 4) sdf and deformation in voxels, alpha, beta, gamma; leaves of a graph."""
    corners = voxel_corners(grid)
    generator = torch.Generator(grid.device).manual_seed(0)

    def noise(*shape):
        return torch.randn(shape, generator=generator, device=grid.device)

    raw = 0.05 * noise(len(grid), 8, 4)
    raw[..., 0] += (distance(corners.positions()) * grid.resolution)[corners.index]
    weights = [1 + 0.99 * (0.3 * noise(len(grid), n)).tanh() for n in (8, 12)]
    gamma = 0.005 + 0.99 * noise(len(grid)).sigmoid()
    return [value.requires_grad_() for value in (raw, *weights, gamma)]


def measure(grid, leaves, backend, bandwidth, device, repeats):
    """Milliseconds and MiB of the stages with one backend, and its surface."""
    raw, alpha, beta, gamma = leaves

    def fresh():
        known = SparseGrid(grid.coords, grid.offsets, grid.resolution)
        known.cached("neighbours", grid.neighbours)
        return known

    def forward(over, split="centre"):
        means, consistency = average_corners(raw, voxel_corners(over, backend=backend), backend=backend)
        out = flex_surface(
            over, means[:, 0], 0.5 * means[:, 1:].tanh(), alpha, beta, gamma, split=split, backend=backend
        )
        return out, consistency

    def step(over):
        out, consistency = forward(over)
        loss = out.vertices.square().sum() + out.deviation + consistency
        return torch.autograd.grad(loss, leaves)

    def decode():
        with torch.no_grad():
            return forward(fresh(), "diagonal")

    known, corners = fresh(), voxel_corners(grid, backend=backend)
    known.cached("corners", lambda: corners)
    means = average_corners(raw.detach(), corners, backend=backend)[0]
    given = means[:, 0].contiguous(), 0.5 * means[:, 1:].tanh(), alpha, beta, gamma
    given = [value.detach().requires_grad_() for value in given]
    surface = flex_surface(known, *given, backend=backend)
    slope = torch.randn_like(surface.vertices)

    def extract():
        return flex_surface(known, *given, backend=backend)

    def back():
        torch.autograd.grad([surface.vertices, surface.deviation], given, [slope, slope.sum()], retain_graph=True)

    stages = {
        "corners": lambda: voxel_corners(fresh(), backend=backend),
        "average": lambda: average_corners(raw, corners, backend=backend),
        "extract_forward": extract,
        "extract_backward": back,
        "step": lambda: step(known),
        "step_new_grid": lambda: step(fresh()),
        "decode": decode,
    }
    if backend != "reference":  # a search among the keys: the same for both
        stages["from_coordinates"] = lambda: step(SparseGrid(grid.coords, grid.offsets, grid.resolution))
    moved = 2 * sum(value.nbytes for value in leaves) + surface.vertices.nbytes + surface.faces.nbytes
    milliseconds = {name: milliseconds(run, device, repeats) for name, run in stages.items()}
    return {
        "backend": backend,
        "vertices": len(surface.vertices),
        "faces": len(surface.faces),
        "milliseconds": milliseconds,
        "mebibytes": {name: held(run, device) for name, run in stages.items()},
        "floor_milliseconds": moved / bandwidth * 1e3,
        "step_fraction_of_floor": moved / bandwidth * 1e3 / milliseconds["step"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", type=Path, help="a closed mesh; a bumpy sphere without it")
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--latents", type=int, nargs="+", default=(8192, 15360))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backends", nargs="+", default=None)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    device = torch.device(args.device)
    mesh = None if args.mesh is None else read_mesh(args.mesh).normalise()[0].to(device)
    distance, bandwidth, results = signed_distance(mesh), copy_bandwidth(device), []
    for kind in (*args.latents, "surface"):
        if kind == "surface":
            grid = surface_grid(distance, args.resolution, device)
        else:
            grid = brick_grid(distance, args.resolution, kind, device)
        leaves = predictions(grid, distance)
        row = {"grid": kind if kind == "surface" else f"bricks of {kind}", "voxels": len(grid)}
        row["corners"] = len(voxel_corners(grid))
        row["input_mebibytes"] = 2 * sum(value.nbytes for value in leaves) / 2**20
        backends = args.backends or (BACKENDS if device.type == "cuda" else BACKENDS[:1])
        row["runs"] = [measure(grid, leaves, name, bandwidth, device, args.repeats) for name in backends]
        results.append(row)
        del grid, leaves
    report = {
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("torch", "numpy")},
        "shape": args.mesh.name if args.mesh else "bumpy sphere",
        "resolution": args.resolution,
        "copy_bytes_per_second": bandwidth,
        "results": results,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
