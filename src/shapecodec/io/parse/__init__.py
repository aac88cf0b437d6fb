"""Parsers for untrusted mesh files. They import only numpy and DracoPy, and run in the child that `mesh_files` starts.

Each parser takes a path and a face limit and returns (vertices (V, 3) float, faces (F, 3) int), or raises `BadFile` or
`BadMesh` without a place, which the caller knows. The limit is applied to what the header promises, before anything of
that size is allocated.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np

from shapecodec.errors import BadFile, BadMesh
from shapecodec.io.parse.checks import check_count, check_faces
from shapecodec.io.parse.weld import drop_degenerate, drop_unused, weld_exact

Arrays = tuple[np.ndarray, np.ndarray]

_PARSERS = {
    ".obj": ("text", "parse_obj"),
    ".off": ("text", "parse_off"),
    ".stl": ("stl", "parse_stl"),
    ".ply": ("ply", "parse_ply"),
    ".glb": ("gltf", "parse_gltf"),
    ".gltf": ("gltf", "parse_gltf"),
    ".drc": ("draco", "parse_drc"),
}
FORMATS = tuple(_PARSERS)


def parse_mesh(path: Path, suffix: str, *, max_faces: int, weld: bool = True) -> Arrays:
    """Vertices (V, 3) float32 and faces (F, 3) int32 or int64 of one file: finite, in range, none degenerate by index.

    Raises:
        BadFile: the bytes are not what the format asks for.
        BadMesh: they are, but do not describe a surface.
    """
    module, name = _PARSERS[suffix]
    parse: Callable[[Path, int], Arrays] = getattr(import_module(f"shapecodec.io.parse.{module}"), name)
    vertices, faces = parse(path, max_faces)
    check_count(len(faces), max_faces)
    return clean(vertices, faces, weld=weld)


def clean(vertices: np.ndarray, faces: np.ndarray, *, weld: bool = True) -> Arrays:
    """Check raw arrays, weld equal vertices, drop faces that use a vertex twice and vertices that no face uses."""
    if len(faces) == 0:
        what = "the file holds points but no faces." if len(vertices) else "the file holds no geometry."
        raise BadMesh(what, hint="export triangles, not only points or lines.")
    check_faces(faces, len(vertices))
    with np.errstate(over="ignore", invalid="ignore"):
        vertices = np.ascontiguousarray(vertices, np.float32)
    finite = np.isfinite(vertices).all(1)
    if not finite.all():
        raise BadMesh(
            f"{int((~finite).sum()):,} of {len(vertices):,} vertices are NaN, infinite or beyond float32.",
            hint="remove those vertices and their faces in a mesh editor.",
        )
    faces = faces.astype(np.int32 if len(vertices) < 2**31 else np.int64, copy=False)
    if weld:
        vertices, faces = weld_exact(vertices, faces)
    count = len(faces)
    faces = drop_degenerate(faces)
    if len(faces) == 0:
        raise BadMesh(f"all {count:,} faces are degenerate: each uses one point more than once.")
    return drop_unused(vertices, faces)


__all__ = ["FORMATS", "BadFile", "clean", "parse_mesh"]
