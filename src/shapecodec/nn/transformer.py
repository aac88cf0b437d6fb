"""LoG3D's global stage: a transformer over sparse tokens with shifted windows and sparse convolutions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu
from torch.utils.checkpoint import checkpoint

from shapecodec.errors import BadArgument
from shapecodec.grid import SparseGrid
from shapecodec.nn.norm import LayerNorm32
from shapecodec.nn.position import sincos_position
from shapecodec.ops.sparse_conv import TAPS, conv_plan, sparse_conv
from shapecodec.ops.window_attention import window_attention


class SparseConv(nn.Module):
    """Submanifold 3^3 convolution; see `ops.sparse_conv`.

    Args:
        channels, out_channels: C and C'.
        zero: start at zero, for the last layer of a residual branch.
    """

    def __init__(self, channels: int, out_channels: int, *, zero: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(TAPS, channels, out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        if not zero:
            # About 13 of the 27 taps exist on a surface: this keeps the variance of unit inputs there.
            nn.init.normal_(self.weight, std=1 / math.sqrt(13 * channels))

    def forward(self, feats: Tensor, grid: SparseGrid) -> Tensor:
        """(N, C) -> (N, C')."""
        return sparse_conv(feats, self.weight, self.bias, conv_plan(grid))


class WindowAttention(nn.Module):
    """Multi-head self-attention within window^3 cells displaced by `shift`, both in voxels of the grid."""

    def __init__(self, channels: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = nn.Linear(channels, 3 * channels)
        self.project = nn.Linear(channels, channels)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, feats: Tensor, grid: SparseGrid) -> Tensor:
        """(N, C) -> (N, C)."""
        q, k, v = self.qkv(feats).unflatten(1, (3, self.heads, -1)).unbind(1)
        return self.project(window_attention(q, k, v, grid.windows(self.window, self.shift)).flatten(1))


class Mlp(nn.Module):
    """Linear, GELU, linear; the last layer starts at zero."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(channels, hidden)
        self.down = nn.Linear(hidden, channels)
        nn.init.zeros_(self.down.weight)
        nn.init.zeros_(self.down.bias)

    def forward(self, feats: Tensor) -> Tensor:
        """(N, C) -> (N, C)."""
        return self.down(gelu(self.up(feats)))


class ConvBranch(nn.Module):
    """`count` times {LayerNorm, GELU from the second on, sparse 3^3 convolution}; the last one starts at zero."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(LayerNorm32(channels) for _ in range(count))
        self.convs = nn.ModuleList(SparseConv(channels, channels, zero=i == count - 1) for i in range(count))

    def forward(self, feats: Tensor, grid: SparseGrid) -> Tensor:
        """(N, C) -> (N, C)."""
        for i, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            feats = conv(gelu(norm(feats)) if i else norm(feats), grid)
        return feats


class SparseBlock(nn.Module):
    """Attention, MLP and convolution, residual branches that start at zero: at first the block is the identity."""

    def __init__(
        self,
        channels: int,
        heads: int,
        window: int,
        shift: int,
        convs_per_block: int,
        mlp_ratio: float,
        affine: bool = True,
    ) -> None:
        super().__init__()
        self.norm_attention = LayerNorm32(channels, eps=1e-5 if affine else 1e-6, elementwise_affine=affine)
        self.attention = WindowAttention(channels, heads, window, shift)
        self.norm_mlp = LayerNorm32(channels, eps=1e-5 if affine else 1e-6, elementwise_affine=affine)
        self.mlp = Mlp(channels, int(channels * mlp_ratio))
        self.conv = ConvBranch(channels, convs_per_block) if convs_per_block else None

    def forward(self, feats: Tensor, grid: SparseGrid) -> Tensor:
        """(N, C) -> (N, C)."""
        feats = feats + self.attention(self.norm_attention(feats), grid)
        feats = feats + self.mlp(self.norm_mlp(feats))
        return feats if self.conv is None else feats + self.conv(feats, grid)


class SparseTransformer(nn.Module):
    """Position encoding, then blocks of shifted-window attention, MLP and sparse convolution (LoG3D, section 3.2).

    Items of a batch never mix: the grid's plans keep them apart. Under autocast the stream is in the autocast dtype,
    the norms are float32.

    Args:
        channels: C; 256 in the paper.
        heads: must divide channels; 8 in the paper.
        depth: blocks.
        window: in voxels of the grid (blocks of 8^3 for LoG3D); odd blocks shift by half of it.
        convs_per_block: 1 is the text read literally, 2 a residual pair, as the paper's 77M parameters imply, 0 none.
        mlp_ratio: hidden channels of the MLP over C.
        affine: whether the norms before attention and MLP scale and shift; without (TRELLIS, Focusing) their epsilon is 1e-6.
        checkpoint: keep only each block's input for the backward pass and compute the block again there.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        depth: int,
        window: int = 8,
        convs_per_block: int = 2,
        mlp_ratio: float = 4,
        *,
        affine: bool = True,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if channels % heads:
            raise BadArgument(f"{heads} heads do not divide {channels} channels.", where="SparseTransformer")
        self.checkpoint = checkpoint
        self.blocks = nn.ModuleList(
            SparseBlock(channels, heads, window, window // 2 * (i % 2), convs_per_block, mlp_ratio, affine)
            for i in range(depth)
        )

    def forward(self, feats: Tensor, grid: SparseGrid) -> Tensor:
        """(N, C) tokens of the grid's rows -> (N, C)."""
        if len(feats) != len(grid):
            raise BadArgument(f"{len(feats)} tokens on a grid of {len(grid)}.", where="SparseTransformer")
        if torch.is_autocast_enabled(feats.device.type):
            feats = feats.to(torch.get_autocast_dtype(feats.device.type))
        channels = feats.shape[1]
        place = grid.cached(("sincos", channels), lambda: sincos_position(grid.coords, channels))
        feats = feats + place.to(feats.dtype)
        for block in self.blocks:
            if self.checkpoint and torch.is_grad_enabled():
                feats = checkpoint(block, feats, grid, use_reentrant=False)
            else:
                feats = block(feats, grid)
        return feats
