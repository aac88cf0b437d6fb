"""Pictures on their way into the page: freed from their background where it is plain, reduced, and as small as WebP makes them."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

WIDTH = 640  # pixels: twice what a picture takes on a wide page
_LARGEST = 8192  # pixels an axis that are believed to be a picture of a shape
_QUALITY = 80
_NEAR = 2  # grey levels: what a plain background may differ by after other encoders


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
            pixels = np.asarray(image.convert("RGBA"))
    except (
        OSError,
        ValueError,
        SyntaxError,
        Image.DecompressionBombError,
    ) as error:  # what Pillow raises on damaged files
        return f"cannot be read ({type(error).__name__})"
    if bool((pixels[..., 3] == 255).all()):
        pixels = without_background(pixels)
    picture = Image.fromarray(pixels)
    picture.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    with io.BytesIO() as file:
        picture.save(file, format="WEBP", quality=_QUALITY, alpha_quality=70, method=4)
        data = base64.b64encode(file.getvalue()).decode()
    return Picture(f"data:image/webp;base64,{data}", *picture.size)


def without_background(pixels: np.ndarray) -> np.ndarray:
    """Alpha for a picture (H, W, 4) uint8 with one plain colour along its border; any other is returned as it is.

    A pixel beside the background is a mixture c = a f + (1 - a) b of the background b and what stands in front, f, taken from
    the nearest pixels that are not mixed: a is the least squares solution, and the pixel's colour becomes f.
    """
    colour = pixels[..., :3].astype(np.int16)
    border = np.concatenate([colour[0], colour[-1], colour[:, 0], colour[:, -1]])
    if len(border) < 16 or int((border.max(0) - border.min(0)).max()) > _NEAR:
        return pixels
    ground = np.median(border, 0)
    distance = np.abs(colour - ground).max(2)
    outside = distance <= _NEAR
    outside &= (_around(outside.astype(np.int16)) >= 3) | (
        distance == 0
    )  # a pixel that is near by itself is a highlight
    rim = (_around(outside.astype(np.int16)) > 0) & ~outside
    solid = ~outside & ~rim
    weight = np.maximum(_around(solid.astype(np.float32)), 1e-6)
    front = np.stack([_around(np.where(solid, colour[..., k], 0).astype(np.float32)) / weight for k in range(3)], 2)
    reach = front - ground
    alpha = ((colour - ground) * reach).sum(2) / np.maximum((reach**2).sum(2), 1e-6)
    mixed = (
        rim & (weight >= 1) & ((reach**2).sum(2) > 64)
    )  # thinner than three pixels: there is nothing to compare with
    result = pixels.copy()
    result[..., 3] = np.where(outside, 0, np.where(mixed, np.clip(alpha, 0, 1) * 255, 255)).round().astype(np.uint8)
    result[..., :3] = np.where(mixed[..., None], front, colour).round().clip(0, 255).astype(np.uint8)
    return result


def _around(values: np.ndarray) -> np.ndarray:
    """The sum of each pixel and its eight neighbours; the border is continued."""
    wide = np.pad(values, 1, mode="edge")
    rows = wide[:-2] + wide[1:-1] + wide[2:]
    return rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
