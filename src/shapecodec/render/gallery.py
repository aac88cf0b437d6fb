"""A picture of many shapes, one cell each, with captions."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from shapecodec.errors import BadArgument
from shapecodec.mesh import Mesh
from shapecodec.render.shade import PAPER, render
from shapecodec.render.sheet import FAINT, INK, VIEWS, _font, framed_cameras

_EDGE, _CAPTION = 36, 40


def gallery(
    meshes: Sequence[Mesh | None],
    captions: Sequence[str] = (),
    *,
    title: str = "",
    subtitle: str = "",
    columns: int = 4,
    cell: tuple[int, int] = (360, 320),
) -> Image.Image:
    """Shapes in rows, each from the front and above, zoomed to fill its cell.

    Args:
        meshes: in any frame; None leaves a cell empty.
        captions: one a mesh, or none at all.
        title: first line.
        subtitle: second line.
        columns: cells a row.
        cell: (width, height) pixels.

    Raises:
        BadArgument: no meshes, or another number of captions.
    """
    if not meshes or columns < 1 or len(captions) not in (0, len(meshes)):
        raise BadArgument(f"{len(meshes)} meshes, {len(captions)} captions, {columns} columns.", where="gallery")
    width, height = cell
    head, rows = 104 if title or subtitle else 20, -(-len(meshes) // columns)
    sheet = Image.new("RGB", (2 * _EDGE + columns * width, head + rows * (height + _CAPTION) + 20), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_EDGE, 26), title, INK, _font(30))
    draw.text((_EDGE, 66), subtitle, FAINT, _font(19))
    for index, mesh in enumerate(meshes):
        left, top = _EDGE + index % columns * width, head + index // columns * (height + _CAPTION)
        if mesh is not None:
            unit = mesh.to("cpu").normalise()[0]
            sheet.paste(render(unit, framed_cameras(unit, cell, VIEWS[:1])[0]), (left, top))
        if captions:
            draw.text((left + width // 2, top + height + 6), captions[index], FAINT, _font(17), anchor="ma")
    return sheet
