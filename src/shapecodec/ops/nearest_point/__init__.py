"""The nearest of a set of points, exactly: what sampled Chamfer distances and F-scores are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose

OP = "nearest_point"


def nearest_point(points: Tensor, targets: Tensor, *, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """The nearest target of each point.

    Args:
        points: (Q, 3) float32, finite; Q may be 0.
        targets: (T, 3) float32, finite, on the same device, T >= 1.
        backend: "cpu" (numba, packed box tree), "triton" (on CUDA), "reference" (torch, Q x T: small problems only), or "auto".

    Returns:
        distance (Q,) float32 and target row (Q,) int64; of several equally near targets, one.

    Raises:
        BadArgument: shapes, devices, non-finite coordinates, no targets, or a backend that cannot serve.
    """
    for name, tensor in (("points", points), ("targets", targets)):
        if tensor.ndim != 2 or tensor.shape[1] != 3:
            raise BadArgument(f"{name} must be (n, 3), got {tuple(tensor.shape)}.", where=OP)
        if not bool(torch.isfinite(tensor).all()):
            raise BadArgument(f"{name} must be finite.", where=OP)
    if points.device != targets.device:
        raise BadArgument(f"points are on {points.device}, targets on {targets.device}.", where=OP)
    if len(targets) == 0:
        raise BadArgument("there are no targets.", where=OP)
    chosen = choose(backend, points.device, available=("reference", "cpu", "triton"), op=OP)
    points, targets = points.detach().float(), targets.detach().float()
    if len(points) == 0:
        return points.new_zeros(0), torch.zeros(0, dtype=torch.int64, device=points.device)
    if chosen == "reference":
        from shapecodec.ops.nearest_point.reference import nearest_point as run

        return run(points, targets)
    if chosen == "triton":
        from shapecodec.ops.nearest_point.triton import nearest_point as run_triton

        return run_triton(points.contiguous(), targets)
    from shapecodec.ops.nearest_point.cpu import nearest_point as run_cpu

    distance, row = run_cpu(points.contiguous().numpy(), targets.contiguous().numpy())
    return torch.from_numpy(distance), torch.from_numpy(row)
