"""Rasterise, interpolate and blend outlines, forward and backward to the vertices, stage by stage; as JSON.

    python bench/rasterise.py                       # CUDA if there is one
    python bench/rasterise.py --device cpu --faces 86000 --repeats 1

The mesh is a sphere with bumps, seen so that it fills the image. Times are medians of whole stages, so they sum to more than
one call in which the device has work queued. `blend` includes the search for outlines; `neighbours` is what a mesh that
changes in every step pays for its edges. On CUDA times are those of the device (events), on a CPU of the wall clock.
"""

import argparse
import json
import math
import os
import platform
import statistics
import time
from importlib.metadata import version

import torch

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


def milliseconds(run, device, repeats):
    """Median time of run() after two warm-ups."""
    times = []
    for _ in range(repeats + 2):
        if device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
        else:
            start = time.perf_counter()
            run()
            times.append((time.perf_counter() - start) * 1e3)
    return statistics.median(times[2:])


def stages(faces, size, device, repeats):
    vertices, triangles = bumpy_sphere(faces, device)
    camera = Camera.perspective(orbit(20, 20, 2.0), (0, 0, 0), 30.0, (size, size))
    clip = to_clip(vertices, [camera])
    seen = rasterise(clip, triangles, (size, size))
    neighbours = edge_neighbours(triangles)
    values = torch.rand(len(vertices), 5, device=device)

    def shade():
        return interpolate(values, triangles, seen.face, corner_weights(clip, triangles, seen.face))

    picture = shade()
    moving, place = vertices.clone().requires_grad_(), clip.clone().requires_grad_()

    def attributes():  # what nvdiffrast's three calls do: five values of vertices, gradients to clip coordinates
        image = interpolate(values, triangles, seen.face, corner_weights(place, triangles, seen.face))
        return blended(image, place, triangles, seen, neighbours=neighbours)

    def whole():
        drawn = render_mesh(moving, triangles, [camera])
        torch.autograd.grad(drawn.mask.sum() + drawn.depth.sum() + drawn.normal.square().sum(), moving)

    found = {
        "rasterise": lambda: rasterise(clip, triangles, (size, size)),
        "neighbours": lambda: edge_neighbours(triangles),
        "interpolate": shade,
        "blend": lambda: blended(picture, clip, triangles, seen, neighbours=neighbours),
        "interpolate_and_blend_forward_backward": lambda: torch.autograd.grad(attributes().sum(), place),
        "render_mesh_forward_backward": whole,
    }
    return {
        "faces": len(triangles),
        "size": size,
        "covered": float((seen.face >= 0).float().mean()),
        "milliseconds": {name: milliseconds(run, device, repeats) for name, run in found.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--faces", type=int, nargs="+", default=FACES)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    device = torch.device(args.device)
    report = {
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "versions": {name: version(name) for name in ("torch", "numba")},
        "results": [stages(n, size, device, args.repeats) for n in args.faces for size in args.sizes],
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
