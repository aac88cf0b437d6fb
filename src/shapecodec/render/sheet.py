"""The contact sheet: original, reconstruction and error, each from four sides, with captions and a colour bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw, ImageFont

from shapecodec.camera import Camera, orbit
from shapecodec.mesh import Mesh
from shapecodec.ops.closest_point import closest_point
from shapecodec.ops.vertex_normals import vertex_normals
from shapecodec.render.colours import error_colours
from shapecodec.render.raster import Visible, rasterise, seen_vertices
from shapecodec.render.shade import PAPER, SAMPLES, shade

VIEWS = ((32.0, 16.0), (122.0, 16.0), (212.0, 16.0), (302.0, 48.0))  # yaw, pitch in degrees
INK, FAINT, RULE = (34, 37, 43), (112, 117, 126), (222, 224, 228)
FIELD_OF_VIEW, DISTANCE = 24.0, 3.4  # degrees; unit-cube lengths: a long lens, so that proportions stay readable


@dataclass(frozen=True)
class SheetStyle:
    """Sizes of a contact sheet.

    Args:
        cell: (width, height) pixels of one picture.
        largest: the error in voxels at the end of the colour bar.
    """

    cell: tuple[int, int] = (460, 400)
    largest: float = 1.0


class _Shots(NamedTuple):
    cameras: list[Camera]
    pictures: list[Visible]
    normals: torch.Tensor


def contact_sheet(
    original: Mesh,
    reconstruction: Mesh,
    *,
    resolution: int,
    title: str = "",
    subtitle: str = "",
    style: SheetStyle | None = None,
) -> Image.Image:
    """Three rows of four views: the original, the reconstruction, and its distance to the original in voxels.

    Args:
        original: in the unit cube.
        reconstruction: in the same frame.
        resolution: voxels an axis, the unit of the error.
        title: first line; the codec and the input.
        subtitle: second line; the numbers.
        style: sizes.
    """
    style = style or SheetStyle()
    original, reconstruction = original.to("cpu"), reconstruction.to("cpu")
    cameras = framed_cameras(original, style.cell)
    before, after = _shots(original, cameras), _shots(reconstruction, cameras)
    heat = error_colours(vertex_errors(original, reconstruction, after.pictures) * resolution, style.largest)
    rows = [
        (f"Original   {len(original.faces):,} triangles", _row(original, before, None)),
        (f"Reconstruction   {len(reconstruction.faces):,} triangles", _row(reconstruction, after, None)),
        ("Distance from the reconstruction to the original", _row(reconstruction, after, heat)),
    ]
    return _compose(rows, title, subtitle, style, resolution)


def framed_cameras(mesh: Mesh, size: tuple[int, int], views: Sequence[tuple[float, float]] = VIEWS) -> list[Camera]:
    """A camera for each (yaw, pitch) in degrees, zoomed to a mesh of the unit cube; `size` is (width, height) pixels."""
    corners = mesh.vertices[mesh.faces.unique()]
    return [
        Camera.perspective(orbit(yaw, pitch, DISTANCE), (0, 0, 0), FIELD_OF_VIEW, size).framed(corners, 0.07)
        for yaw, pitch in views
    ]


def vertex_errors(original: Mesh, reconstruction: Mesh, pictures: list[Visible]) -> torch.Tensor:
    """(V,) float32 exact distances of the reconstruction's vertices to the original; 0 where no picture shows them."""
    seen = seen_vertices(reconstruction, pictures)
    errors = torch.zeros(len(reconstruction.vertices))
    errors[seen] = closest_point(reconstruction.vertices[seen], original.vertices, original.faces).distance
    return errors


def _shots(mesh: Mesh, cameras: list[Camera]) -> _Shots:
    large = [camera.enlarged(SAMPLES) for camera in cameras]
    return _Shots(large, [rasterise(mesh, camera) for camera in large], vertex_normals(mesh.vertices, mesh.faces))


def _row(mesh: Mesh, shots: _Shots, colours: torch.Tensor | None) -> list[Image.Image]:
    return [
        shade(mesh, camera, visible, normals=shots.normals, colours=colours)
        for camera, visible in zip(shots.cameras, shots.pictures, strict=True)
    ]


def _compose(
    rows: list[tuple[str, list[Image.Image]]], title: str, subtitle: str, style: SheetStyle, resolution: int
) -> Image.Image:
    (width, height), edge, caption, head = style.cell, 36, 44, 104 if title or subtitle else 20
    sheet = Image.new("RGB", (2 * edge + len(VIEWS) * width, head + len(rows) * (caption + height) + 92), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((edge, 26), title, INK, _font(30))
    draw.text((edge, 66), subtitle, FAINT, _font(19))
    for index, (text, pictures) in enumerate(rows):
        top = head + index * (caption + height)
        draw.line([(edge, top), (sheet.width - edge, top)], RULE, 2)
        name, _, count = text.partition("   ")
        draw.text((edge, top + 12), name, INK, _font(21))
        draw.text((edge + draw.textlength(name, _font(21)) + 14, top + 14), count, FAINT, _font(19))
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (edge + column * width, top + caption))
    _colour_bar(draw, (edge, sheet.height - 78), style.largest, resolution)
    return sheet


def _colour_bar(draw: ImageDraw.ImageDraw, corner: tuple[int, int], largest: float, resolution: int) -> None:
    x, y, length = *corner, 460
    ramp = error_colours(torch.linspace(0, largest, length), largest).tolist()
    for column, colour in enumerate(ramp):
        draw.line([(x + column, y), (x + column, y + 16)], tuple(colour))
    for part in (0.0, 0.25, 0.5, 0.75, 1.0):
        text = f"{part * largest:g}" if part < 1 else f"{largest:g}+"
        place = x + part * (length - 1)
        draw.line([(place, y + 17), (place, y + 22)], FAINT)
        draw.text((place, y + 26), text, FAINT, _font(17), anchor="la" if part == 0 else "ma")
    note = f"voxels; one voxel is 1/{resolution} of the unit cube"
    draw.text((x + length + 40, y - 3), note, FAINT, _font(19))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own typeface: no font file has to be found."""
    return ImageFont.load_default(size)
