"""Connected components of a graph given as rows of vertices that belong together: edges, or faces."""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose

BACKENDS = ("reference", "cpu")


def components(count: int, joined: Tensor, group: Tensor | None = None, *, backend: str = "auto") -> Tensor:
    """The component of every vertex.

    Args:
        count: vertices.
        joined: (E, K) integer, K = 2 or 3: the vertices of a row are connected, each to each.
        group: (count,) int64; vertices of different groups are not connected. None: all are of one group.
        backend: auto, reference (torch, every device) or cpu (numba).

    Returns:
        (count,) int64: numbers 0, 1, ... in the order of each component's lowest vertex.

    Raises:
        BadArgument: shapes that do not fit, or a backend that cannot serve the device.
    """
    if joined.ndim != 2 or joined.shape[1] not in (2, 3):
        raise BadArgument(f"joined must be (E, 2) or (E, 3), got {tuple(joined.shape)}.", where="components")
    if group is not None and group.shape != (count,):
        raise BadArgument(f"group must be ({count},), got {tuple(group.shape)}.", where="components")
    which = choose(backend, joined.device, available=BACKENDS, op="components")
    if which == "cpu":
        from shapecodec.ops.components import cpu

        lowest = cpu.lowest_connected(count, joined.contiguous(), group)
    else:
        from shapecodec.ops.components import reference

        lowest = reference.lowest_connected(count, joined, group)
    return (torch.cumsum(lowest == torch.arange(count, device=joined.device), 0) - 1)[lowest]
