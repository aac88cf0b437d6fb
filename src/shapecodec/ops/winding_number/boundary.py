"""The boundary of a triangle soup as a chain: its directed edges, each counted, so that opposite uses cancel."""

from __future__ import annotations

import numpy as np


def _net(ends: np.ndarray, times: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges (n, 2) with multiplicities (n,) summed over equal and (negatively) opposite ones; zero sums left out."""
    low, high = ends.min(1), ends.max(1)
    order = np.argsort(low * count + high, kind="stable")
    keys = (low * count + high)[order]
    signed = np.where(ends[:, 0] < ends[:, 1], times, -times)[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    total = np.add.reduceat(signed, first) if len(first) else signed
    kept = (total != 0) & (keys[first] // count != keys[first] % count)
    keys = keys[first][kept]
    return np.stack([keys // count, keys % count], 1), total[kept]


def _index_boundary(faces: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """`_net` of all edges of faces (F, 3), by one plain sort: the direction sits in the key's lowest bit."""
    ends = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    keys = (ends.min(1) * count + ends.max(1)) << 1 | (ends[:, 0] > ends[:, 1])
    keys.sort()
    edges = keys >> 1
    first = np.flatnonzero(np.diff(edges, prepend=-1))
    total = np.add.reduceat(1 - 2 * (keys & 1), first)
    first, total = first[total != 0], total[total != 0]
    return np.stack([edges[first] // count, edges[first] % count], 1), total


def boundary_chain(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The edges that remain when those of all faces are summed with their directions.

    Vertices at equal positions count as one, so split vertices open nothing. A closed, consistently oriented mesh has
    none; an edge between two faces of opposite orientation remains twice.

    Args:
        vertices: (V, 3) float32.
        faces: (F, 3) int64, F >= 1.

    Returns:
        ends (E, 2, 3) float32 and times (E,) int64, not 0: how often the edge from ends[e, 0] to ends[e, 1] remains.
    """
    ends, times = _index_boundary(faces, len(vertices))
    used, place = np.unique(ends, return_inverse=True)
    positions, welded = np.unique(vertices[used] + np.float32(0.0), axis=0, return_inverse=True)  # -0 is 0
    ends, times = _net(welded.reshape(-1)[place.reshape(-1)].reshape(-1, 2), times, len(positions) + 1)
    return positions[ends].reshape(-1, 2, 3), times
