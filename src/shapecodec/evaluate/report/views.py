"""The 3D views of a page: every shape the same share of the page, in fewer triangles where its own file is larger."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from shapecodec.errors import BadFile
from shapecodec.evaluate.report.simplify import simplify
from shapecodec.evaluate.report.view_mesh import ViewMesh, decode_view_mesh, encode_view_mesh

SIDES = ("original", "reconstruction")
_LEAST = (
    60_000  # bytes a shape: about 20,000 triangles for both meshes; fewer would show the simplification, not the codec
)
_MOST = 64 << 20  # bytes of a file that is believed to be a view mesh


class Views(NamedTuple):
    """The view of one shape.

    Args:
        blobs: "original" and "reconstruction" -> base64; empty where there is no view.
        note: why there is none.
        bar: what the last colour stands for, such as "1 voxel".
    """

    blobs: Mapping[str, str]
    note: str
    bar: str


def load_views(folders: Sequence[Path | None], total: int) -> list[Views]:
    """The views of shapes, worst ones first; `total` bytes for all of them before base64."""
    share = max(total // max(len(folders), 1), _LEAST)
    found, spent = [], 0
    for folder in folders:
        if spent + share > max(total, share):
            found.append(Views({}, "No 3D view: the page would grow too large.", _bar(folder)))
            continue
        view, size = _load(folder, share)
        found.append(view)
        spent += size
    return found


def _load(folder: Path | None, share: int) -> tuple[Views, int]:
    """The view of a folder, and its bytes."""
    if folder is None:
        return Views({}, "No 3D view: its name is no folder.", ""), 0
    stored: dict[str, bytes] = {}
    meshes: dict[str, ViewMesh] = {}
    for side in SIDES:
        path = folder / f"{side}.bin"
        if not path.is_file() or path.stat().st_size > _MOST:
            return Views({}, f"No 3D view: {side}.bin is not in the run folder.", ""), 0
        stored[side] = path.read_bytes()
        try:
            meshes[side] = decode_view_mesh(stored[side])
        except BadFile as error:
            return Views({}, f"No 3D view: {side}.bin {error.what}", ""), 0
    left = share
    for side in sorted(
        SIDES, key=lambda side: len(stored[side])
    ):  # what the smaller one does not need, the larger one has
        allowed = left // 2 if left == share else left
        if len(stored[side]) > allowed:
            stored[side] = _reduced(meshes[side], allowed, len(stored[side]))
        left -= len(stored[side])
    size = sum(map(len, stored.values()))
    blobs = {side: base64.b64encode(stored[side]).decode() for side in SIDES}
    return Views(blobs, "", _text(meshes["reconstruction"])), size


def _reduced(mesh: ViewMesh, size: int, now: int) -> bytes:
    """The mesh in about `size` bytes; bytes grow with triangles."""
    blob = b""
    faces = len(mesh.faces) * size * 19 // (20 * now)  # fewer triangles take more bytes each
    for _ in range(3):
        simple = simplify(mesh.vertices, mesh.faces, mesh.errors, max(faces, 1000))
        blob = encode_view_mesh(simple, mesh.largest, mesh.unit)
        if len(blob) <= 1.05 * size or faces <= 1000:
            break
        faces = faces * size // len(blob)
    return blob


def _bar(folder: Path | None) -> str:
    path = folder / "reconstruction.bin" if folder else None
    if path is None or not path.is_file() or path.stat().st_size > _MOST:
        return ""
    try:
        return _text(decode_view_mesh(path.read_bytes()))
    except BadFile:
        return ""


def _text(mesh: ViewMesh) -> str:
    if mesh.unit == "lengths":
        return f"{mesh.largest:g}"
    return f"{mesh.largest:g} {'voxel' if mesh.largest == 1 else 'voxels'}"
