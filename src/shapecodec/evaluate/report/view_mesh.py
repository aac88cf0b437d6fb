"""Meshes for the page's 3D view: a small file that a browser opens with its own inflate and sixty lines of script.

A file is a header and a zlib stream. Little endian throughout:

    offset  type        what
    0       4 bytes     "SCVM"
    4       uint8       version, 1
    5       uint8       flags: 1 = errors follow, 2 = errors are in voxels (else lengths)
    6       uint16      0
    8       uint32      V, vertices
    12      uint32      F, faces
    16      float32 x3  low corner
    28      float32     step: vertex = low + step * q, 0 <= q < 2^14
    32      float32     the error of code 255
    36      zlib        the arrays below, one after the other

    lengths   uint32 (3): bytes of the next three
    faces     the streams counts, first and second of `mesh_code`
    x, y, z   uint16 (V) each: residuals of `mesh_code`, zigzag, all low bytes and then all high bytes
    errors    uint8 (V): differences between consecutive codes modulo 256

About 3 bytes a triangle for a reconstruction of 40,000 triangles; indices and quantised positions alone would be 15.
"""

from __future__ import annotations

import struct
import zlib
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from shapecodec.errors import BadArgument, BadFile
from shapecodec.evaluate.report.mesh_code import decode_faces, encode_faces
from shapecodec.evaluate.report.simplify import Simple, simplify
from shapecodec.io.atomic import atomic_file
from shapecodec.mesh import Mesh

MAGIC, VERSION = b"SCVM", 1
_HEADER = struct.Struct("<4sBBHII3fff")
_LENGTHS = struct.Struct("<III")
_ERRORS, _VOXELS = 1, 2
_STEPS = (1 << 13) - 1  # an eighth of a pixel at the size of a page, one pixel at eightfold zoom
MAX_FACES = 40_000
_MOST = 1 << 24  # vertices or faces that a reader believes: a header may lie about its stream


class ViewMesh(NamedTuple):
    """A view mesh in memory.

    Args:
        vertices: (V, 3) float32.
        faces: (F, 3) int64.
        errors: (V,) float32, quantised to 255 steps and cut at `largest`; None where there are none.
        largest: the error at the end of the colour bar.
        unit: of the errors, "voxels" or "lengths".
    """

    vertices: np.ndarray
    faces: np.ndarray
    errors: np.ndarray | None
    largest: float
    unit: str


def write_view_mesh(
    mesh: Mesh,
    errors: torch.Tensor | None,
    path: Path,
    *,
    largest: float = 1.0,
    unit: str = "voxels",
    max_faces: int = MAX_FACES,
) -> int:
    """Write what the page shows of a mesh, simplified to `max_faces` triangles; returns the file's bytes.

    Args:
        mesh: in the frame that the original and the reconstruction share.
        errors: (V,) finite distances of its vertices to the other mesh, or None for a mesh that is never coloured.
        path: the file.
        largest: the error at the end of the colour bar; larger ones are shown as this one.
        unit: of `errors` and `largest`: "voxels", or "lengths" of the frame.
        max_faces: more triangles are simplified (`simplify`); a vertex's error becomes the mean over what it stands for.

    Raises:
        BadArgument: errors of another length, NaN or negative, `largest` not above zero, an unknown unit.
        BadFile: the file cannot be written.
    """
    if not largest > 0 or unit not in ("voxels", "lengths") or max_faces < 1:
        raise BadArgument(f"largest={largest}, unit='{unit}', max_faces={max_faces}.", where="write_view_mesh")
    values = None
    if errors is not None:
        values = errors.detach().cpu().float().numpy()
        if values.shape != (len(mesh.vertices),) or not np.isfinite(values).all() or bool((values < 0).any()):
            raise BadArgument(
                f"errors {tuple(values.shape)} of {len(mesh.vertices)} vertices must be finite and not negative.",
                where="write_view_mesh",
            )
    blob = encode_view_mesh(simplify(*mesh.numpy(), values, max_faces), largest, unit)
    with atomic_file(path) as file:
        file.write(blob)
    return len(blob)


