"""What a training step of Focusing computes beside its networks, piece by piece, on a real or a made mesh; as JSON.

    python bench/focusing_supervision.py --mesh bunny.drc                      # on CUDA where there is one
    python bench/focusing_supervision.py --device cpu --resolution 128 --points 20000 --repeats 1

Times are medians of CUDA events (of the wall clock on a CPU) after two warm-ups, in milliseconds: sampling oriented points
evenly by area and by voxel, the normals that tell sides, signed distances at a quarter million corners, occupancy of both
subdivisions' children, total variation and SSIM forward and backward, and a batch of the source.
"""

import argparse
import json
from pathlib import Path

import torch
from sparse_conv import milliseconds

from shapecodec.codecs.focusing.targets import Surface, occupied_children, signed_distance
from shapecodec.codecs.focusing.total_variation import total_variation
from shapecodec.codecs.focusing.views import CameraConfig, draw_cameras
from shapecodec.data.augment import Augment, augmented
from shapecodec.data.procedural import procedural_mesh
from shapecodec.grid import SparseGrid
from shapecodec.io.mesh_files import read_mesh
from shapecodec.ops.flex_surface import voxel_corners
from shapecodec.ops.sample_surface import sample_surface
from shapecodec.ops.voxelise import voxelise
from shapecodec.render.ssim import ssim


def pieces(mesh, arguments):
    """Name -> what is timed."""
    device, generator = mesh.vertices.device, torch.Generator().manual_seed(0)
    latent = voxelise(mesh.vertices, mesh.faces, arguments.resolution // 4, dilation=1.0)
    kept = SparseGrid(
        latent.coords[: arguments.latents], torch.tensor([0, min(len(latent), arguments.latents)]), latent.resolution
    )
    middle = kept.children()
    corners = voxel_corners(middle.children())
    places = corners.positions()
    places = places[torch.randint(len(places), (1 << 18,), generator=generator).to(device)]
    values = signed_distance(corners.positions(), Surface.of(mesh)).requires_grad_()
    pictures = torch.rand(2, 1, 518, 518, 3, generator=generator).to(device)
    first = pictures[0].clone().requires_grad_()
    surface = Surface.of(mesh, welded=True)
    faces, count = mesh.faces, arguments.points
    return len(corners), {
        "sample_even": lambda: sample_surface(mesh.vertices, faces, count, generator),
        "sample_by_voxel": lambda: sample_surface(mesh.vertices, faces, count, generator, voxels=latent.resolution),
        "surface_welded": lambda: Surface.of(mesh, welded=True),
        "surface_not_welded": lambda: Surface.of(mesh),
        "signed_distance": lambda: signed_distance(places, surface),
        "occupied_first": lambda: occupied_children(kept, [mesh]),
        "occupied_second": lambda: occupied_children(middle, [mesh]),
        "total_variation": lambda: total_variation(values, corners).backward(),
        "ssim": lambda: ssim(first, pictures[1]).sum().backward(),
        "augment": lambda: augmented(mesh, generator, Augment(), keep_outside=True),
        "camera": lambda: draw_cameras(1, generator, 518, CameraConfig()),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mesh", type=Path, help="default: a procedural one")
    parser.add_argument("--resolution", type=int, default=512)
    parser.add_argument("--latents", type=int, default=15360, help="latent voxels that are decoded")
    parser.add_argument("--points", type=int, default=819_200)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    mesh = procedural_mesh(torch.Generator().manual_seed(0)) if arguments.mesh is None else read_mesh(arguments.mesh)
    mesh = mesh.normalise()[0].to(arguments.device)
    corners, runs = pieces(mesh, arguments)
    device = mesh.vertices.device
    report = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "mesh": mesh.name,
        "faces": len(mesh.faces),
        "resolution": arguments.resolution,
        "corners": corners,
        "points": arguments.points,
        "milliseconds": {name: round(milliseconds(run, device, arguments.repeats), 3) for name, run in runs.items()},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
