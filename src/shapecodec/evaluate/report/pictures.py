"""Pictures on their way into the page: reduced, and as small as WebP makes them, which keeps their transparency."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import NamedTuple

from PIL import Image

WIDTH = 640  # pixels: twice what a picture takes on a wide page
_LARGEST = 8192  # pixels an axis that are believed to be a picture of a shape
_QUALITY = 80


class Picture(NamedTuple):
    """A picture as a data URI, with its size in pixels."""

    uri: str
    width: int
    height: int


def load_picture(path: Path) -> Picture | str:
    """The picture of a file, or the reason why there is none."""
    if not path.is_file():
        return "not in the run folder"
    try:
        with Image.open(path, formats=("PNG", "JPEG", "WEBP")) as image:
            if max(image.size) > _LARGEST:
                return f"too large: {image.width} x {image.height} pixels"
            picture = image.convert("RGBA" if image.has_transparency_data else "RGB")
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:  # what Pillow raises on damaged files
        return f"cannot be read ({type(error).__name__})"
    picture.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    with io.BytesIO() as file:
        picture.save(file, format="WEBP", quality=_QUALITY, alpha_quality=70, method=4)
        data = base64.b64encode(file.getvalue()).decode()
    return Picture(f"data:image/webp;base64,{data}", *picture.size)
