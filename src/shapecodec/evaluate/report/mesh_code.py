"""The numbers of a mesh in an order in which most of them are small, for a byte compressor to do the rest.

Triangles are emitted in fans: vertex 0, 1, 2, ... in turn takes its triangles that are not out yet, in the order in which they
lie around it, and whoever is met for the first time becomes the next vertex. In the fan of v, a triangle is (v, a, b). Most
often a is the b before it, and b is new, or one of the few that were met last. Three streams of integers follow, seven bits a
byte, lowest first, a set eighth bit for "more follows":

    counts  for each vertex, the length of its fan; a vertex that nobody has met when its turn comes is new
    first   for each triangle, what a is: 0 the b before it, 1 new, 1 + k the vertex v + k
    second  for each triangle, what b is: 0 new, k the vertex v + k

A new vertex is stored as its difference to where it is expected: the first of a mesh at zero, one that begins a part at the last
one, a at v, and b at a + v - (the a before it), or at a where its triangle does not continue the one before.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from shapecodec.errors import BadFile


def encode_faces(places: np.ndarray, faces: np.ndarray) -> tuple[list[bytes], np.ndarray, np.ndarray]:
    """The three streams, the residuals of the positions, and the order of the vertices.

    Args:
        places: (V, 3) int64 positions on a grid; every vertex is used.
        faces: (F, 3) int64.

    Returns:
        counts, first and second; (V, 3) int64 residuals; (V,) int64 the vertex that each new number belongs to.
    """
    corner = faces.reshape(-1)
    offsets = np.zeros(len(places) + 1, np.int64)
    offsets[1:] = np.cumsum(np.bincount(corner, minlength=len(places)))
    incident = np.argsort(corner, kind="stable") // 3
    counts, first, second, expected, order = _walk(places, faces, offsets, incident)
    return [_pack(values).tobytes() for values in (counts, first, second)], places[order] - expected, order


def decode_faces(streams: list[bytes], residuals: np.ndarray, faces: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions (V, 3) int64 and faces (F, 3) int64 of `encode_faces`.

    Raises:
        BadFile: the streams do not give this many triangles and vertices.
    """
    counts, first, second = (_unpack(np.frombuffer(stream, np.uint8)) for stream in streams)
    found = np.zeros((faces, 3), np.int64)
    places = np.zeros_like(residuals)
    if len(first) != faces or len(second) != faces or not _unwalk(counts, first, second, residuals, places, found):
        raise BadFile("its triangles do not fit its header.")
    return places, found


@njit(cache=True, nogil=True)
def _walk(
    places: np.ndarray, faces: np.ndarray, offsets: np.ndarray, incident: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    vertices = len(places)
    number = np.full(vertices, -1, np.int64)
    order, expected = np.zeros(vertices, np.int64), np.zeros((vertices, 3), np.int64)
    counts, first, second = np.zeros(vertices, np.int64), np.zeros(len(faces), np.int64), np.zeros(len(faces), np.int64)
    out = np.zeros(len(faces), np.bool_)
    seen, written, seed = 0, 0, 0
    for v in range(vertices):
        if v == seen:
            while number[seed] >= 0:
                seed += 1
            if seen:
                expected[seen] = places[order[seen - 1]]
            number[seed], order[seen] = seen, seed
            seen += 1
        pivot = order[v]
        before, last = -1, -1
        while True:
            f = _next(faces, offsets, incident, out, number, pivot, last)
            if f < 0:
                break
            out[f] = True
            k = 0 if faces[f, 0] == pivot else 1 if faces[f, 1] == pivot else 2
            a, b = faces[f, (k + 1) % 3], faces[f, (k + 2) % 3]
            goes_on = a == last
            if goes_on:
                first[written] = 0
            elif number[a] < 0:
                first[written], expected[seen] = 1, places[pivot]
                number[a], order[seen] = seen, a
                seen += 1
            else:
                first[written] = 1 + number[a] - v
            if number[b] < 0:
                expected[seen] = places[a] + places[pivot] - places[before] if goes_on else places[a]
                number[b], order[seen] = seen, b
                seen += 1
            else:
                second[written] = number[b] - v
            before, last = a, b
            written += 1
            counts[v] += 1
    return counts, first, second, expected, order


@njit(cache=True, nogil=True)
def _next(
    faces: np.ndarray,
    offsets: np.ndarray,
    incident: np.ndarray,
    out: np.ndarray,
    number: np.ndarray,
    pivot: int,
    last: int,
) -> int:
    """The face of a fan that follows vertex `last`; else one that follows none of the others; else any; -1 if all are out."""
    best, best_rank = -1, 1 << 62
    for i in range(offsets[pivot], offsets[pivot + 1]):
        f = incident[i]
        if out[f]:
            continue
        k = 0 if faces[f, 0] == pivot else 1 if faces[f, 1] == pivot else 2
        a = faces[f, (k + 1) % 3]
        if a == last:
            return f
        follows = False
        for j in range(offsets[pivot], offsets[pivot + 1]):
            g = incident[j]
            m = 0 if faces[g, 0] == pivot else 1 if faces[g, 1] == pivot else 2
            follows = follows or (not out[g] and faces[g, (m + 2) % 3] == a)
        rank = (1 << 40 if follows else 0) + (number[a] if number[a] >= 0 else 1 << 32)
        if rank < best_rank:
            best, best_rank = f, rank
    return best


@njit(cache=True, nogil=True)
def _unwalk(
    counts: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    residuals: np.ndarray,
    places: np.ndarray,
    faces: np.ndarray,
) -> bool:
    """Fill `places` and `faces`; whether the streams fit."""
    vertices = len(residuals)
    seen, written = 0, 0
    for v in range(min(len(counts), vertices)):
        if v == seen:
            places[v] = residuals[v]
            if v:
                places[v] += places[v - 1]
            seen += 1
        before, last = -1, -1
        for _ in range(counts[v]):
            if written == len(faces) or (first[written] == 0 and last < 0) or seen + 2 > vertices + 2:
                return False
            goes_on = first[written] == 0
            if goes_on:
                a = last
            elif first[written] == 1:
                a = seen
                if a >= vertices:
                    return False
                places[a] = residuals[a] + places[v]
                seen += 1
            else:
                a = v + first[written] - 1
            if second[written] == 0:
                b = seen
                if b >= vertices or a >= vertices:
                    return False
                places[b] = residuals[b] + places[a]
                if goes_on:
                    places[b] += places[v] - places[before]
                seen += 1
            else:
                b = v + second[written]
            if a >= seen or b >= seen:
                return False
            faces[written, 0], faces[written, 1], faces[written, 2] = v, a, b
            before, last = a, b
            written += 1
    return written == len(faces) and seen == vertices


@njit(cache=True, nogil=True)
def _pack(values: np.ndarray) -> np.ndarray:
    """Seven bits a byte."""
    stream, size = np.zeros(5 * len(values), np.uint8), 0
    for value in values:
        rest = value
        while rest >= 128:
            stream[size] = 128 | (rest & 127)
            rest >>= 7
            size += 1
        stream[size] = rest
        size += 1
    return stream[:size]


@njit(cache=True, nogil=True)
def _unpack(stream: np.ndarray) -> np.ndarray:
    """The values of `_pack`; those that do not fit 28 bits are cut, which the walk then refuses."""
    values, count, value, shift = np.zeros(len(stream), np.int64), 0, 0, 0
    for byte in stream:
        if shift < 28:
            value |= (int(byte) & 127) << shift
        shift += 7
        if byte < 128:
            values[count] = value
            count, value, shift = count + 1, 0, 0
    return values[:count]
