"""OBJ and OFF, and the vectorised tokeniser that ASCII PLY shares.

trimesh 5.2 reads `f 0 1 2` (OBJ counts from 1) as valid and drops the vertex that nothing names any more, hence an own
reader; it has no loop over lines and is also faster.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shapecodec.errors import BadFile
from shapecodec.io.parse.checks import check_count, fan

_CHUNK = 32 << 20  # bytes a piece: token positions take up to 5 times the text


@dataclass(frozen=True)
class Tokens:
    """Words of a text and the lines they stand on.

    Args:
        text: (n,) uint8.
        start, end: (T,) first byte of each word, and the byte after its last.
        line: (M + 1,) index of the first word of each non-blank line, and T.
    """

    text: np.ndarray
    start: np.ndarray
    end: np.ndarray
    line: np.ndarray

    @staticmethod
    def split(text: bytes) -> Tokens:
        """Words of `text`; any byte up to the space separates them."""
        array = np.frombuffer(text, np.uint8)
        word = np.zeros(len(array) + 2, np.int8)
        word[1:-1] = array > 32
        edge = np.diff(word)
        start, end = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)
        breaks = np.flatnonzero(array == 10)
        row = np.searchsorted(breaks, start)
        line = np.flatnonzero(np.diff(row, prepend=-1))
        return Tokens(array, start, end, np.append(line, len(start)))

    def text_of(self, words: np.ndarray) -> bytes:
        """The chosen words (indices, ascending), separated by single bytes of white space."""
        edge = np.zeros(len(self.text) + 2, np.int8)
        edge[self.start[words]] = 1
        edge[self.end[words] + 1] -= 1  # the separator travels along; adjacent words cancel out
        keep = np.cumsum(edge[: len(self.text)], dtype=np.int8).view(bool)
        return self.text[keep].tobytes()

    def numbers(self, words: np.ndarray, kind: type, what: str) -> np.ndarray:
        """The chosen words as numbers."""
        return to_numbers(self.text_of(words), len(words), kind, what)

    def sizes(self) -> np.ndarray:
        """(M,) words on each line."""
        return np.diff(self.line)


def to_numbers(text: bytes, count: int, kind: type, what: str) -> np.ndarray:
    """`count` numbers separated by white space, or a `BadFile` that shows the word which is none."""
    if count == 0:
        return np.zeros(0, kind)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # how numpy < 2.5 says that it met no number
            values: np.ndarray = np.fromstring(text.decode("latin-1"), dtype=kind, sep=" ")
    except (ValueError, DeprecationWarning):
        values = np.zeros(0, kind)
    if len(values) != count:
        raise BadFile(f"{what} are not all numbers ({_first_bad(text, kind)}).", hint="export the file again.")
    return values


def _first_bad(text: bytes, kind: type) -> str:
    for word in text.split():
        try:
            kind(word)
        except (ValueError, OverflowError):
            return f"'{word[:40].decode('latin-1')}'"
    return "some are missing"


def ranges(start: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Concatenation of arange(start[i], start[i] + count[i])."""
    return np.repeat(start - np.cumsum(count) + count, count) + np.arange(int(count.sum()))


def parse_obj(path: Path, max_faces: int) -> tuple[np.ndarray, np.ndarray]:
    """`v` and `f` lines; polygons become fans; groups, materials, normals and texture coordinates are ignored."""
    text = path.read_bytes()
    if b"\\" in text:
        text = re.sub(rb"\\[ \t]*\r?\n", b" ", text)
    if b"\n" not in text:
        text = text.replace(b"\r", b"\n")
    vertices, faces, known, total, begin = [], [], 0, 0, 0
    while begin < len(text):
        end = len(text) if len(text) - begin <= _CHUNK else text.rfind(b"\n", begin, begin + _CHUNK) + 1
        if end <= begin:
            raise BadFile(f"a line is longer than {_CHUNK >> 20} MiB.", hint="check that it is an OBJ file.")
        points, triangles = _obj_piece(text[begin:end], known)
        vertices.append(points)
        faces.append(triangles)
        known, total, begin = known + len(points), total + len(triangles), end
        check_count(total, max_faces)
    if known == 0:
        raise BadFile("no vertex ('v x y z') was found.", hint="check that it is an OBJ file.")
    return np.concatenate(vertices), np.concatenate(faces)


