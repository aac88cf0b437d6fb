"""The denoisers' body: transformer blocks modulated by the noise level (DiT, Peebles and Xie 2022, adaLN-zero).

Queries and keys are normalised head by head (Dehghani et al. 2023, section 2), so that attention cannot saturate in bfloat16.
Tokens have no order. Where they have positions, a stage adds an encoding of them before the blocks.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, rms_norm, silu

from shapecodec.errors import BadArgument
from shapecodec.generate.sets import Sets
from shapecodec.nn.norm import LayerNorm32

_SLOWEST, _FASTEST = (
    0.25,
    32.0,
)  # turns a unit of the noise label, which is ln(sigma) / 4 in [-1.6, 1.1], or t in [0, 1]


class NoiseEmbedding(nn.Module):
    """A number a shape -> C channels: sines and cosines of geometric frequencies, two linear layers.

    Args:
        channels: C.
        frequencies: half of the waves.
    """

    turns: Tensor

    def __init__(self, channels: int, frequencies: int = 64) -> None:
        super().__init__()
        turns = _SLOWEST * (_FASTEST / _SLOWEST) ** torch.linspace(0, 1, frequencies)
        self.register_buffer("turns", 2 * math.pi * turns, persistent=False)
        self.up = nn.Linear(2 * frequencies, channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, label: Tensor) -> Tensor:
        """(B,) -> (B, C)."""
        phase = label.float()[:, None] * self.turns
        return self.out(silu(self.up(torch.cat([phase.sin(), phase.cos()], 1))))


class QKNormAttention(nn.Module):
    """Multi-head attention of tokens to their own set, or to a dense context, with RMS-normalised queries and keys.

    Args:
        channels: C.
        heads: a divisor of C.
        context: channels of the context, or None for attention to the own set.
    """

    def __init__(self, channels: int, heads: int, context: int | None = None) -> None:
        super().__init__()
        if channels % heads:
            raise BadArgument(f"{channels} channels do not split into {heads} heads.", where="QKNormAttention")
        self.heads = heads
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(context or channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        self.query_scale = nn.Parameter(torch.ones(channels // heads))
        self.key_scale = nn.Parameter(torch.ones(channels // heads))

    def forward(self, x: Tensor, sets: Sets, context: Tensor | None = None) -> Tensor:
        """Tokens (rows, C), and the context (B, S, C') if there is one -> (rows, C)."""
        queries = self.query(x).unflatten(-1, (self.heads, -1))
        keys, values = self.key_value(x if context is None else context).unflatten(-1, (2, self.heads, -1)).unbind(-3)
        queries, keys = _scaled(queries, self.query_scale), _scaled(keys, self.key_scale)
        attended = (sets.attend if context is None else sets.ask)(queries, keys, values)
        return self.out(attended.flatten(-2))


def _scaled(x: Tensor, scale: Tensor) -> Tensor:
    """(..., D) with root mean square `scale`, computed in float32, in the dtype of x."""
    with torch.autocast(x.device.type, enabled=False):
        return rms_norm(x.float(), x.shape[-1:], scale.float(), 1e-6).to(x.dtype)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without parameters in float32, times 1 + scale, plus shift; in the dtype of x."""
    with torch.autocast(x.device.type, enabled=False):
        normed = layer_norm(x.float(), x.shape[-1:], eps=1e-6)
        return (normed * (1 + scale.float()) + shift.float()).to(x.dtype)


class Block(nn.Module):
    """Modulated self-attention, cross attention to a context if there is one, modulated MLP; branches start at zero.

    The six vectors of a block's modulation are a table plus what the shape's condition gives: through a layer of its own
    (adaLN-zero), or one layer that all blocks share (adaLN-single of PixArt, Chen et al. 2023), which saves 6 C^2 a block.

    Args:
        channels: C.
        heads: a divisor of C.
        context: channels of the context for cross attention, None without.
        shared: whether the condition's six vectors come from the outside.
        mlp_ratio: hidden channels of the MLP over C.
    """

    def __init__(
        self, channels: int, heads: int, *, context: int | None = None, shared: bool = False, mlp_ratio: float = 4.0
    ) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(6, channels))
        self.modulation = None if shared else _zero(nn.Linear(channels, 6 * channels))
        self.attention = QKNormAttention(channels, heads)
        self.cross = None
        if context is not None:
            self.cross_norm = LayerNorm32(channels)
            self.cross = QKNormAttention(channels, heads, context)
            _zero(self.cross.out)
        self.up = nn.Linear(channels, int(channels * mlp_ratio))
        self.down = nn.Linear(int(channels * mlp_ratio), channels)

    def forward(self, x: Tensor, condition: Tensor, sets: Sets, context: Tensor | None = None) -> Tensor:
        """Tokens (rows, C) -> (rows, C).

        Args:
            x: tokens.
            condition: (B, C), or with `shared` the six vectors (B, 6 C) themselves.
            sets: of the tokens.
            context: (B, S, C'), where the block has cross attention.
        """
        six = condition if self.modulation is None else self.modulation(silu(condition))
        six = six.unflatten(-1, (6, -1)) + self.table
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = (sets.spread(part) for part in six.unbind(1))
        x = x + gate.to(x.dtype) * self.attention(modulated(x, shift, scale), sets)
        if self.cross is not None:
            x = x + self.cross(self.cross_norm(x), sets, context)
        hidden = gelu(self.up(modulated(x, shift_mlp, scale_mlp)), approximate="tanh")
        return x + gate_mlp.to(x.dtype) * self.down(hidden)


class Dit(nn.Module):
    """Blocks between nothing and a last modulated layer that starts at zero.

    Args:
        channels: C.
        out_channels: of the answer.
        heads: a divisor of C.
        depth: blocks.
        context: channels of the context for cross attention, None without.
        cross_every: the first of every so many blocks asks the context.
        shared: one modulation for all blocks (see `Block`).
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        heads: int,
        depth: int,
        *,
        context: int | None = None,
        cross_every: int = 1,
        shared: bool = False,
    ) -> None:
        super().__init__()
        if depth < 1 or cross_every < 1:
            raise BadArgument(f"depth {depth}, cross attention every {cross_every} blocks.", where="Dit")
        self.modulation = _zero(nn.Linear(channels, 6 * channels)) if shared else None
        self.blocks = nn.ModuleList(
            Block(channels, heads, context=None if i % cross_every else context, shared=shared) for i in range(depth)
        )
        self.last = _zero(nn.Linear(channels, 2 * channels))
        self.out = _zero(nn.Linear(channels, out_channels))

    def forward(self, x: Tensor, condition: Tensor, sets: Sets, context: Tensor | None = None) -> Tensor:
        """Tokens (rows, C) under the condition (B, C) of their shapes -> (rows, out_channels)."""
        told = condition if self.modulation is None else self.modulation(silu(condition))
        for block in self.blocks:
            x = block(x, told, sets, context)
        shift, scale = (sets.spread(part) for part in self.last(silu(condition)).chunk(2, -1))
        return self.out(modulated(x, shift, scale))


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
