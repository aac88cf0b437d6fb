"""Writers: binary formats go out in pieces, so that 14M triangles need no second copy of the mesh."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from shapecodec.errors import BadArgument, BadFile
from shapecodec.io.atomic import atomic_file
from shapecodec.mesh import Mesh

_ROWS = 1 << 19  # rows a piece: 26 MB of STL facets
DRACO_BITS = 16

Colours = np.ndarray | None


def write_mesh(mesh: Mesh, path: str | Path, *, colours: torch.Tensor | np.ndarray | None = None) -> None:
    """Write a mesh as .obj, .ply, .stl, .glb or .drc: the suffix decides. The file appears whole or not at all.

    All formats but .drc keep float32 positions exactly. .drc is lossy: it rounds each coordinate to 16 bits of the
    longest side (error at most 1 / 131,070 of it) and may reorder vertices and faces.

    Args:
        mesh: any mesh, on any device.
        path: the file to write; its folder must exist.
        colours: (V, 3) uint8 RGB of the vertices, for .ply and .glb.

    Raises:
        BadFile: unknown format, missing or unwritable folder.
        BadArgument: colours of a wrong shape or type, or for a format that has none.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in _WRITERS:
        known = " ".join(_WRITERS)
        raise BadFile(f"cannot write the mesh format '{path.suffix}'.", where=str(path), hint=f"use one of {known}")
    vertices, faces = mesh.numpy()
    rgb = _check_colours(colours, len(vertices), suffix)
    with atomic_file(path) as file:
        _WRITERS[suffix](file, vertices, faces, rgb)


def _check_colours(colours: torch.Tensor | np.ndarray | None, count: int, suffix: str) -> Colours:
    if colours is None:
        return None
    rgb = colours.cpu().numpy() if isinstance(colours, torch.Tensor) else np.asarray(colours)
    if suffix not in (".ply", ".glb"):
        raise BadArgument(f"{suffix} files hold no vertex colours here.", where="write_mesh", hint="use .ply or .glb.")
    if rgb.shape != (count, 3) or rgb.dtype != np.uint8:
        raise BadArgument(f"colours must be ({count}, 3) uint8, got {rgb.shape} {rgb.dtype}.", where="write_mesh")
    return rgb


def _pieces(count: int) -> Iterator[slice]:
    return (slice(start, min(start + _ROWS, count)) for start in range(0, count, _ROWS))


def _write_obj(file: BinaryIO, vertices: np.ndarray, faces: np.ndarray, colours: Colours) -> None:
    """Nine significant digits restore a float32 exactly."""
    for part in _pieces(len(vertices)):
        values = vertices[part].astype(np.float64)
        file.write(("v %.9g %.9g %.9g\n" * len(values) % tuple(values.reshape(-1).tolist())).encode())
    for part in _pieces(len(faces)):
        index = faces[part] + 1
        file.write(("f %d %d %d\n" * len(index) % tuple(index.reshape(-1).tolist())).encode())


def _write_ply(file: BinaryIO, vertices: np.ndarray, faces: np.ndarray, colours: Colours) -> None:
    names = [("position", "<f4", 3)] if colours is None else [("position", "<f4", 3), ("colour", "u1", 3)]
    lines = ["ply", "format binary_little_endian 1.0", "comment shapecodec", f"element vertex {len(vertices)}"]
    lines += [f"property float {axis}" for axis in "xyz"]
    lines += [f"property uchar {channel}" for channel in ("red", "green", "blue") if colours is not None]
    lines += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header\n"]
    file.write("\n".join(lines).encode())
    for part in _pieces(len(vertices)):
        rows = np.zeros(len(vertices[part]), names)
        rows["position"] = vertices[part]
        if colours is not None:
            rows["colour"] = colours[part]
        file.write(rows.data)
    for part in _pieces(len(faces)):
        records = np.zeros(len(faces[part]), [("size", "u1"), ("corners", "<i4", 3)])
        records["size"], records["corners"] = 3, faces[part]
        file.write(records.data)


