"""STL, binary and ASCII.

A library reader (trimesh 5.2) returns an empty mesh for truncated files and takes 31 s and 6 GB for 10M faces, unwelded.
Here the size must fit the count exactly, and those 10M faces take 15 s and 2.1 GB, of which welding takes most.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from shapecodec.errors import BadFile
from shapecodec.io.parse.checks import check_count, truncated

_FACET = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_HEADER = 84
_CORNER = re.compile(rb"vertex\s+(\S+)\s+(\S+)\s+(\S+)", re.IGNORECASE)


def parse_stl(path: Path, max_faces: int) -> tuple[np.ndarray, np.ndarray]:
    """Three vertices a face, unwelded. Many binary files start with `solid`, so the size decides, not that word."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1024)
    count = int.from_bytes(head[80:84], "little") if size >= _HEADER else -1
    if count >= 0 and size == _HEADER + _FACET.itemsize * count:
        check_count(count, max_faces)
        corners = np.fromfile(path, _FACET, count, offset=_HEADER)["corners"].reshape(-1, 3)
    elif head.lstrip()[:5].lower() == b"solid" and b"\0" not in head:
        corners = _ascii_corners(path.read_bytes(), max_faces)
    elif count < 0:
        raise truncated("an STL header", _HEADER, size)
    else:
        need = _HEADER + _FACET.itemsize * count
        if size > need:
            raise BadFile(
                f"the STL header promises {count:,} faces ({need:,} bytes), but the file has {size:,} bytes.",
                hint="export the file again; its header lies about its count.",
            )
        raise truncated(f"an STL of {count:,} faces", need, size)
    return corners, np.arange(len(corners), dtype=np.int64).reshape(-1, 3)


def _ascii_corners(text: bytes, max_faces: int) -> np.ndarray:
    """(3F, 3) float64 corners of an ASCII file."""
    lower = text.lower()
    opened, closed = lower.count(b"facet normal"), lower.count(b"endfacet")
    check_count(closed, max_faces)
    if b"endsolid" not in lower[-4096:] or opened != closed:
        raise BadFile(
            f"the ASCII STL is truncated: {opened:,} facets begin, {closed:,} end.",
            hint="download or export the file again.",
        )
    numbers = _CORNER.findall(text)
    if len(numbers) != 3 * closed:
        raise BadFile(f"the ASCII STL has {len(numbers):,} vertices for {closed:,} facets.", hint="export it again.")
    try:
        return np.array(numbers, dtype="S").reshape(-1, 3).astype(np.float64)
    except ValueError as error:
        raise BadFile(f"the ASCII STL has a vertex that is not a number ({error}).", hint="export it again.") from error
