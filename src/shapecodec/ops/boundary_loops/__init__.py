"""Cuts the border of a mesh into closed loops that meet no vertex twice."""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose

BACKENDS = ("reference", "cpu")


def boundary_loops(half_edges: Tensor, *, backend: str = "auto") -> Tensor:
    """The loop that each directed edge belongs to.

    Walks begin at the lowest row, leave a vertex by its lowest unused row, and close a loop whenever they meet a vertex
    again, so a border that touches itself falls into simple loops.

    Args:
        half_edges: (E, 2) int64 on the CPU, from vertex to vertex (a border is small: no CUDA path).
        backend: auto, reference or cpu (numba).

    Returns:
        (E,) int64 loop numbers from 0; -1 for rows that lead to a dead end and are on no loop.

    Raises:
        BadArgument: not (E, 2), not on the CPU, or an unknown backend.
    """
    if half_edges.ndim != 2 or half_edges.shape[1] != 2 or half_edges.device.type != "cpu":
        raise BadArgument(
            f"expected (E, 2) on the CPU, got {tuple(half_edges.shape)} on {half_edges.device}.", where="boundary_loops"
        )
    which = choose(backend, half_edges.device, available=BACKENDS, op="boundary_loops")
    if len(half_edges) == 0:
        return torch.zeros(0, dtype=torch.int64)
    vertices, compact = torch.unique(half_edges, return_inverse=True)
    compact = compact.view(-1, 2)
    order = torch.argsort(compact[:, 0], stable=True)
    first = torch.searchsorted(compact[order, 0].contiguous(), torch.arange(len(vertices) + 1))
    arrays = compact.numpy(), order.numpy(), first.numpy()
    if which == "cpu":
        from shapecodec.ops.boundary_loops.cpu import trace

        return torch.from_numpy(trace(*arrays))
    from shapecodec.ops.boundary_loops.reference import trace as trace_plainly

    return torch.from_numpy(trace_plainly(*arrays))
