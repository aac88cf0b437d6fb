"""Exact welding: formats that split vertices (STL, OBJ, GLB, Draco) give back bit-equal copies."""

from __future__ import annotations

import numpy as np


def _hash_rows(words: np.ndarray) -> np.ndarray:
    """(V,) uint64 mixed from (V, 3) uint32; equal rows have equal hashes."""
    key = (words[:, 0].astype(np.uint64) << np.uint64(32)) | words[:, 1]
    key *= np.uint64(0x9E3779B97F4A7C15)
    key ^= key >> np.uint64(29)
    key += words[:, 2]
    key *= np.uint64(0xBF58476D1CE4E5B9)
    key ^= key >> np.uint64(32)
    return key


def _group_rows(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A row order (V,) that puts equal rows side by side, lowest first, and where (V,) bool a new row begins."""
    count = len(words)
    bits = np.uint64((count - 1).bit_length())
    below = (np.uint64(1) << bits) - np.uint64(1)
    keys = (_hash_rows(words) & ~below) | np.arange(count, dtype=np.uint64)
    keys.sort()
    order = (keys & below).view(np.int64)
    keys >>= bits
    fresh = _fresh(words, order)
    clash = np.unique(keys[np.flatnonzero(fresh[1:] & (keys[1:] == keys[:-1]))])
    if len(clash):  # different rows under one truncated hash: about 20 among 5M, put in order one by one
        begin, end = np.searchsorted(keys, clash, "left"), np.searchsorted(keys, clash, "right")
        at = np.repeat(end - np.cumsum(end - begin), end - begin) + np.arange(int((end - begin).sum()))
        rows = order[at]
        order[at] = rows[np.lexsort((rows, *words[rows].T, keys[at]))]
        moved = np.unique(np.concatenate([at, at + 1]))
        moved = moved[(moved > 0) & (moved < count)]
        fresh[moved] = (words[order[moved]] != words[order[moved - 1]]).any(1)
    return order, fresh


def _fresh(words: np.ndarray, order: np.ndarray) -> np.ndarray:
    """(V,) bool: whether row order[i] differs from row order[i - 1]."""
    fresh = np.zeros(len(order), bool)
    fresh[0] = True
    for axis in range(3):  # one column at a time: gathering whole rows is five times slower
        column = np.ascontiguousarray(words[:, axis]).take(order)
        fresh[1:] |= column[1:] != column[:-1]
    return fresh


def weld_exact(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One vertex for each distinct position (-0 equals 0), in order of first appearance; faces renumbered.

    A sort of one 64-bit word a row, hash above row number, replaces numpy.unique's sort of rows: 3M rows of an STL take
    0.3 s against 4.9 s, its 30M rows 8 s.
    """
    count = len(vertices)
    vertices = vertices + np.float32(0.0)  # -0 becomes +0
    if count == 0:
        return vertices, faces
    order, fresh = _group_rows(vertices.view(np.uint32))
    first = order[fresh]
    if len(first) == count:
        return vertices, faces
    keep = np.zeros(count, bool)
    keep[first] = True
    number = np.cumsum(keep, dtype=faces.dtype) - 1
    renumbered = np.zeros(count, faces.dtype)
    renumbered[order] = number[first][np.cumsum(fresh) - 1]
    return vertices[keep], renumbered[faces]


def drop_degenerate(faces: np.ndarray) -> np.ndarray:
    """Faces (F, 3) without those that name a vertex twice."""
    good = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return faces if good.all() else faces[good]


def drop_unused(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices that some face uses, faces renumbered."""
    used = np.zeros(len(vertices), bool)
    used[faces.reshape(-1)] = True
    if used.all():
        return vertices, faces
    number = np.cumsum(used, dtype=faces.dtype) - 1
    return vertices[used], number[faces]
