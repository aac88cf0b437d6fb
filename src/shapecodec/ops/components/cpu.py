"""Union-find with path halving: one pass over the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numba import njit
from torch import Tensor


def lowest_connected(count: int, joined: Tensor) -> Tensor:
    """See reference."""
    root = np.arange(count)
    _unite(joined.numpy(), root)
    return torch.from_numpy(root)


@njit(cache=True, nogil=True)
def _find(root: Any, vertex: int) -> int:
    while root[vertex] != vertex:
        root[vertex] = root[root[vertex]]
        vertex = root[vertex]
    return vertex


@njit(cache=True, nogil=True)
def _unite(joined: Any, root: Any) -> None:
    for row in range(len(joined)):
        low = _find(root, joined[row, 0])
        for place in range(1, joined.shape[1]):
            other = _find(root, joined[row, place])
            if other < low:
                root[low] = other
                low = other
            elif other > low:
                root[other] = low
    for vertex in range(len(root)):
        root[vertex] = root[root[vertex]]
