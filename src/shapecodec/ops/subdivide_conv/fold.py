"""Weights of a 3^3 convolution on copies: along an axis a child's three taps fall on two parents.

The child at 0 sees the parent below (tap -1) and its own (taps 0 and 1), the child at 1 its own (taps -1 and 0) and the
one above (tap 1). By slot s and side e, both 0 or 1, that is the parent s + e - 1 away; so of 27 taps 8 remain.
"""

from __future__ import annotations

import torch
from torch import Tensor

SLOTS = 8


def fold(weight: Tensor) -> Tensor:
    """(27, C, C') -> (8, 8, C, C'): by slot 4 x + 2 y + z of the child and by side alike, the sum of the taps there."""
    parts = weight.unflatten(0, (3, 3, 3))
    for axis in range(3):
        below, beside, above = parts.unbind(axis)
        parts = torch.stack([below, beside + above, below + beside, above], axis)
    parts = parts.unflatten(0, (2, 2)).unflatten(2, (2, 2)).unflatten(4, (2, 2))
    return parts.permute(0, 2, 4, 1, 3, 5, 6, 7).flatten(3, 5).flatten(0, 2)


def unfold(gradient: Tensor) -> Tensor:
    """The transpose of `fold`: (8, 8, C, C') -> (27, C, C')."""
    parts = gradient.unflatten(1, (2, 2, 2)).unflatten(0, (2, 2, 2)).permute(0, 3, 1, 4, 2, 5, 6, 7)
    parts = parts.flatten(4, 5).flatten(2, 3).flatten(0, 1)
    for axis in range(3):
        first, second, third, fourth = parts.unbind(axis)  # (slot, side) = 00, 01, 10, 11
        parts = torch.stack([first + third, second + third, second + fourth], axis)
    return parts.flatten(0, 2)


def parent_taps(device: torch.device | str = "cpu") -> Tensor:
    """(8, 8) int64: the parent's tap that a slot sees at a side."""
    bits = torch.arange(SLOTS, device=device)[:, None] >> torch.tensor([2, 1, 0], device=device) & 1
    return ((bits[:, None] + bits) * torch.tensor([9, 3, 1], device=device)).sum(2)