def _write_stl(file: BinaryIO, vertices: np.ndarray, faces: np.ndarray, colours: Colours) -> None:
    file.write(b"binary STL by shapecodec".ljust(80) + struct.pack("<I", len(faces)))
    for part in _pieces(len(faces)):
        corners = vertices[faces[part]]
        wide = corners.astype(np.float64)
        normals = np.cross(wide[:, 1] - wide[:, 0], wide[:, 2] - wide[:, 0])
        length = np.linalg.norm(normals, axis=1, keepdims=True)
        rows = np.zeros(len(corners), [("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
        rows["normal"] = np.divide(normals, length, out=np.zeros_like(normals), where=length > 0)
        rows["corners"] = corners
        file.write(rows.data)


def _write_glb(file: BinaryIO, vertices: np.ndarray, faces: np.ndarray, colours: Colours) -> None:
    """One mesh, one primitive; without normals viewers shade it flat (glTF 3.7.2.1), which hides nothing."""
    sizes = [12 * len(faces), 12 * len(vertices), 0 if colours is None else 4 * len(vertices)]
    if sum(sizes) + 4096 > 0xFFFFFFFF:
        raise BadFile("a GLB file cannot exceed 4 GiB.", hint="write .ply instead.")
    starts = [0, sizes[0], sizes[0] + sizes[1]]
    views = [
        {"buffer": 0, "byteOffset": a, "byteLength": n, "target": t}
        for a, n, t in zip(starts, sizes, (34963, 34962, 34962), strict=True)
    ]
    accessors: list[dict[str, object]] = [
        {"bufferView": 0, "componentType": 5125, "count": faces.size, "type": "SCALAR"},
        {
            "bufferView": 1, "componentType": 5126, "count": len(vertices), "type": "VEC3",
            "min": vertices.min(0).tolist(), "max": vertices.max(0).tolist(),
        },
        {"bufferView": 2, "componentType": 5121, "normalized": True, "count": len(vertices), "type": "VEC4"},
    ]  # fmt: skip
    attributes = {"POSITION": 1} if colours is None else {"POSITION": 1, "COLOR_0": 2}
    used = 2 if colours is None else 3
    document = {
        "asset": {"version": "2.0", "generator": "shapecodec"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": attributes, "indices": 0, "material": 0}]}],
        "materials": [{"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.9}, "doubleSided": True}],
        "accessors": accessors[:used],
        "bufferViews": views[:used],
        "buffers": [{"byteLength": sum(sizes)}],
    }
    text = json.dumps(document, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    file.write(struct.pack("<4sII", b"glTF", 2, 12 + 8 + len(text) + 8 + sum(sizes)))
    file.write(struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", sum(sizes), b"BIN\0"))
    for part in _pieces(len(faces)):
        file.write(np.ascontiguousarray(faces[part], "<u4").data)
    for part in _pieces(len(vertices)):
        file.write(np.ascontiguousarray(vertices[part], "<f4").data)
    for part in _pieces(len(vertices) if colours is not None else 0):
        rgba = np.full((len(vertices[part]), 4), 255, np.uint8)
        rgba[:, :3] = colours[part] if colours is not None else 255
        file.write(rgba.data)


def _write_drc(file: BinaryIO, vertices: np.ndarray, faces: np.ndarray, colours: Colours) -> None:
    import DracoPy  # 0.2 s and 6 MB that only this format needs

    file.write(DracoPy.encode(vertices, faces.astype(np.uint32), quantization_bits=DRACO_BITS, compression_level=7))


_WRITERS: dict[str, Callable[[BinaryIO, np.ndarray, np.ndarray, Colours], None]] = {
    ".obj": _write_obj,
    ".ply": _write_ply,
    ".stl": _write_stl,
    ".glb": _write_glb,
    ".drc": _write_drc,
}
WRITE_FORMATS = tuple(_WRITERS)
