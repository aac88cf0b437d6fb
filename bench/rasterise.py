"""Rasterise, interpolate and blend outlines, forward and backward to the vertices, stage by stage; as JSON.

    python bench/rasterise.py                       # CUDA if there is one
    python bench/rasterise.py --device cpu --faces 86000 --repeats 1
    python bench/rasterise.py --backends auto       # without the reference beside it

The mesh is a sphere with bumps, seen so that it fills the image. Times are medians of whole stages, so they sum to more than
one call in which the device has work queued. On CUDA they are those of the device (events), on a CPU of the wall clock.
`attributes` is what other libraries' rasterise, interpolate and antialias do: five values of vertices, outlines blended,
gradients to clip coordinates, all of it on a mesh seen for the first time, whose edges are not yet known; `render_mesh` is
projection, depth, normals, mask and their gradient to the vertices. Memory is what is held at most above the mesh. The floor
counts faces and clip coordinates read once, the slopes of clip written once, and ten images of eight values.
"""

import argparse
import json
import math
import os
import platform
from importlib.metadata import version

import torch
from sparse_conv import milliseconds

from shapecodec.camera import Camera, orbit
from shapecodec.ops.rasterise import rasterise
from shapecodec.render.differentiable import blended, corner_weights, interpolate, render_mesh, to_clip
from shapecodec.render.silhouette import edge_neighbours

FACES = (86_000, 269_000, 1_070_000, 4_300_000)
SIZES = (518, 1024)


def bumpy_sphere(faces, device):
    """About `faces` faces: a grid of 2 n by n quads around the axis, with bumps of a tenth of the radius."""
    n = round(math.sqrt(faces / 4))
    polar = torch.linspace(1e-3, math.pi - 1e-3, n + 1)
    around = torch.linspace(0, 2 * math.pi, 2 * n + 1)[:-1]
    p, q = torch.meshgrid(polar, around, indexing="ij")
    radius = 0.4 + 0.04 * (9 * p).sin() * (8 * q).sin()
    vertices = torch.stack([p.sin() * q.sin(), p.cos(), p.sin() * q.cos()], -1) * radius[..., None]
    k = torch.arange(2 * n * n)
    row, column = k // (2 * n) * (2 * n), k % (2 * n)
    a, b = row + column, row + (column + 1) % (2 * n)
    c, d = a + 2 * n, b + 2 * n
    triangles = torch.stack([a, c, d, a, d, b], 1).view(-1, 3)
    return vertices.view(-1, 3).to(device), triangles.to(device)


def held(run, device):
    """MiB that run() allocates at most above what is there before; None on a CPU."""
    if device.type != "cuda":
        return None
    run()
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def copy_bandwidth(device):
    """Bytes a second, read and written, of a copy of 256 MB (4 GB on CUDA)."""
    source = torch.ones((1024 if device.type == "cuda" else 64) << 20, device=device)
    target = torch.zeros_like(source)
    return 2 * source.nbytes / milliseconds(lambda: target.copy_(source), device, 5) * 1e3


def stages(vertices, triangles, size, backend, device, repeats):
    """What one backend of the pictures takes; rasterising is always the device's own."""
    camera = Camera.perspective(orbit(20, 20, 2.0), (0, 0, 0), 30.0, (size, size))
    moving = vertices.clone().requires_grad_()
    place = to_clip(vertices, [camera]).requires_grad_()
    seen = rasterise(place, triangles, (size, size))
    values = torch.rand(len(vertices), 5, device=device, requires_grad=True)
    neighbours = edge_neighbours(triangles)

    def shade():
        weights = corner_weights(place, triangles, seen.face, backend=backend)
        return interpolate(values, triangles, seen.face, weights, backend=backend)

    picture = shade().detach()

    def blend(known=None):
        return blended(picture, place, triangles, seen, neighbours=known, backend=backend)

    def attributes():
        seen = rasterise(place, triangles, (size, size))
        weights = corner_weights(place, triangles, seen.face, backend=backend)
        image = interpolate(values, triangles, seen.face, weights, backend=backend)
        return blended(image, place, triangles, seen, backend=backend)

    def draw():
        chosen = "auto" if backend == "auto" else "cpu" if device.type == "cpu" else backend
        return render_mesh(moving, triangles, [camera], backend=chosen)

    def whole():
        drawn = draw()
        torch.autograd.grad(drawn.mask.sum() + drawn.depth.sum() + drawn.normal.square().sum(), moving)

    image, slope = attributes(), torch.rand(1, size, size, 5, device=device)
    found = {
        "to_clip": lambda: to_clip(moving, [camera], backend=backend),
        "rasterise": lambda: rasterise(place, triangles, (size, size)),
        "edge_neighbours": lambda: edge_neighbours(triangles),
        "interpolate": shade,
        "blend": blend,
        "blend_known_neighbours": lambda: blend(neighbours),
        "attributes_forward": attributes,
        "attributes_backward": lambda: torch.autograd.grad(image, (place, values), slope, retain_graph=True),
        "attributes_forward_backward": lambda: torch.autograd.grad(attributes(), (place, values), slope),
        "render_mesh_forward": draw,
        "render_mesh_forward_backward": whole,
    }
    if backend == "reference" and device.type == "cuda":  # its rasteriser there is for tests
        found = {name: run for name, run in found.items() if not name.startswith("render_mesh")}
    return {
        "faces": len(triangles),
        "size": size,
        "backend": backend,
        "covered": float((seen.face >= 0).float().mean()),
        "milliseconds": {name: milliseconds(run, device, repeats) for name, run in found.items()},
        "mebibytes": {name: held(run, device) for name, run in found.items()},
        "floor_bytes": triangles.nbytes + 2 * place.nbytes + 10 * size * size * 32,
    }


def measured(faces, size, args, device):
    """Rows of one mesh and size, the fraction of the floor with them."""
    vertices, triangles = bumpy_sphere(faces, device)
    bandwidth = copy_bandwidth(device)
    rows = [stages(vertices, triangles, size, backend, device, args.repeats) for backend in args.backends]
    for row in rows:
        row["floor_milliseconds"] = row.pop("floor_bytes") / bandwidth * 1e3
        row["fraction_of_floor"] = row["floor_milliseconds"] / row["milliseconds"]["attributes_forward_backward"]
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--faces", type=int, nargs="+", default=FACES)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--backends", nargs="+", default=("auto", "reference"), choices=("auto", "reference"))
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    device = torch.device(args.device)
    report = {
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("torch", "numba")},
        "results": [row for n in args.faces for size in args.sizes for row in measured(n, size, args, device)],
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
