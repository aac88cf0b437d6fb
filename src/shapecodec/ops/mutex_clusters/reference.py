"""The specification of `mutex_clusters`, with sets."""

from __future__ import annotations

import numpy as np


def cluster(count: int, ends: np.ndarray, joins: np.ndarray) -> np.ndarray:
    """(count,) lowest node of each cluster; rows come strongest first."""
    lowest = np.arange(count)
    members = [{node} for node in range(count)]
    apart: list[set[int]] = [set() for _ in range(count)]  # clusters, by their lowest node
    for (first, second), join in zip(ends.tolist(), joins.tolist(), strict=True):
        low, high = sorted((int(lowest[first]), int(lowest[second])))
        if low == high or high in apart[low]:
            continue
        if not join:
            apart[low].add(high)
            apart[high].add(low)
            continue
        lowest[list(members[high])] = low
        members[low] |= members[high]
        for other in apart[high]:
            apart[other].remove(high)
            apart[other].add(low)
        apart[low] |= apart[high]
    return lowest
