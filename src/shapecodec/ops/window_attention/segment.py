"""Windows of similar length are padded to the longest of their bucket and attended to as one batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from shapecodec.grid import WindowPlan

# A bucket's windows differ in length by at most this factor, so padding wastes at most a third of the rows.
GROWTH = 1.5

# Scores of one batch; bounds the memory of backends that materialise them: 64 MB in float32.
SCORES = 1 << 24


@dataclass(frozen=True)
class _Batch:
    """Positions (B, L) within the permuted rows, clamped to each window, and whether they lie inside it."""

    position: Tensor
    inside: Tensor


def window_attention(q: Tensor, k: Tensor, v: Tensor, plan: WindowPlan) -> Tensor:
    """Attention within each window, a few batched calls in all.

    Args:
        q, k, v: (N, H, D).
        plan: windows of the N rows.

    Returns:
        (N, H, D).
    """
    if len(q) == 0:
        return q + k + v  # keeps the graph
    outputs, positions = [], []
    for batch in _batches(plan, heads=q.shape[1]):
        rows = plan.order[batch.position]
        shape = (*rows.shape, *q.shape[1:])
        # (B, L, H, D) -> (B, H, L, D); index_select keeps a cheaper backward than fancy indexing.
        qs, ks, vs = (x.index_select(0, rows.flatten()).view(shape).transpose(1, 2) for x in (q, k, v))
        mask = None if bool(batch.inside.all()) else batch.inside[:, None, None, :]
        attended = scaled_dot_product_attention(qs, ks, vs, attn_mask=mask).transpose(1, 2)
        outputs.append(attended[batch.inside])
        positions.append(batch.position[batch.inside])
    position = torch.cat(positions)
    place = torch.zeros_like(position).scatter_(0, position, torch.arange(len(position), device=q.device))
    return torch.cat(outputs).index_select(0, place[plan.inverse])


def _batches(plan: WindowPlan, heads: int) -> list[_Batch]:
    """Windows sorted by length, cut where the length grows by GROWTH or the scores would pass SCORES."""
    offsets = plan.offsets.to(torch.int64)
    lengths, order = torch.sort(offsets.diff(), stable=True)
    starts = offsets[:-1][order]
    sizes = lengths.tolist()
    batches, first = [], 0
    while first < len(sizes):
        limit = sizes[first] * GROWTH
        last = int(torch.searchsorted(lengths, limit, right=True))
        room = max(1, int(SCORES / (heads * sizes[last - 1] ** 2)))
        last = min(last, first + room)
        longest = sizes[last - 1]
        step = torch.arange(longest, device=starts.device)
        size = lengths[first:last, None]
        position = starts[first:last, None] + torch.minimum(step, size - 1)
        batches.append(_Batch(position, step < size))
        first = last
    return batches
