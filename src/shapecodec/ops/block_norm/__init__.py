"""What follows the convolutions of small cubes: ReLU with group normalisation, with max pooling, or with the output head."""

from __future__ import annotations

from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.ops.block_norm import reference
from shapecodec.ops.dispatch import choose

__all__ = ["relu_group_norm", "relu_head", "relu_max_pool"]

BACKENDS = ("reference", "triton")
EPS = 1e-5


def relu_group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, *, relu: bool = True, backend: str = "auto"
) -> Tensor:
    """Group normalisation of relu(x), each cube by itself; statistics in float32.

    Args:
        x: (L, S, S, S, C) before its ReLU, channels last; weight, bias: (C,) float32; `groups` divides C.
        relu: False normalises x itself.

    Returns:
        (L, S, S, S, C) in x's type. Differentiable in x, weight and bias.
    """
    if x.ndim != 5 or x.shape[-1] % groups:
        raise BadArgument(f"{groups} groups do not divide the channels of {tuple(x.shape)}.", where="relu_group_norm")
    if choose(backend, x.device, available=BACKENDS, op="relu_group_norm") == "reference":
        return reference.relu_group_norm(x, weight, bias, groups, EPS, relu)
    from shapecodec.ops.block_norm import triton

    return triton.relu_group_norm(x, weight, bias, groups, EPS, relu)


def relu_max_pool(x: Tensor, *, backend: str = "auto") -> Tensor:
    """relu, then the maximum of each 2^3; an odd last plane is dropped (3 -> 1), as max pooling in torch does.

    Args:
        x: (L, S, S, S, C), channels last.

    Returns:
        (L, S // 2, S // 2, S // 2, C). Differentiable; of equal maxima the first in (x, y, z) order gets the gradient.
    """
    if x.ndim != 5 or x.shape[1] < 2:
        raise BadArgument(f"cannot pool {tuple(x.shape)}.", where="relu_max_pool")
    if choose(backend, x.device, available=BACKENDS, op="relu_max_pool") == "reference":
        return reference.relu_max_pool(x)
    from shapecodec.ops.block_norm import triton

    return triton.relu_max_pool(x)


def relu_head(x: Tensor, weight: Tensor, bias: Tensor, *, backend: str = "auto") -> Tensor:
    """relu(x) @ weight + bias in float32, without a float32 copy of x.

    Args:
        x: (..., C), weight: (C,) float32, bias: () float32.

    Returns:
        (...) float32. Differentiable in x, weight and bias.
    """
    if weight.shape != x.shape[-1:] or bias.ndim:
        raise BadArgument(f"weight {tuple(weight.shape)} does not fit x {tuple(x.shape)}.", where="relu_head")
    if choose(backend, x.device, available=BACKENDS, op="relu_head") == "reference":
        return reference.relu_head(x, weight, bias)
    from shapecodec.ops.block_norm import triton

    return triton.relu_head(x, weight, bias)
