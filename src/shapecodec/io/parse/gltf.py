"""glTF 2.0, .glb and .gltf: triangles of the default scene, merged with their node transforms.

Only geometry is read. Buffers may lie inside the file, in a data: URI, or beside it in the same folder; anything that
points elsewhere is refused. Counts are summed over the node tree before any accessor is read.
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from shapecodec.errors import BadFile
from shapecodec.io.parse.checks import check_count, check_faces, truncated
from shapecodec.io.parse.draco import decode_draco

_COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_TRIANGLES, _STRIP, _FAN = 4, 5, 6
_DRACO = "KHR_draco_mesh_compression"
_UNREADABLE = {"EXT_meshopt_compression", "KHR_meshopt_compression", "EXT_mesh_gpu_instancing"}
_HINT = "export the file again."


def parse_gltf(path: Path, max_faces: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) float64 and faces (F, 3) int64 of the whole scene."""
    data = path.read_bytes()
    try:
        file = _Gltf(*(_split_glb(data) if data[:4] == b"glTF" else (data, None)), path.parent)
        return file.scene(max_faces)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError) as error:
        # The document is JSON of any shape: a missing key or a wrong type is the file's fault, wherever it surfaces.
        detail = f"{type(error).__name__}: {error}"
        raise BadFile(f"the glTF document is not valid ({detail[:120]}).", hint=_HINT) from error
    except RecursionError as error:
        raise BadFile("the glTF document is nested too deeply.", hint=_HINT) from error


def _split_glb(data: bytes) -> tuple[bytes, bytes | None]:
    """JSON and binary chunk of a GLB container."""
    if len(data) < 20:
        raise truncated("a GLB header", 20, len(data))
    version, length = int.from_bytes(data[4:8], "little"), int.from_bytes(data[8:12], "little")
    if version != 2:
        raise BadFile(f"GLB version {version} is not read, only 2.", hint="export as glTF 2.0.")
    if length > len(data):
        raise truncated("the GLB container", length, len(data))
    chunks, place = dict[bytes, bytes](), 12
    while place + 8 <= length:
        size, kind = int.from_bytes(data[place : place + 4], "little"), data[place + 4 : place + 8]
        if place + 8 + size > length:
            raise truncated("a GLB chunk", place + 8 + size, length)
        chunks.setdefault(kind, data[place + 8 : place + 8 + size])
        place += 8 + size
    if b"JSON" not in chunks:
        raise BadFile("the GLB container has no JSON chunk.", hint=_HINT)
    return chunks[b"JSON"], chunks.get(b"BIN\0")


def _index(items: list[Any], place: Any) -> Any:
    """items[place]; negative numbers are errors, not counted from the end."""
    if not isinstance(place, int) or not 0 <= place < len(items):
        raise IndexError(f"reference {place!r} of {len(items)}")
    return items[place]