def encode_view_mesh(simple: Simple, largest: float, unit: str) -> bytes:
    """The bytes of a file."""
    low = simple.vertices.min(0)
    step = max(float((simple.vertices.max(0) - low).max()) / _STEPS, 1e-30)
    places = np.round((simple.vertices - low) / step).astype(np.int64).clip(0, _STEPS)
    streams, residuals, order = encode_faces(places, simple.faces)
    flags = (_ERRORS if simple.values is not None else 0) | (_VOXELS if unit == "voxels" else 0)
    parts = [_LENGTHS.pack(*map(len, streams)), *streams]
    parts += [_planes(_zigzag(residuals[:, k])) for k in range(3)]
    if simple.values is not None:
        codes = np.round(np.clip(simple.values[order] / largest, 0, 1) * 255).astype(np.int64)
        parts.append(np.diff(codes, prepend=0).astype(np.uint8).tobytes())
    header = _HEADER.pack(MAGIC, VERSION, flags, 0, len(order), len(simple.faces), *low.tolist(), step, largest)
    return header + zlib.compress(b"".join(parts), 9)


def read_view_mesh(path: Path) -> ViewMesh:
    """The mesh of a file.

    Raises:
        BadFile: missing, of another format, truncated, or with indices outside its vertices.
    """
    try:
        blob = path.read_bytes()
    except OSError as error:
        raise BadFile(f"cannot be read ({error.strerror}).", where=str(path)) from error
    try:
        return decode_view_mesh(blob)
    except BadFile as error:
        raise BadFile(error.what, where=str(path)) from error


def decode_view_mesh(blob: bytes) -> ViewMesh:
    """The mesh of a file's bytes; raises `BadFile` as `read_view_mesh`."""
    if len(blob) < _HEADER.size or blob[:5] != MAGIC + bytes([VERSION]):
        raise BadFile("is not a view mesh of version 1.")
    _, _, flags, _, vertices, faces, *low, step, largest = _HEADER.unpack_from(blob)
    if not 0 < vertices <= _MOST or not 0 < faces <= _MOST:
        raise BadFile(f"announces {vertices:,} vertices and {faces:,} faces.")
    bound = _LENGTHS.size + 5 * vertices + 10 * faces + 7 * vertices  # what the longest streams would need
    try:
        data = zlib.decompressobj().decompress(blob[_HEADER.size :], bound)
        streams, data = _split(data)
    except (zlib.error, struct.error) as error:
        raise BadFile(f"its stream is damaged ({error}).") from error
    if len(data) != (7 if flags & _ERRORS else 6) * vertices:
        raise BadFile(f"its stream does not hold {vertices:,} vertices.")
    residuals = [_unzigzag(_unplanes(data[2 * k * vertices : 2 * (k + 1) * vertices])) for k in range(3)]
    places, found = decode_faces(streams, np.stack(residuals, 1), faces)
    errors = None
    if flags & _ERRORS:
        levels = np.cumsum(np.frombuffer(data, np.uint8, vertices, 6 * vertices), dtype=np.int64) % 256
        errors = (levels * (largest / 255)).astype(np.float32)
    points = (np.array(low) + step * places).astype(np.float32)
    return ViewMesh(points, found, errors, largest, "voxels" if flags & _VOXELS else "lengths")


def _split(data: bytes) -> tuple[list[bytes], bytes]:
    """The three streams, and what follows them."""
    ends = np.cumsum([_LENGTHS.size, *_LENGTHS.unpack_from(data)]).tolist()
    return [data[start:end] for start, end in pairwise(ends)], data[ends[-1] :]


def _zigzag(values: np.ndarray) -> np.ndarray:
    return np.where(values >= 0, 2 * values, -2 * values - 1)


def _unzigzag(codes: np.ndarray) -> np.ndarray:
    return np.where(codes % 2 == 0, codes // 2, -(codes // 2) - 1)


def _planes(codes: np.ndarray) -> bytes:
    return b"".join((codes >> shift & 255).astype(np.uint8).tobytes() for shift in (0, 8))


def _unplanes(data: bytes) -> np.ndarray:
    low, high = np.frombuffer(data, np.uint8).reshape(2, -1).astype(np.int64)
    return low | high << 8
