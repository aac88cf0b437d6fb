"""Union-find with linked lists of constraints: a list is searched from the cluster that has the shorter one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def _find(root: Any, node: int) -> int:
    while root[node] != node:
        root[node] = root[root[node]]
        node = root[node]
    return node


@njit(cache=True, nogil=True)
def _held_apart(root: Any, head: Any, following: Any, target: Any, length: Any, first: int, second: int) -> bool:
    if length[first] > length[second]:
        first, second = second, first
    link = head[first]
    while link >= 0:
        if _find(root, target[link]) == second:
            return True
        link = following[link]
    return False


@njit(cache=True, nogil=True)
def cluster(count: int, ends: Any, joins: Any) -> Any:
    """(count,) lowest node of each cluster; rows come strongest first."""
    root = np.arange(count)
    head, tail = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    length = np.zeros(count, np.int64)
    following = np.full(2 * len(ends), -1, np.int64)
    target = np.zeros(2 * len(ends), np.int64)
    for row in range(len(ends)):
        low, high = _find(root, ends[row, 0]), _find(root, ends[row, 1])
        if low > high:
            low, high = high, low
        if low == high or _held_apart(root, head, following, target, length, low, high):
            continue
        if joins[row]:
            root[high] = low
            if head[high] >= 0:
                if head[low] < 0:
                    head[low] = head[high]
                else:
                    following[tail[low]] = head[high]
                tail[low] = tail[high]
                length[low] += length[high]
            continue
        for place in range(2):
            link, at = 2 * row + place, low if place == 0 else high
            target[link] = high if place == 0 else low
            following[link] = head[at]
            if head[at] < 0:
                tail[at] = link
            head[at] = link
            length[at] += 1
    for node in range(count):
        root[node] = _find(root, node)
    return root