def _natural(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is not a count")
    return value


class _Gltf:
    """A parsed document with its buffers read on demand."""

    def __init__(self, text: bytes, binary: bytes | None, folder: Path) -> None:
        self.document: dict[str, Any] = json.loads(text)
        self.binary, self.folder = binary, folder
        self.buffers: dict[int, bytes] = {}
        needed = _UNREADABLE & set(self.document.get("extensionsRequired", []))
        if needed:
            raise BadFile(
                f"it needs the glTF extension {sorted(needed)[0]}, which is not read.", hint="export without it."
            )

    def scene(self, max_faces: int) -> tuple[np.ndarray, np.ndarray]:
        """All triangles of the scene, in its frame."""
        placed = self._place_nodes()
        meshes = self.document.get("meshes", [])
        parts = [(primitive, matrix) for mesh, matrix in placed for primitive in _index(meshes, mesh)["primitives"]]
        parts = [part for part in parts if part[0].get("mode", _TRIANGLES) in (_TRIANGLES, _STRIP, _FAN)]
        check_count(sum(self._promised(primitive) for primitive, _ in parts), max_faces)
        vertices, faces, base = [np.zeros((0, 3))], [np.zeros((0, 3), np.int64)], 0
        for primitive, matrix in parts:
            points, triangles = self._primitive(primitive)
            points = points.astype(np.float64) @ matrix[:3, :3].T + matrix[:3, 3]
            if np.linalg.det(matrix[:3, :3]) < 0:  # glTF 3.7.4: a mirroring node reverses the winding
                triangles = triangles[:, ::-1]
            vertices.append(points)
            faces.append(triangles + base)
            base += len(points)
        return np.concatenate(vertices), np.concatenate(faces)

    def _place_nodes(self) -> list[tuple[int, np.ndarray]]:
        """(mesh, world matrix) of every node of the default scene that carries a mesh."""
        nodes = self.document.get("nodes", [])
        scenes = self.document.get("scenes")
        if scenes:
            roots = _index(scenes, self.document.get("scene", 0)).get("nodes", [])
        else:
            children = {child for node in nodes for child in node.get("children", [])}
            roots = [place for place in range(len(nodes)) if place not in children]
        placed, seen, stack = [], set(), [(root, np.eye(4)) for root in reversed(roots)]
        while stack:
            place, parent = stack.pop()
            node = _index(nodes, place)
            if place in seen:  # glTF 3.5.2 asks for a strict tree; a shared child can expand without bound
                raise BadFile(f"node {place} is reached twice: the node hierarchy is not a tree.", hint=_HINT)
            seen.add(place)
            matrix = parent @ _local_matrix(node)
            if "mesh" in node:
                placed.append((node["mesh"], matrix))
            stack += [(child, matrix) for child in reversed(node.get("children", []))]
        return placed

    def _promised(self, primitive: dict[str, Any]) -> int:
        """Triangles that the accessors announce."""
        accessors = self.document.get("accessors", [])
        source = primitive.get("indices", primitive["attributes"]["POSITION"])
        count = _natural(_index(accessors, source)["count"])
        return count // 3 if primitive.get("mode", _TRIANGLES) == _TRIANGLES else max(count - 2, 0)

    def _primitive(self, primitive: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Points (n, 3) and triangles (m, 3) of one primitive, in the mesh's frame."""
        if _DRACO in primitive.get("extensions", {}):
            points, triangles = decode_draco(self._view(primitive["extensions"][_DRACO]["bufferView"]).tobytes())
            return points, triangles
        points = self._accessor(primitive["attributes"]["POSITION"], "VEC3")
        if "indices" in primitive:
            index = self._accessor(primitive["indices"], "SCALAR").reshape(-1).astype(np.int64)
        else:
            index = np.arange(len(points))
        triangles = _triangles(index, primitive.get("mode", _TRIANGLES))
        if len(triangles):
            check_faces(triangles, len(points))
        return points, triangles

    def _accessor(self, place: int, expected: str) -> np.ndarray:
        """(count, width) values; normalised integers become floats."""
        accessor = _index(self.document["accessors"], place)
        if accessor["type"] != expected:
            raise ValueError(f"accessor {place} is {accessor['type']}, not {expected}")
        kind, count = np.dtype(_COMPONENTS[accessor["componentType"]]), _natural(accessor["count"])
        if "bufferView" in accessor:
            values = self._strided(
                accessor["bufferView"], accessor.get("byteOffset", 0), kind, _WIDTHS[expected], count
            )
        elif "sparse" in accessor and count <= 1 << 27:
            values = np.zeros((count, _WIDTHS[expected]), kind)
        else:
            raise BadFile(f"accessor {place} has no data.", hint=_HINT)
        if "sparse" in accessor:
            values = self._patched(values, accessor["sparse"])
        if accessor.get("normalized") and kind.kind != "f":
            return np.maximum(values / float(np.iinfo(kind).max), -1.0)
        return values

    def _patched(self, values: np.ndarray, sparse: dict[str, Any]) -> np.ndarray:
        """Values with a sparse accessor's replacements."""
        count, at, new = _natural(sparse["count"]), sparse["indices"], sparse["values"]
        kind = np.dtype(_COMPONENTS[at["componentType"]])
        rows = self._strided(at["bufferView"], at.get("byteOffset", 0), kind, 1, count).reshape(-1)
        if kind.kind != "u" or (count and int(rows.max()) >= len(values)):
            raise ValueError("sparse indices out of range")
        values = values.copy()
        values[rows] = self._strided(new["bufferView"], new.get("byteOffset", 0), values.dtype, values.shape[1], count)
        return values

    def _strided(self, view: int, offset: Any, kind: np.dtype, width: int, count: int) -> np.ndarray:
        """(count, width) window onto a buffer view."""
        data, offset = self._view(view), _natural(offset)
        stride = _natural(self.document["bufferViews"][view].get("byteStride", 0)) or kind.itemsize * width
        need = offset + stride * (count - 1) + kind.itemsize * width if count else 0
        if need > len(data):
            raise truncated(f"buffer view {view}", need, len(data))
        return np.ndarray((count, width), kind, data, offset if count else 0, (stride, kind.itemsize))

    def _view(self, place: int) -> np.ndarray:
        """Bytes of a buffer view, uint8."""
        view = _index(self.document["bufferViews"], place)
        data, begin, size = (
            self._buffer(view["buffer"]),
            _natural(view.get("byteOffset", 0)),
            _natural(view["byteLength"]),
        )
        if begin + size > len(data):
            raise truncated(f"buffer {view['buffer']}", begin + size, len(data))
        return np.frombuffer(data, np.uint8, size, begin) if size else np.zeros(0, np.uint8)

    def _buffer(self, place: int) -> bytes:
        if place not in self.buffers:
            buffer = _index(self.document["buffers"], place)
            uri = buffer.get("uri")
            if uri is None:
                if place != 0 or self.binary is None:
                    raise BadFile(f"buffer {place} has no data: the binary chunk is missing.", hint=_HINT)
                self.buffers[place] = self.binary
            else:
                self.buffers[place] = _read_uri(str(uri), self.folder)
        return self.buffers[place]


def _read_uri(uri: str, folder: Path) -> bytes:
    """Bytes of a data: URI or of a file in the mesh's own folder; nothing else is opened."""
    shown = f"'{uri[:80]}'"
    if uri.startswith("data:"):
        head, comma, body = uri.partition(",")
        try:
            return base64.b64decode(body, validate=True) if head.endswith(";base64") and comma else b""
        except binascii.Error as error:
            raise BadFile(f"a data: buffer is not valid base64 ({error}).", hint=_HINT) from error
    hint = "export as a single .glb file, or keep the buffers beside the .gltf."
    name = unquote(uri)
    drive = len(name) > 1 and name[1] == ":"
    if "://" in name or drive or name.startswith(("/", "\\", "file:", "http:", "https:")) or "\0" in name:
        raise BadFile(f"the external buffer {shown} is not a file in the mesh's own folder: refused.", hint=hint)
    target = (folder / name.replace("\\", "/")).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise BadFile(f"the external buffer {shown} lies outside the mesh's own folder: refused.", hint=hint)
    if not target.is_file():
        raise BadFile(f"the external buffer {shown} is missing.", hint=hint)
    return target.read_bytes()


def _local_matrix(node: dict[str, Any]) -> np.ndarray:
    """4x4 matrix of a node; glTF stores it column by column, or as translation, rotation (xyzw) and scale."""
    if "matrix" in node:
        return np.array(node["matrix"], np.float64).reshape(4, 4).T
    x, y, z, w = np.array(node.get("rotation", (0, 0, 0, 1)), np.float64)
    turn = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array(node.get("scale", (1, 1, 1)), np.float64).reshape(3)
    matrix[:3, 3] = np.array(node.get("translation", (0, 0, 0)), np.float64).reshape(3)
    return matrix


def _triangles(index: np.ndarray, mode: int) -> np.ndarray:
    """(m, 3) triangles of an index list (glTF 3.7.2.1)."""
    if mode == _TRIANGLES:
        return index[: len(index) // 3 * 3].reshape(-1, 3)
    step = np.arange(max(len(index) - 2, 0))
    if mode == _STRIP:
        return np.stack([index[step], index[step + 1 + step % 2], index[step + 2 - step % 2]], 1)
    return np.stack([index[step + 1], index[step + 2], np.broadcast_to(index[:1], len(step))], 1)
