"""torch's fused variable-length attention (FlashAttention): bfloat16 or float16 on CUDA."""

from __future__ import annotations

from torch import Tensor
from torch.nn.attention.varlen import varlen_attn

from shapecodec.grid import WindowPlan


def window_attention(q: Tensor, k: Tensor, v: Tensor, plan: WindowPlan) -> Tensor:
    """Attention within each window over rows gathered into window order.

    Args:
        q, k, v: (N, H, D) bfloat16 or float16 on CUDA, D a multiple of 8 up to 256.
        plan: windows of the N rows.

    Returns:
        (N, H, D).
    """
    if len(q) == 0:
        return q + k + v  # keeps the graph
    gq, gk, gv = (x.index_select(0, plan.order) for x in (q, k, v))
    packed = varlen_attn(gq, gk, gv, plan.offsets, plan.offsets, plan.longest, plan.longest)
    assert isinstance(packed, Tensor)  # a tuple only where auxiliary outputs are asked for
    return packed.index_select(0, plan.inverse)
