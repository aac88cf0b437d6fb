"""Small meshes and files that the tests of `io` share."""

import json
import struct
from pathlib import Path

import numpy as np

from shapecodec.io.parse import parse_mesh
from shapecodec.mesh import Mesh

TETRA = (
    np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32),
    np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]]),
)


def tetra() -> Mesh:
    return Mesh.from_arrays(*TETRA)


def wavy_grid(n: int = 24) -> Mesh:
    """An open sheet of 2 (n - 1)^2 faces whose vertices all differ."""
    x, y = np.meshgrid(np.linspace(-1, 1, n), np.linspace(-0.5, 2, n), indexing="ij")
    vertices = np.stack([x, y, np.sin(3 * x) * np.cos(2 * y)], -1).reshape(-1, 3)
    at = np.arange(n * n).reshape(n, n)
    a, b, c, d = at[:-1, :-1], at[1:, :-1], at[1:, 1:], at[:-1, 1:]
    faces = np.concatenate([np.stack(t, -1).reshape(-1, 3) for t in ((a, b, c), (a, c, d))])
    return Mesh.from_arrays(vertices.astype(np.float32) / 3, faces)


def parse(path: Path, *, max_faces: int = 1_000_000, weld: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The parser in this process: no child to wait for."""
    return parse_mesh(path, path.suffix, max_faces=max_faces, weld=weld)


def triangles(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(F, 9) corners, each face rotated to begin at its lowest corner, faces sorted: equal for equal surfaces."""
    corners = np.asarray(vertices, np.float32)[np.asarray(faces)]
    turns = np.stack([np.roll(corners, -k, axis=1).reshape(-1, 9) for k in range(3)], 1)
    first = np.array([min(range(3), key=lambda k, row=row: tuple(row[k])) for row in turns])
    rows = turns[np.arange(len(turns)), first]
    return rows[np.lexsort(rows.T[::-1])]


def gltf(
    path: Path, change: dict | None = None, *, points: np.ndarray | None = None, index: np.ndarray | None = None
) -> Path:
    """A one-mesh glTF document as .gltf (data beside it) or .glb, with top-level entries replaced by `change`."""
    points = TETRA[0] if points is None else points
    index = TETRA[1].astype(np.uint32) if index is None else index
    kinds = {"uint8": 5121, "uint16": 5123, "uint32": 5125, "int16": 5122, "float32": 5126}
    first = index.tobytes() + b"\0" * (-index.nbytes % 4)
    data = first + points.tobytes()
    document = {
        "asset": {"version": "2.0"},
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 1}, "indices": 0}]}],
        "accessors": [
            {"bufferView": 0, "componentType": kinds[index.dtype.name], "count": index.size, "type": "SCALAR"},
            {"bufferView": 1, "componentType": kinds[points.dtype.name], "count": len(points), "type": "VEC3"},
        ],
        "bufferViews": [
            {"buffer": 0, "byteOffset": 0, "byteLength": index.nbytes},
            {"buffer": 0, "byteOffset": len(first), "byteLength": points.nbytes},
        ],
        "buffers": [{"byteLength": len(data)}],
    } | (change or {})
    if path.suffix == ".gltf":
        if "uri" not in document["buffers"][0]:
            document["buffers"][0]["uri"] = "data.bin"
            (path.parent / "data.bin").write_bytes(data)
        path.write_text(json.dumps(document))
        return path
    text = json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(data)
    head = struct.pack("<4sIII4s", b"glTF", 2, total, len(text), b"JSON")
    path.write_bytes(head + text + struct.pack("<I4s", len(data), b"BIN\0") + data)
    return path
