"""The specification: a loop of whole passes over coordinates kept apart (torch, any device)."""

from __future__ import annotations

import torch
from torch import Tensor


def farthest_points(points: Tensor, start: Tensor, count: int) -> Tensor:
    """See the public function; points (B, N, 3) float32 and start (B,) int64 in range.

    Products and sums are separate calls: one that fuses them (`addcmul`) may round once where two roundings are specified.
    """
    axes = points.permute(2, 0, 1).contiguous()
    least = torch.full_like(axes[0], torch.inf)
    square, way = torch.zeros_like(least), torch.zeros_like(least)
    picks = torch.zeros(len(points), count, dtype=torch.int64, device=points.device)
    pick = start[:, None]
    for k in range(count):
        picks[:, k] = pick[:, 0]
        for axis in range(3):
            torch.sub(axes[axis], axes[axis].gather(1, pick), out=way)
            way.mul_(way)
            square = square.copy_(way) if axis == 0 else square.add_(way)
        torch.minimum(least, square, out=least)
        least.scatter_(1, pick, -1.0)  # taken: below every distance, and minima keep it there
        pick = least.argmax(1, keepdim=True)  # of equal ones, torch gives the first
    return picks