def _obj_piece(text: bytes, known: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 3) and triangles (m, 3) of whole lines; `known` vertices came before them."""
    tokens = Tokens.split(text)
    head, sizes = tokens.line[:-1], tokens.sizes()
    single = tokens.end[head] - tokens.start[head] == 1
    letter = tokens.text[tokens.start[head]]
    is_vertex, is_face = single & (letter == ord("v")), single & (letter == ord("f"))
    if is_vertex.any() and int(sizes[is_vertex].min()) < 4:
        raise BadFile("a vertex line has fewer than 3 numbers.", hint="download or export the file again.")
    words = (head[is_vertex][:, None] + np.arange(1, 4)).reshape(-1)
    points = tokens.numbers(words, float, "vertex coordinates").reshape(-1, 3)

    corners = sizes[is_face] - 1
    chosen = tokens.text_of(ranges(head[is_face] + 1, corners))
    if b"/" in chosen:
        chosen = re.sub(rb"/[^\s]*", b"", chosen)
    index = to_numbers(chosen, int(corners.sum()), int, "face corners")
    if (index == 0).any():
        raise BadFile("a face names vertex 0, but OBJ counts from 1.", hint="export the file again.")
    if len(index) and int(index.min()) < 0:  # -1 is the last vertex that came before this line
        before = known + np.repeat(np.cumsum(is_vertex)[is_face], corners)
        index = np.where(index < 0, before + index + 1, index)
    return points, fan(index - 1, corners)


def parse_off(path: Path, max_faces: int) -> tuple[np.ndarray, np.ndarray]:
    """OFF, COFF, NOFF and STOFF, with the counts on the first or the second line; colours and normals are ignored."""
    text = path.read_bytes()
    if b"#" in text:
        text = re.sub(rb"#[^\n]*", b"", text)
    head = re.match(rb"\s*((?:ST)?C?N?4?n?OFF)?[ \t]*(BINARY)?\s*(\d+)\s+(\d+)(?:[ \t]+\d+)?[ \t\r]*(?:\n|$)", text)
    if head is None or head[2] or (head[1] and (b"4" in head[1] or b"n" in head[1])):
        what = (
            "no OFF header with its counts was found." if head is None else "only three-dimensional text OFF is read."
        )
        raise BadFile(what, hint="convert the file to PLY or OBJ.")
    points, count = int(head[3]), int(head[4])
    check_count(count, max_faces)
    tokens = Tokens.split(text[head.end() :])
    sizes, first = tokens.sizes(), tokens.line[:-1]
    if len(sizes) < points + count:
        raise BadFile(
            f"the header promises {points:,} vertices and {count:,} faces, but {len(sizes):,} lines follow.",
            hint="download or export the file again.",
        )
    return line_vertices(tokens, 0, points, (0, 1, 2)), line_faces(tokens, points, first[points : points + count])


def line_vertices(tokens: Tokens, line: int, count: int, columns: tuple[int, int, int]) -> np.ndarray:
    """(count, 3) float64 from the given columns of `count` lines."""
    if count and int(tokens.sizes()[line : line + count].min()) <= max(columns):
        raise BadFile("a vertex line has too few numbers.", hint="download or export the file again.")
    words = (tokens.line[line : line + count, None] + np.sort(columns)).reshape(-1)
    values = tokens.numbers(words, float, "vertex coordinates").reshape(-1, 3)
    return values[:, np.argsort(np.argsort(columns))]


def line_faces(tokens: Tokens, line: int, head: np.ndarray) -> np.ndarray:
    """Triangles (T, 3) from lines that read `n i1 .. in ...`; `head` holds the word index of each n."""
    corners = tokens.numbers(head, int, "face sizes")
    left = tokens.line[line + 1 : line + 1 + len(head)] - head - 1
    if (corners > left).any():
        raise BadFile("a face line has fewer corners than it promises.", hint="download or export the file again.")
    if (corners < 3).any():
        fan(corners, corners)
    return fan(tokens.numbers(ranges(head + 1, corners), int, "face corners"), corners)
