"""The specification in plain torch, which on a CPU also runs at the speed of reading the values."""

from __future__ import annotations

import torch
from torch import Tensor


def mean(values: Tensor, offsets: Tensor) -> Tensor:
    """See the package.

    Args:
        values: (P, C).
        offsets: (N + 1,) int64 from 0 to P.

    Returns:
        (N, C) of the dtype of values.
    """
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    counts = offsets.diff()
    owner = torch.repeat_interleave(counts, output_size=len(values))
    total = wide.new_zeros(len(counts), values.shape[1]).index_add_(0, owner, wide)
    return (total / counts.clamp(min=1)[:, None]).to(values.dtype)


def spread(grad: Tensor, offsets: Tensor, rows: int) -> Tensor:
    """The transpose of `mean`: (N, C) -> (rows, C), each run's gradient divided among its rows."""
    counts = offsets.diff()
    share = grad.to(torch.promote_types(grad.dtype, torch.float32)) / counts.clamp(min=1)[:, None]
    return share.to(grad.dtype).repeat_interleave(counts, 0, output_size=rows)
