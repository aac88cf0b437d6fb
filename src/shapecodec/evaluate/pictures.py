"""What the report shows of a shape: three pictures from one side, and two small meshes for its 3D view."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from shapecodec.evaluate.report.view_mesh import write_view_mesh
from shapecodec.io.atomic import atomic_file
from shapecodec.mesh import Mesh
from shapecodec.ops.closest_point import closest_point
from shapecodec.ops.vertex_normals import vertex_normals
from shapecodec.render.colours import error_colours
from shapecodec.render.raster import rasterise
from shapecodec.render.shade import SAMPLES, shade
from shapecodec.render.sheet import VIEWS, framed_cameras

PICTURES = ("original.png", "reconstruction.png", "error.png")
MESHES = ("original.bin", "reconstruction.bin")
SIZE = (640, 560)  # pixels; the page shows them at half of that
DEFAULT_STEPS = 256  # without a resolution the colour bar ends at this part of the unit cube


def draw_shape(
    original: Mesh, reconstruction: Mesh, folder: Path, *, resolution: int | None, device: torch.device | str = "cpu"
) -> None:
    """Write original.png, reconstruction.png, error.png and the view meshes original.bin and reconstruction.bin.

    The error is each vertex's exact distance to the original; the colour bar ends at one voxel, or at 1 / `DEFAULT_STEPS` of the
    unit cube where there is no resolution. All pictures of all shapes are taken from the same side, and their
    background is transparent.

    Args:
        original: in the unit cube.
        reconstruction: in the same frame.
        folder: made if it is missing.
        resolution: voxels an axis, or None.
        device: where distances are found.
    """
    folder.mkdir(parents=True, exist_ok=True)
    scale, unit = (1.0, "lengths") if resolution is None else (float(resolution), "voxels")
    largest = 1 / DEFAULT_STEPS if resolution is None else 1.0
    points = reconstruction.vertices.to(device)
    errors = closest_point(points, original.vertices.to(device), original.faces.to(device)).distance.cpu() * scale
    camera = framed_cameras(original, SIZE, VIEWS[:1])[0].enlarged(SAMPLES)
    heat = error_colours(errors, largest)
    shots = [(original, None, PICTURES[0]), (reconstruction, None, PICTURES[1]), (reconstruction, heat, PICTURES[2])]
    seen = {id(mesh): rasterise(mesh, camera) for mesh in (original, reconstruction)}
    normals = {id(mesh): vertex_normals(mesh.vertices, mesh.faces) for mesh in (original, reconstruction)}
    for mesh, colours, name in shots:
        picture = shade(mesh, camera, seen[id(mesh)], normals=normals[id(mesh)], colours=colours, background=None)
        _save(picture, folder / name)
    write_view_mesh(original, None, folder / MESHES[0], largest=largest, unit=unit)
    write_view_mesh(reconstruction, errors, folder / MESHES[1], largest=largest, unit=unit)


def _save(picture: Image.Image, path: Path) -> None:
    with atomic_file(path) as file:
        picture.save(file, format="PNG")
