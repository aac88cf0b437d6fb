"""3^3 convolutions over a batch of small dense cubes, channels last, zero padded (LoG3D supplement A.3, A.4)."""

from __future__ import annotations

from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.block_conv import cpu, reference
from shapecodec.ops.dispatch import choose

__all__ = ["block_conv", "block_conv_up"]

BACKENDS = ("reference", "cpu", "triton")


def block_conv(x: Tensor, weight: Tensor, bias: Tensor, *, crop: int = 0, backend: str = "auto") -> Tensor:
    """Convolve each cube with one 3^3 kernel.

    Args:
        x: (L, S, S, S, C) cubes, channels last; float32 or bfloat16.
        weight: (C', C, 3, 3, 3), bias: (C',); same type as x.
        crop: evaluate only the central (S - 2 crop)^3 outputs.

    Returns:
        (L, S - 2 crop, S - 2 crop, S - 2 crop, C'). Differentiable in x, weight and bias; sums in float32.
    """
    _check(x, weight, bias, crop)
    path = choose(backend, x.device, available=BACKENDS, op="block_conv")
    if path != "triton":
        return (cpu if path == "cpu" else reference).block_conv(x, weight, bias, crop=crop)
    from shapecodec.ops.block_conv import triton

    return triton.block_conv(x, weight, bias, crop=crop)


def block_conv_up(x: Tensor, weight: Tensor, bias: Tensor, *, backend: str = "auto") -> Tensor:
    """`block_conv` of the nearest-neighbour upsampling of x by 2, without forming it.

    Args:
        x: (L, S, S, S, C) cubes, channels last; weight: (C', C, 3, 3, 3), bias: (C',).

    Returns:
        (L, 2 S, 2 S, 2 S, C'). Differentiable in x, weight and bias.
    """
    _check(x, weight, bias, 0)
    path = choose(backend, x.device, available=BACKENDS, op="block_conv_up")
    if path != "triton":
        return (cpu if path == "cpu" else reference).block_conv_up(x, weight, bias)
    from shapecodec.ops.block_conv import triton

    return triton.block_conv_up(x, weight, bias)


def _check(x: Tensor, weight: Tensor, bias: Tensor, crop: int) -> None:
    if x.ndim != 5 or len({*x.shape[1:4]}) != 1 or weight.shape[1:] != (x.shape[-1], 3, 3, 3):
        raise BadArgument(
            f"x {tuple(x.shape)} must be (L, S, S, S, C) and weight {tuple(weight.shape)} (C', C, 3, 3, 3).",
            where="block_conv",
        )
    if bias.shape != weight.shape[:1] or not 0 <= 2 * crop < x.shape[1]:
        raise BadArgument(f"bias {tuple(bias.shape)} or crop {crop} does not fit.", where="block_conv")
