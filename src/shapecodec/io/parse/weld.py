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


def weld_exact(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One vertex for each distinct position (-0 equals 0), in order of first appearance; faces renumbered.

    Sorting a 64-bit hash is 6 times faster than sorting rows (30M rows of a 10M-face STL: 6 s against 38 s with
    numpy.unique); rows that share a hash are compared, and a collision falls back to sorting the rows themselves.
    """
    count = len(vertices)
    vertices = vertices + np.float32(0.0)  # -0 becomes +0
    words = vertices.view(np.uint32)
    hashes = _hash_rows(words)
    order = np.argsort(hashes)
    hashes = hashes[order]
    fresh = np.ones(count, bool)
    fresh[1:] = hashes[1:] != hashes[:-1]
    del hashes
    same = order[np.flatnonzero(~fresh)]
    before = order[np.flatnonzero(~fresh) - 1]
    if not (words[same] == words[before]).all():
        order = np.lexsort(words.T)
        fresh[1:] = (words[order[1:]] != words[order[:-1]]).any(1)
    starts = np.flatnonzero(fresh)
    if len(starts) == count:
        return vertices, faces
    first = np.minimum.reduceat(order, starts)  # the sort is not stable: take each group's lowest row
    keep = np.zeros(count, bool)
    keep[first] = True
    number = np.cumsum(keep, dtype=faces.dtype) - 1
    renumbered = np.zeros(count, faces.dtype)
    renumbered[order] = np.repeat(number[first], np.diff(starts, append=count))
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
