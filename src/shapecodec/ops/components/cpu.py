"""Union-find with path halving: one pass over the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor


def lowest_connected(count: int, joined: Tensor, group: Tensor | None) -> Tensor:
    """See reference."""
    root = np.arange(count)
    _unite(joined.numpy(), np.zeros(0, np.int64) if group is None else group.numpy(), root)
    return torch.from_numpy(root)


@njit(cache=True, nogil=True)
def find(root: Any, vertex: int) -> int:
    """The root of a vertex, halving the path to it."""
    while root[vertex] != vertex:
        root[vertex] = root[root[vertex]]
        vertex = root[vertex]
    return vertex


@njit(cache=True, nogil=True)
def unite(root: Any, first: int, second: int) -> None:
    """Connects two vertices; the lower root stays one."""
    first, second = find(root, first), find(root, second)
    if first < second:
        root[second] = first
    else:
        root[first] = second


@njit(cache=True, nogil=True)
def _unite(joined: Any, group: Any, root: Any) -> None:
    width = joined.shape[1]
    for row in range(len(joined)):
        for place in range(width - 1 if len(group) == 0 else width * (width - 1) // 2):
            first, second = joined[row, place], joined[row, (place + 1) % width]
            if len(group) == 0 or group[first] == group[second]:
                unite(root, first, second)
    for vertex in range(len(root)):
        root[vertex] = root[root[vertex]]
