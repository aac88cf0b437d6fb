"""The specification of `boundary_loops`: the walk, in plain Python."""

from __future__ import annotations

from itertools import pairwise

import numpy as np


def trace(edges: np.ndarray, order: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(E,) loop numbers; row order[first[v] : first[v + 1]] leave vertex v."""
    loops = np.full(len(edges), -1, np.int64)
    leaving = [order[a:b].tolist() for a, b in pairwise(first)]
    used: set[int] = set()
    count = 0
    for begin in range(len(edges)):
        vertex, path = int(edges[begin, 0]), []
        met = {vertex: 0}
        free = [] if begin in used else [row for row in leaving[vertex] if row not in used]
        while free:
            used.add(free[0])
            path.append(free[0])
            vertex = int(edges[free[0], 1])
            if vertex in met:
                loops[path[met[vertex] :]] = count
                count += 1
                del path[met[vertex] :]
                met = {place: at for place, at in met.items() if at <= met[vertex]}
            else:
                met[vertex] = len(path)
            free = [row for row in leaving[vertex] if row not in used] if path else []
    return loops
