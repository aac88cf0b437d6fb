"""Label propagation with pointer jumping; also the CUDA path. Minima commute, so the order of atomics does not show."""

from __future__ import annotations

import torch
from torch import Tensor


def lowest_connected(count: int, joined: Tensor, group: Tensor | None) -> Tensor:
    """(count,) int64: the lowest vertex that each vertex is connected to."""
    root = torch.arange(count, device=joined.device)
    rows = joined.long()
    if group is not None:
        pairs = torch.cat([rows[:, [a, b]] for a in range(rows.shape[1]) for b in range(a)])
        rows = pairs[group[pairs[:, 0]] == group[pairs[:, 1]]]
    while len(rows):
        ends = root[rows]
        low = ends.amin(1)
        rows, ends, low = (part[(ends != low[:, None]).any(1)] for part in (rows, ends, low))
        root.scatter_reduce_(0, ends.flatten(), low[:, None].expand_as(ends).flatten(), "amin")
        above = root[root]
        while not torch.equal(above, root):
            root, above = above, above[above]
    return root
