"""PLY, ASCII and binary of both byte orders; polygons become fans, everything but positions and faces is skipped."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shapecodec.errors import BadFile, BadMesh
from shapecodec.io.parse.checks import check_count, fan, truncated
from shapecodec.io.parse.text import Tokens, line_faces, line_vertices

_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_MAX_HEADER = 1 << 20


@dataclass
class _Element:
    """One element of the header: `types` of the properties' values, and for those that are `lists` of their counts."""

    name: str
    count: int
    types: dict[str, str] = field(default_factory=dict)
    lists: dict[str, str] = field(default_factory=dict)

    def dtype(self, order: str, sizes: dict[str, int]) -> np.dtype:
        """The record, if every list had the given size."""
        fields: list[tuple[str, str] | tuple[str, str, int]] = []
        for name, kind in self.types.items():
            if name in self.lists:
                fields += [(f"#{name}", order + self.lists[name]), (name, order + kind, sizes[name])]
            else:
                fields.append((name, order + kind))
        return np.dtype(fields)


def parse_ply(path: Path, max_faces: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions from `vertex`, triangles from the `vertex_indices` (or `vertex_index`) list of `face`."""
    data = path.read_bytes()
    order, elements, offset = _header(data)
    by_name = {element.name: element for element in elements}
    if "vertex" not in by_name or not {"x", "y", "z"} <= by_name["vertex"].types.keys():
        raise BadFile("the PLY header has no vertex element with x, y and z.", hint="export the file again.")
    if "face" not in by_name or by_name["face"].count == 0:
        extra = " (triangle strips are not read)" if "tristrips" in by_name else ""
        raise BadMesh(f"the file holds points but no faces{extra}.", hint="export triangles.")
    key = next((name for name in ("vertex_indices", "vertex_index") if name in by_name["face"].lists), None)
    if key is None:
        raise BadFile("the PLY face element has no vertex_indices list.", hint="export the file again.")
    check_count(by_name["face"].count, max_faces)
    if order == "":
        return _ascii(data[offset:], elements, key)
    return _binary(data, offset, order, elements, key)


def _header(data: bytes) -> tuple[str, list[_Element], int]:
    """Byte order, elements, and where the data begins."""
    mark = data.find(b"end_header", 0, _MAX_HEADER)
    stop = data.find(b"\n", mark)
    if data[:3] != b"ply" or mark < 0 or stop < 0:
        raise BadFile("no complete PLY header was found.", hint="check that it is a .ply file.")
    order, elements = None, list[_Element]()
    for line in data[:mark].decode("latin-1").splitlines()[1:]:
        words = line.split()
        try:
            match words[:1]:
                case ["format"]:
                    order = _ORDERS[words[1]]
                case ["element"]:
                    elements.append(_Element(words[1], int(words[2])))
                    if elements[-1].count < 0:
                        raise ValueError(words[2])
                case ["property"] if words[1] == "list":
                    elements[-1].lists[words[4]] = _TYPES[words[2]]
                    elements[-1].types[words[4]] = _TYPES[words[3]]
                case ["property"]:
                    elements[-1].types[words[2]] = _TYPES[words[1]]
        except (IndexError, KeyError, ValueError) as error:
            raise BadFile(f"the PLY header line '{line[:80]}' is not understood.", hint="export it again.") from error
    if order is None:
        raise BadFile("the PLY header names no format.", hint="export the file again.")
    return order, elements, stop + 1


def _ascii(text: bytes, elements: list[_Element], key: str) -> tuple[np.ndarray, np.ndarray]:
    tokens, line = Tokens.split(text), 0
    total = sum(element.count for element in elements)
    if len(tokens.sizes()) < total:
        raise BadFile(f"the header promises {total:,} lines, {len(tokens.sizes()):,} follow.", hint="export it again.")
    vertices = faces = np.zeros((0, 3))
    for element in elements:
        names = list(element.types)
        if element.name == "vertex":
            if element.lists:
                raise BadFile("lists within PLY vertices are not read.", hint="export the file again.")
            columns = (names.index("x"), names.index("y"), names.index("z"))
            vertices = line_vertices(tokens, line, element.count, columns)
        elif element.name == "face":
            if any(name in element.lists for name in names[: names.index(key)]):
                raise BadFile("vertex_indices is not the first list of the PLY faces.", hint="export the file again.")
            head = tokens.line[line : line + element.count] + names.index(key)
            if (head >= tokens.line[line + 1 : line + element.count + 1]).any():
                raise BadFile("a face line is too short.", hint="download or export the file again.")
            faces = line_faces(tokens, line, head)
        line += element.count
    return vertices, faces


def _binary(data: bytes, offset: int, order: str, elements: list[_Element], key: str) -> tuple[np.ndarray, np.ndarray]:
    vertices = faces = np.zeros((0, 3))
    for element in elements:
        smallest = element.dtype(order, dict.fromkeys(element.lists, 0)).itemsize
        if offset + smallest * element.count > len(data):
            what = f"a PLY with {element.count:,} elements '{element.name}'"
            raise truncated(what, offset + smallest * element.count, len(data))
        records, offset = _uniform(data, offset, order, element)
        if element.name == "vertex" and records is not None:
            vertices = np.stack([records["x"], records["y"], records["z"]], 1)
        elif element.name == "face" and records is not None:
            corners = np.ascontiguousarray(records[key]).astype(np.int64, copy=False)
            sizes = np.full(len(corners), corners.shape[1] if corners.ndim == 2 else 1)
            faces = fan(corners.reshape(-1), sizes)
        elif records is None and element.name == "vertex":
            raise BadFile("lists within PLY vertices are not read.", hint="export the file again.")
        elif records is None:
            polygons, offset = _walk(data, offset, order, element, key)
            if element.name == "face":
                faces = polygons
        if element.name == "face" and len(vertices):
            break
    return vertices, faces


def _uniform(data: bytes, offset: int, order: str, element: _Element) -> tuple[np.ndarray | None, int]:
    """All records at once where each list has the same size throughout, as in any triangle mesh; else None."""
    sizes, place = {}, offset
    for name, kind in element.types.items():
        if name in element.lists:
            count = np.dtype(order + element.lists[name])
            if place + count.itemsize > len(data):
                return None, offset
            sizes[name] = int(np.frombuffer(data, count, 1, place)[0])
            if not 0 <= sizes[name] <= 255:
                return None, offset
            place += count.itemsize + sizes[name] * np.dtype(kind).itemsize
        else:
            place += np.dtype(kind).itemsize
    record = element.dtype(order, sizes)
    if offset + record.itemsize * element.count > len(data):
        return None, offset
    records = np.frombuffer(data, record, element.count, offset)
    if any((records[f"#{name}"] != size).any() for name, size in sizes.items()):
        return None, offset
    return records, offset + record.itemsize * element.count


def _walk(data: bytes, offset: int, order: str, element: _Element, key: str) -> tuple[np.ndarray, int]:
    """Triangles of faces of mixed sizes, record by record (2 s a million: a size says where the next record begins)."""
    steps = [
        (name == key, order + element.lists.get(name, ""), np.dtype(order + kind).itemsize)
        for name, kind in element.types.items()
    ]
    signed = {kind: np.dtype(kind).kind == "i" for _, kind, _ in steps if len(kind) > 1}
    starts, sizes = list[int](), list[int]()
    for _ in range(element.count):
        for wanted, counter, width in steps:
            if len(counter) == 1:
                offset += width
                continue
            wide = int(counter[2])
            count = int.from_bytes(
                data[offset : offset + wide], "little" if order == "<" else "big", signed=signed[counter]
            )
            offset += wide
            if count < 0 or offset + count * width > len(data):
                raise truncated("a PLY face list", offset + max(count, 0) * width, len(data))
            if wanted:
                starts.append(offset)
                sizes.append(count)
            offset += count * width
    if not starts:
        return np.zeros((0, 3)), offset
    kind = np.dtype(order + element.types[key])
    counts = np.array(sizes)
    place = np.repeat(np.array(starts), counts) + kind.itemsize * (
        np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    )
    raw = np.frombuffer(data, np.uint8)[place[:, None] + np.arange(kind.itemsize)]
    return fan(raw.reshape(-1).view(kind).astype(np.int64), counts), offset
