"""A 3^3 stencil of its own for every cube, applied to a scalar field: the first convolution of LoG3D's encoder, folded.

Up to that convolution the network is affine in the field: projection 1 -> C, group normalisation (an affine map once
the cube's mean and variance are known) and a pointwise map. All of it folds into per-cube stencils over two channels,
the field and the indicator of the cube (zero padding cuts both): 16 times less arithmetic than convolving C channels,
and no C-channel tensor is ever stored.
"""

from __future__ import annotations

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.dispatch import choose
from shapecodec.ops.field_conv import reference

__all__ = ["field_conv"]

BACKENDS = ("reference", "triton")


def field_conv(
    field: Tensor, on_field: Tensor, on_inside: Tensor, *, dtype: torch.dtype = torch.float32, backend: str = "auto"
) -> Tensor:
    """out[l, v, o] = sum_t on_field[l, t, o] * field[l, v + t] + on_inside[l, t, o] * [v + t inside the cube].

    Args:
        field: (L, S, S, S) float32, S >= 2; data, so no gradient.
        on_field, on_inside: (L, 27, C') float32 in the order of `grid.neighbour_taps`.
        dtype: of the output.

    Returns:
        (L, S, S, S, C'). Differentiable in both stencils; sums in float32.
    """
    stencil = (len(field), 27, on_field.shape[-1])
    if field.ndim != 4 or field.shape[1] < 2 or on_field.shape != stencil or on_inside.shape != stencil:
        raise BadArgument(
            f"field {tuple(field.shape)}, stencils {tuple(on_field.shape)} and {tuple(on_inside.shape)} do not fit.",
            where="field_conv",
        )
    if choose(backend, field.device, available=BACKENDS, op="field_conv") == "reference":
        return reference.field_conv(field, on_field, on_inside, dtype)
    from shapecodec.ops.field_conv import triton

    return triton.field_conv(field, on_field, on_inside, dtype)
