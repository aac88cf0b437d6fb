"""Attention between sets: the blocks that VecSet and LaGeM are built of.

Pre-norm everywhere; queries, keys and values without bias; a GEGLU of four times the width (Shazeer 2020, eq. 6). Sets of a batch
have equal sizes, so tensors are dense (B, T, C) and nothing is padded. How the released networks do it: docs/lagem.md.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from shapecodec.errors import BadArgument
from shapecodec.nn.norm import LayerNorm32


class Attention(nn.Module):
    """Multi-head attention of a set to itself or to another one.

    Args:
        channels: C.
        heads: a divisor of C.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise BadArgument(f"{channels} channels do not split into {heads} heads.", where="Attention")
        self.heads = heads
        self.query = nn.Linear(channels, channels, bias=False)
        self.key_value = nn.Linear(channels, 2 * channels, bias=False)
        self.out = nn.Linear(channels, channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, T, C) asks (B, S, C) -> (B, T, C)."""
        return self.out(self.attend(x, *self.keys_values(context)))

    def keys_values(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, C) -> keys and values (B, heads, S, C / heads), which many calls of `attend` may share."""
        keys, values = self.key_value(context).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return keys, values

    def attend(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C), before the output's projection."""
        queries = self.query(x).unflatten(2, (self.heads, -1)).transpose(1, 2)
        return scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)


class Geglu(nn.Module):
    """Linear to 8C, value * gelu(gate), linear back to C."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.up = nn.Linear(channels, 8 * channels)
        self.down = nn.Linear(4 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        value, gate = self.up(x).chunk(2, -1)
        return self.down(value * gelu(gate))


class DropPath(nn.Module):
    """Leaves out a residual branch for whole items of a batch, and scales the others up (Huang et al. 2016)."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        if not self.training or self.probability == 0:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.probability
        return branch * (kept / (1 - self.probability)).to(branch.dtype)


class SelfBlock(nn.Module):
    """x + attention(norm x), then x + GEGLU(norm x); 16 C^2 + 14 C parameters."""

    def __init__(self, channels: int, heads: int, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm = LayerNorm32(channels)
        self.attention = Attention(channels, heads)
        self.norm_mlp = LayerNorm32(channels)
        self.mlp = Geglu(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        normed = self.norm(x)
        x = x + self.drop_path(self.attention(normed, normed))
        return x + self.drop_path(self.mlp(self.norm_mlp(x)))


class CrossBlock(nn.Module):
    """Resampling: x + attention(norm x, norm context), then x + GEGLU(norm x); 16 C^2 + 16 C parameters.

    The sizes of the two sets are free: it makes a set smaller in an encoder and larger in a decoder (section 3.2).
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = LayerNorm32(channels)
        self.norm_context = LayerNorm32(channels)
        self.attention = Attention(channels, heads)
        self.norm_mlp = LayerNorm32(channels)
        self.mlp = Geglu(channels)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """(B, T, C) asks (B, S, C) -> (B, T, C)."""
        x = x + self.attention(self.norm(x), self.norm_context(context))
        return x + self.mlp(self.norm_mlp(x))
