"""LoG3D's local networks: a 12^3 cube of the field to one vector, and back (supplement A.3, A.4).

Blocks are independent here, so they go through in chunks, with activation checkpointing in training: only the vectors are global.
Readings of the text (docs/log3d.md): three poolings, 12 -> 6 -> 3 -> 1, so the fourth layer works on single voxels; the "MLP for
feature mapping" is a pointwise linear map, which folds into the convolution behind it; four upsampling blocks make 1 -> 16.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from shapecodec.ops.block_conv import block_conv, block_conv_up
from shapecodec.ops.block_norm import EPS, relu_group_norm, relu_head, relu_max_pool
from shapecodec.ops.field_conv import field_conv

CPU_CHUNK = 128  # blocks at a time on a CPU: 3.2 ms a block in one thread for 64 to 256, slower below


def compute_dtype(x: Tensor) -> torch.dtype:
    """What autocast asks for on x's device, else float32."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float32


class _Norm(nn.Module):
    """Affine parameters of a group normalisation, at most 8 groups of at least 2 channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.groups = min(8, channels // 2)
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, relu: bool = True) -> Tensor:
        return relu_group_norm(x, self.weight, self.bias, self.groups, relu=relu)


class _Conv(nn.Module):
    """A 3^3 kernel in channels-last use; initialised for the ReLU behind it."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, channels, 3, 3, 3) * math.sqrt(2 / (27 * channels)))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor, *, mix: Tensor | None = None, crop: int = 0) -> Tensor:
        """x (L, S, S, S, C); `mix` (C, C0) is a pointwise map in front, folded into the kernel."""
        weight = self.weight if mix is None else torch.einsum("omxyz,mc->ocxyz", self.weight, mix)
        return block_conv(x, weight.to(x.dtype), self.bias.to(x.dtype), crop=crop)

    def upsample(self, x: Tensor) -> Tensor:
        """x (L, S, S, S, C) -> (L, 2 S, 2 S, 2 S, C')."""
        return block_conv_up(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


class _EncoderLayer(nn.Module):
    """GroupNorm, pointwise map, conv + ReLU, GroupNorm, conv + ReLU; the second ReLU is left to what follows."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _Norm(channels), _Norm(out_channels)
        self.mix = nn.Parameter(torch.randn(out_channels, channels) / math.sqrt(channels))
        self.conv1, self.conv2 = _Conv(out_channels, out_channels), _Conv(out_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.norm2(self.conv1(self.norm1(x), mix=self.mix)))


class _FirstLayer(_EncoderLayer):
    """The encoder layer behind a pointwise projection 1 -> C of the field, folded up to its first convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels)
        self.stem_weight = nn.Parameter(torch.randn(channels))
        self.stem_bias = nn.Parameter(torch.zeros(channels))

    def stencils(self, field: Tensor) -> tuple[Tensor, Tensor]:
        """(L, 27, C) twice, on the field and on its cube: projection, normalisation, pointwise map and convolution in one."""
        groups, channels = self.norm1.groups, len(self.stem_weight)
        mean, square = field.flatten(1).mean(1), field.flatten(1).square().mean(1)  # (L,)
        w, b = self.stem_weight.view(groups, -1), self.stem_bias.view(groups, -1)
        group_mean = mean[:, None] * w.mean(1) + b.mean(1)  # (L, G), of w * u + b over the group's channels and voxels
        group_square = square[:, None] * w.square().mean(1) + 2 * mean[:, None] * (w * b).mean(1) + b.square().mean(1)
        rstd = torch.rsqrt((group_square - group_mean.square()).clamp_min(0) + EPS)
        gain = (rstd.repeat_interleave(channels // groups, 1)) * self.norm1.weight  # (L, C)
        slope = gain * self.stem_weight
        offset = gain * (self.stem_bias - group_mean.repeat_interleave(channels // groups, 1)) + self.norm1.bias
        kernel = torch.einsum("omxyz,mc->cxyzo", self.conv1.weight, self.mix).reshape(channels, -1)  # (C, 27 * C')
        on_field, on_inside = (torch.cat([slope, offset]) @ kernel).view(2, len(field), 27, -1)
        centre = F.one_hot(torch.tensor(13, device=field.device), 27)[:, None]  # always inside: carries the bias
        return on_field, on_inside + centre * self.conv1.bias

    def forward(self, field: Tensor) -> Tensor:
        dtype = compute_dtype(field)
        with torch.autocast(field.device.type, enabled=False):
            on_field, on_inside = self.stencils(field.float())
        return self.conv2(self.norm2(field_conv(field.float(), on_field, on_inside, dtype=dtype)))


class LocalEncoder(nn.Module):
    """(L, 12, 12, 12) normalised field -> (L, 8 * width) vectors, through width, 2, 4 and 8 times width channels."""

    def __init__(self, width: int = 32, *, chunk: int = 8192) -> None:
        super().__init__()
        self.chunk = chunk
        self.first = _FirstLayer(width)
        self.layers = nn.ModuleList(_EncoderLayer(width * k, width * 2 * k) for k in (1, 2, 4))

    def forward(self, field: Tensor) -> Tensor:
        """(L, 12, 12, 12) -> (L, C)."""
        return in_chunks(self._encode, field, self.chunk)

    def _encode(self, field: Tensor) -> Tensor:
        x = self.first(field)
        for layer in self.layers:
            x = layer(relu_max_pool(x))
        return F.relu(x).flatten(1).float()


class _DecoderLayer(nn.Module):
    """Nearest upsampling, GroupNorm, conv + ReLU, GroupNorm, conv + ReLU; norm and upsampling exchange, so neither copy is made."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _Norm(channels), _Norm(channels // 2)
        self.conv1, self.conv2 = _Conv(channels, channels // 2), _Conv(channels // 2, channels // 2)

    def forward(self, x: Tensor, *, relu: bool, crop: int) -> Tensor:
        return self.conv2(self.norm2(self.conv1.upsample(self.norm1(x, relu=relu))), crop=crop)


class LocalDecoder(nn.Module):
    """(L, 8 * width) vectors -> (L, 12, 12, 12) normalised field: 1 -> 2 -> 4 -> 8 -> 16, of which the central 12^3 is kept."""

    def __init__(self, width: int = 32, *, chunk: int = 8192) -> None:
        super().__init__()
        self.chunk = chunk
        self.layers = nn.ModuleList(_DecoderLayer(8 * width // k) for k in (1, 2, 4, 8))
        self.head_weight = nn.Parameter(torch.randn(width // 2) / math.sqrt(width))
        self.head_bias = nn.Parameter(torch.tensor(0.7))  # the mean of the normalised field over active blocks

    def forward(self, tokens: Tensor) -> Tensor:
        """(L, C) -> (L, 12, 12, 12)."""
        return in_chunks(self._decode, tokens, self.chunk)

    def _decode(self, tokens: Tensor) -> Tensor:
        x = tokens.to(compute_dtype(tokens)).view(len(tokens), 1, 1, 1, -1)
        for index, layer in enumerate(self.layers):
            last = index == len(self.layers) - 1
            x = layer(x, relu=index > 0, crop=2 if last else 0)
        return relu_head(x, self.head_weight, self.head_bias)


def in_chunks(function: nn.Module | object, rows: Tensor, chunk: int) -> Tensor:
    """function(rows), at most `chunk` rows at a time; with several chunks the backward pass recomputes their activations."""
    if rows.device.type == "cpu" and not torch.is_grad_enabled():
        chunk = min(chunk, CPU_CHUNK)
    if len(rows) <= chunk:
        return function(rows)  # type: ignore[operator]
    pieces = rows.split(chunk)
    if torch.is_grad_enabled():
        return torch.cat([checkpoint(function, piece, use_reentrant=False) for piece in pieces])
    return torch.cat([function(piece) for piece in pieces])  # type: ignore[operator]
