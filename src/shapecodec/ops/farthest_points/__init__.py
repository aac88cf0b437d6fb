"""Farthest point sampling: the greedy order in which each point is as far as possible from all before it.

Sets of points are thinned so before cross attention in LaGeM and 3DShape2VecSet (after PointNet++, section 3.2). A longer
order begins with the shorter ones, so one call serves a nested chain: 2048, 512 and 128 points are prefixes of one result.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose

OP = "farthest_points"
MOST_POINTS = 1 << 24  # of an item: keeps the offsets of coordinates within int32


def farthest_points(points: Tensor, count: int, *, start: Tensor | None = None, backend: str = "auto") -> Tensor:
    """Rows of each item's points in greedy farthest point order.

    Every backend gives the same rows: squared distances are float32, (dx*dx + dy*dy) + dz*dz, each operation rounded by
    itself, and among equally far points the lowest row is next. No row comes twice: when all that is left coincides with
    points already taken (their squared distance is 0), the rest follows by row.

    Args:
        points: (B, N, 3) float32, finite, any unit; B may be 0; N at most 2^24. Nothing is differentiated.
        count: rows to take, 1 to N.
        start: (B,) int64 rows to begin with, on the points' device; row 0 if None.
        backend: "cpu" (numba, boxes of neighbours skipped where nothing can change), "triton" (CUDA, a launch for the whole
            order), "reference" (torch, a loop of whole passes), or "auto".

    Returns:
        (B, count) int64.

    Raises:
        BadArgument: shapes, types, devices, a count outside 1 to N, or a backend that cannot serve; on a CPU also
            coordinates that are not finite and starts out of range. On CUDA reading those would wait for the device:
            starts are clamped, and of items with non-finite coordinates only the range of the rows is certain.
    """
    chosen = choose(backend, points.device, available=("reference", "cpu", "triton"), op=OP)
    start = _check(points, count, start)
    points = points.detach().contiguous()
    if len(points) == 0:
        return torch.zeros(0, count, dtype=torch.int64, device=points.device)
    if chosen == "reference":
        from shapecodec.ops.farthest_points.reference import farthest_points as run

        return run(points, start, count)
    if chosen == "triton":
        from shapecodec.ops.farthest_points.triton import farthest_points as run_triton

        return run_triton(points, start, count)
    from shapecodec.ops.farthest_points.cpu import farthest_points as run_cpu

    return run_cpu(points, start, count)


def _check(points: Tensor, count: int, start: Tensor | None) -> Tensor:
    """The start of every item, (B,) int64 in range."""
    if points.ndim != 3 or points.shape[2] != 3:
        raise BadArgument(f"points must be (B, N, 3), got {tuple(points.shape)}.", where=OP)
    if points.dtype != torch.float32:
        raise BadArgument(f"points must be float32, got {points.dtype}.", where=OP, hint="points.float().")
    items, size, _ = points.shape
    if not 1 <= count <= size:
        raise BadArgument(f"cannot take {count:,} of {size:,} points.", where=OP, hint="a count from 1 to N.")
    if size > MOST_POINTS:
        raise BadArgument(f"{size:,} points an item; at most {MOST_POINTS:,}.", where=OP, hint="sample fewer first.")
    on_cpu = points.device.type == "cpu"
    if on_cpu and not bool(torch.isfinite(points).all()):
        raise BadArgument("points must be finite.", where=OP)
    if start is None:
        return torch.zeros(items, dtype=torch.int64, device=points.device)
    if start.shape != (items,) or start.dtype != torch.int64 or start.device != points.device:
        found = f"{tuple(start.shape)} {start.dtype} on {start.device}"
        raise BadArgument(f"start must be ({items},) int64 on {points.device}, got {found}.", where=OP)
    if on_cpu and bool(((start < 0) | (start >= size)).any()):
        raise BadArgument(f"start must be rows from 0 to {size - 1:,}.", where=OP)
    return start.clamp(0, size - 1)
