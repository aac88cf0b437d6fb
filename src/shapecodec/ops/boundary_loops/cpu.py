"""The walk of `boundary_loops`, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def trace(edges: Any, order: Any, first: Any) -> Any:
    """(E,) loop numbers; row order[first[v] : first[v + 1]] leave vertex v."""
    loops = np.full(len(edges), -1, np.int64)
    used = np.zeros(len(edges), np.bool_)
    following = first[:-1].copy()
    met = np.full(len(first) - 1, -1, np.int64)
    path = np.zeros(len(edges), np.int64)
    count = 0
    for begin in range(len(edges)):
        if used[begin]:
            continue
        vertex, length = edges[begin, 0], 0
        met[vertex] = 0
        while True:
            while following[vertex] < first[vertex + 1] and used[order[following[vertex]]]:
                following[vertex] += 1
            if following[vertex] == first[vertex + 1]:
                break
            row = order[following[vertex]]
            used[row] = True
            path[length] = row
            length += 1
            vertex = edges[row, 1]
            if met[vertex] >= 0:
                for place in range(met[vertex], length):
                    loops[path[place]] = count
                    if place > met[vertex]:
                        met[edges[path[place], 0]] = -1
                length = met[vertex]
                count += 1
                if length == 0:
                    break
            else:
                met[vertex] = length
        met[vertex] = -1
        for place in range(length):
            met[edges[path[place], 0]] = -1
    return loops
