"""Focusing's networks: local PointNet, transformers over sparse voxels, subdivision (sections 3.1 and 3.4, after TripoSF)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, group_norm, silu

from shapecodec.codecs.focusing.config import OUTPUTS, FocusingConfig
from shapecodec.grid import SparseGrid
from shapecodec.nn.norm import LayerNorm32
from shapecodec.nn.transformer import SparseConv, SparseTransformer
from shapecodec.ops.segment_mean import segment_mean
from shapecodec.ops.sparse_conv import TAPS
from shapecodec.ops.subdivide_conv import subdivide_conv
from shapecodec.sparse import SparseTensor

ROUNDS = 5  # residual blocks of the PointNet
POINTS_AT_ONCE = 1 << 15  # on a CPU
GROUPS = 32  # of TripoSF's group normalisation


class ResidualMlp(nn.Module):
    """GELU, linear, GELU, linear, beside a linear shortcut without bias."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Linear(channels, out_channels)
        self.second = nn.Linear(out_channels, out_channels)
        self.shortcut = nn.Linear(channels, out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(P, C) -> (P, C')."""
        hidden = self.first(gelu(x, approximate="tanh"))
        return self.shortcut(x) + self.second(gelu(hidden, approximate="tanh"))


class PointNet(nn.Module):
    """Points of each voxel to one vector (TripoSF, after ConvONet): between residual blocks every point hears its voxel's mean.

    Args:
        channels: hidden; blocks map them to half, to which the voxel's mean of that half is joined.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lift = nn.Linear(6, channels)
        self.blocks = nn.ModuleList(ResidualMlp(channels, channels // 2) for _ in range(ROUNDS))
        self.project = nn.Linear(channels // 2, 2 * channels)

    def forward(self, points: Tensor, offsets: Tensor) -> Tensor:
        """(P, 6) points sorted by voxel, (N + 1,) offsets -> (N, 2 * channels); zero for voxels without points.

        Voxels do not hear of each other here. On a CPU without gradients some of them pass at a time: memory stays in use
        instead of being asked for and given back by the hundred megabytes.
        """
        if points.is_cuda or torch.is_grad_enabled() or len(points) <= POINTS_AT_ONCE:
            return self._all(points, offsets)
        starts = torch.arange(0, len(points), POINTS_AT_ONCE)
        cuts = sorted({*torch.searchsorted(offsets, starts).tolist(), len(offsets) - 1})
        parts = []
        for first, last in pairwise(cuts):
            begin, end = int(offsets[first]), int(offsets[last])
            parts.append(self._all(points[begin:end], offsets[first : last + 1] - begin))
        return torch.cat(parts)

    def _all(self, points: Tensor, offsets: Tensor) -> Tensor:
        owner = torch.repeat_interleave(
            torch.arange(len(offsets) - 1, device=points.device), offsets.diff(), output_size=len(points)
        )
        feats = self.blocks[0](self.lift(points))
        for block in self.blocks[1:]:
            pooled = segment_mean(feats, offsets)
            feats = block(torch.cat([feats, pooled.index_select(0, owner)], 1))
        return segment_mean(self.project(feats), offsets)


class Encoder(nn.Module):
    """Oriented points -> one vector a latent voxel, normalised without parameters."""

    def __init__(self, config: FocusingConfig) -> None:
        super().__init__()
        self.points = PointNet(config.point_channels).requires_grad_(not config.freeze_points)
        self.lift = nn.Linear(2 * config.point_channels, config.channels)
        self.transformer = transformer(config)
        self.norm = LayerNorm32(config.channels, eps=1e-6, elementwise_affine=False)

    def forward(self, points: Tensor, offsets: Tensor, grid: SparseGrid) -> Tensor:
        """(P, 6), (N + 1,) -> (N, C)."""
        return self.norm(self.transformer(self.lift(self.points(points, offsets)), grid))


class GroupNorm32(nn.Module):
    """Group normalisation over all voxels of each shape (TripoSF), in float32: a crop has other statistics than the whole."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, grid: SparseGrid) -> Tensor:
        """(N, C) -> (N, C)."""
        with torch.autocast(x.device.type, enabled=False):
            items = x.float().split(grid.offsets.diff().tolist())
            normed = [
                group_norm(item.t()[None], GROUPS, self.weight, self.bias)[0].t() if len(item) else item
                for item in items
            ]
            return torch.cat(normed).to(x.dtype)


class VoxelNorm32(LayerNorm32):
    """LayerNorm of each voxel: what a crop sees is what the whole sees."""

    def forward(self, x: Tensor, grid: SparseGrid | None = None) -> Tensor:
        """(N, C) -> (N, C)."""
        return super().forward(x)


def voxel_norm(kind: Literal["layer", "group"], channels: int) -> nn.Module:
    """The normalisation of a subdivision block."""
    return GroupNorm32(channels) if kind == "group" else VoxelNorm32(channels)


class SubdivideBlock(nn.Module):
    """Each voxel becomes 8 (section 3.4, after TripoSF's self-pruning upsampling block).

    Norm, SiLU, convolution over the children's copies of it, norm, SiLU, convolution, beside a linear skip; then an occupancy
    logit for each child. The copies are never made: `ops.subdivide_conv` reads the parents.
    """

    def __init__(self, channels: int, out_channels: int, norm: Literal["layer", "group"], ratio: int) -> None:
        super().__init__()
        self.norm_in = voxel_norm(norm, channels)
        self.expand = nn.Parameter(torch.empty(TAPS, channels, out_channels))
        self.expand_bias = nn.Parameter(torch.zeros(out_channels))
        nn.init.normal_(self.expand, std=1 / math.sqrt(20 * channels))  # of the 27 taps, 17 to 22 exist in bricks
        self.norm_out = voxel_norm(norm, out_channels)
        self.conv = SparseConv(out_channels, out_channels, zero=True)
        self.skip = nn.Linear(channels, out_channels)
        self.occupancy = nn.Sequential(
            nn.Linear(out_channels, ratio * out_channels),
            nn.GELU(approximate="tanh"),
            nn.Linear(ratio * out_channels, 1),
        )
        for parameter in self.occupancy[2].parameters():
            nn.init.zeros_(parameter)

    def forward(self, feats: Tensor, grid: SparseGrid) -> tuple[Tensor, SparseGrid, Tensor]:
        """(N, C) -> (8 N, C'), the grid of the children and their occupancy logits (8 N,) float32."""
        children = grid.children()
        hidden = subdivide_conv(silu(self.norm_in(feats, grid)), self.expand, self.expand_bias, grid)
        hidden = self.conv(silu(self.norm_out(hidden, children)), children)
        out = hidden.unflatten(0, (-1, 8)) + self.skip(feats)[:, None]
        out = out.flatten(0, 1)
        return out, children, self.occupancy(out)[:, 0].float()


class Refined(NamedTuple):
    """What the decoder says of fine voxels.

    Args:
        raw: (M, 53) float32, see `FocusingConfig`: sdf, deformation, beta, alpha, gamma before their ranges are set.
        grid: of the M fine voxels.
        occupancy: for each subdivision the logits of its children and their grid.
    """

    raw: Tensor
    grid: SparseGrid
    occupancy: list[tuple[Tensor, SparseGrid]]


class Decoder(nn.Module):
    """Latents -> transformer -> subdivisions -> 53 channels a fine voxel."""

    def __init__(self, config: FocusingConfig) -> None:
        super().__init__()
        self.lift = nn.Linear(config.latent, config.channels)
        self.transformer = transformer(config)
        widths = (config.channels, *config.up_channels)
        self.blocks = nn.ModuleList(
            SubdivideBlock(first, second, config.norm, config.occupancy_ratio) for first, second in pairwise(widths)
        )
        self.head = nn.Linear(widths[-1], OUTPUTS)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def attend(self, latents: Tensor, grid: SparseGrid) -> Tensor:
        """(N, latent) -> (N, C) at the latents' resolution; the part that looks far."""
        return self.transformer(self.lift(latents), grid)

    def refine(self, feats: Tensor, grid: SparseGrid, *, prune: float | None = None) -> Refined:
        """(N, C) -> predictions of fine voxels; the part that looks two latent voxels far.

        Args:
            feats: of `attend`.
            grid: of the N latent voxels.
            prune: drop children whose occupancy logit is below it, at every subdivision; None keeps all.
        """
        occupancy = []
        for block in self.blocks:
            feats, grid, logits = block(feats, grid)
            occupancy.append((logits, grid))
            if prune is not None:
                selected = SparseTensor(grid, feats).select(logits >= prune)
                feats, grid = selected.feats, selected.grid
        with torch.autocast(feats.device.type, enabled=False):
            raw = self.head(feats.float())
        return Refined(raw, grid, occupancy)


def transformer(config: FocusingConfig) -> SparseTransformer:
    """Blocks of window attention and MLP (section 3.1), norms without parameters."""
    return SparseTransformer(
        config.channels, config.heads, config.depth, config.window, 0, affine=False, checkpoint=config.checkpoint
    )
