"""A 3^3 stencil of its own for every cube, applied to a scalar field: the first convolution of LoG3D's encoder, folded.

Up to that convolution the network is affine in the field: projection 1 -> C, group normalisation (an affine map once the cube's mean
and variance are known) and a pointwise map. All of it folds into per-cube stencils over two channels, the field and the indicator of
the cube (zero padding cuts both), 16 times less arithmetic than convolving C channels, and no C-channel tensor is ever stored.
"""

from __future__ import annotations

from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose
from shapecodec.ops.field_conv import reference

__all__ = ["STENCIL_ROWS", "field_conv"]

BACKENDS = ("reference", "triton")
STENCIL_ROWS = 64  # 0..26 act on the field, 32..58 on the indicator, in neighbour-tap order; the others are not used


def field_conv(field: Tensor, stencils: Tensor, *, dtype: object = None, backend: str = "auto") -> Tensor:
    """out[l, v, o] = sum_t stencils[l, t, o] * field[l, v + t] + stencils[l, 32 + t, o] * [v + t inside the cube].

    Args:
        field: (L, S, S, S) float32, data: no gradient.
        stencils: (L, 64, C') float32.
        dtype: of the output; None means float32.

    Returns:
        (L, S, S, S, C'). Differentiable in `stencils`.
    """
    if field.ndim != 4 or stencils.ndim != 3 or stencils.shape[:2] != (len(field), STENCIL_ROWS):
        raise BadArgument(f"field {tuple(field.shape)} and stencils {tuple(stencils.shape)} do not fit.", where="field_conv")
    if choose(backend, field.device, available=BACKENDS, op="field_conv") == "reference":
        return reference.field_conv(field, stencils, dtype)
    from shapecodec.ops.field_conv import triton

    return triton.field_conv(field, stencils, dtype)
