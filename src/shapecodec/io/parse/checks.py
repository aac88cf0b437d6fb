"""The checks that all parsers share."""

from __future__ import annotations

import numpy as np

from shapecodec.errors import BadFile, BadMesh


def check_count(faces: int, max_faces: int) -> None:
    """Refuse a file with more faces than the caller wants to pay for."""
    if faces > max_faces:
        raise BadMesh(
            f"the file has {faces:,} faces, more than the limit of {max_faces:,}.",
            hint="raise max_faces (--max-faces), or decimate the mesh first.",
        )


def check_faces(faces: np.ndarray, vertices: int) -> None:
    """Refuse face indices (F, 3) outside [0, vertices)."""
    low, high = int(faces.min()), int(faces.max())
    if low < 0 or high >= vertices:
        bad = int(((faces < 0) | (faces >= vertices)).any(1).sum())
        raise BadMesh(
            f"{bad:,} of {len(faces):,} faces point outside the vertices "
            f"(index {low if low < 0 else high}, counted from 0, of {vertices:,} vertices).",
            hint="re-export the file; its face list is damaged.",
        )


def truncated(what: str, need: int, have: int) -> BadFile:
    """The error for a header that promises more bytes than the file has."""
    return BadFile(
        f"{what} needs {need:,} bytes, the file has {have:,}: it is truncated, or its header lies.",
        hint="download or export the file again.",
    )


def fan(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Triangles (T, 3) of polygons: `corners` (sum of sizes,) indices, `sizes` (P,) corners each, at least 3.

    A fan from the first corner, as most readers do; exact for convex polygons.
    """
    if len(sizes) and int(sizes.min()) < 3:
        raise BadFile(f"a face has only {int(sizes.min())} corners.", hint="export triangles or polygons.")
    if len(corners) == 3 * len(sizes):
        return corners.reshape(-1, 3)
    starts = np.cumsum(sizes) - sizes
    pieces = sizes - 2
    first = np.repeat(starts, pieces)
    step = np.arange(len(first)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    return np.stack([corners[first], corners[first + step + 1], corners[first + step + 2]], 1)
