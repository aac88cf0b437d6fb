"""Connected components of a graph given as rows of vertices that belong together: edges, or faces."""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose

BACKENDS = ("reference", "cpu")


def components(count: int, joined: Tensor, *, backend: str = "auto") -> Tensor:
    """The component of every vertex.

    Args:
        count: vertices.
        joined: (E, K) integer, K >= 2: the vertices of a row are connected.
        backend: auto, reference (torch, every device) or cpu (numba).

    Returns:
        (count,) int64: numbers 0, 1, ... in the order of each component's lowest vertex.

    Raises:
        BadArgument: a shape that is not (E, K), or a backend that cannot serve the device.
    """
    if joined.ndim != 2 or joined.shape[1] < 2:
        raise BadArgument(f"joined must be (E, K) with K >= 2, got {tuple(joined.shape)}.", where="components")
    which = choose(backend, joined.device, available=BACKENDS, op="components")
    if which == "cpu":
        from shapecodec.ops.components import cpu

        lowest = cpu.lowest_connected(count, joined.contiguous())
    else:
        from shapecodec.ops.components import reference

        lowest = reference.lowest_connected(count, joined)
    return (torch.cumsum(lowest == torch.arange(count, device=joined.device), 0) - 1)[lowest]
