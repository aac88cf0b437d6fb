"""The U-Net of sets: cross attention downwards, bottlenecks, self-attention and cross attention upwards, queries (Fig. 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from shapecodec.codecs.lagem.config import LagemConfig
from shapecodec.nn.attention import Attention, CrossBlock, SelfBlock
from shapecodec.nn.bottleneck import KLBottleneck, StandardiseBottleneck
from shapecodec.nn.norm import LayerNorm32
from shapecodec.nn.position import FourierPoints


class PointEmbedding(nn.Module):
    """Points, with their normals where the codec reads them, to C channels."""

    def __init__(self, channels: int, normals: bool) -> None:
        super().__init__()
        self.position = FourierPoints(channels)
        self.normal = nn.Linear(3, channels, bias=False) if normals else None

    def forward(self, points: Tensor, normals: Tensor | None = None) -> Tensor:
        """(B, N, 3) -> (B, N, C)."""
        embedded = self.position(points)
        return embedded if self.normal is None or normals is None else embedded + self.normal(normals)


class Encoder(nn.Module):
    """A cross attention a level: farthest points ask the level below for what they stand for (eqs. 1 and 6)."""

    def __init__(self, config: LagemConfig) -> None:
        super().__init__()
        cross = config.cross_heads or config.heads
        heads = [config.heads] * (len(config.tokens) - 1) + [cross]
        self.blocks = nn.ModuleList(CrossBlock(config.channels, count) for count in heads)  # coarse to fine

    def forward(self, embedded: Tensor, order: Tensor, tokens: Sequence[int]) -> list[Tensor]:
        """Embedded points (B, N, C) and their farthest-first rows (B, M) -> features (B, m, C) of each level, coarse to fine.

        The finest level reads the points, each coarser one the features of the level below, not its points: the text of
        section 3.2 leaves that open, the released code does so.
        """
        rows = order[:, : tokens[-1], None].expand(-1, -1, embedded.shape[-1])
        asking = embedded.gather(1, rows)
        levels: list[Tensor] = []
        below = embedded
        for block, count in zip(reversed(self.blocks), reversed(tokens), strict=True):
            below = block(asking[:, :count], below)
            levels.insert(0, below)
        return levels


class Decoder(nn.Module):
    """Self-attention on each level, which first asks the coarser one (eqs. 4 and 8)."""

    def __init__(self, config: LagemConfig) -> None:
        super().__init__()
        channels, heads, levels = config.channels, config.heads, len(config.tokens)
        self.doubled_input = config.doubled_input
        self.recompute_upsampling, self.recompute_coarse = config.recomputes("upsampling"), config.recomputes("coarse")
        self.upsample = nn.ModuleList(CrossBlock(channels, heads) for _ in range(levels - 1))
        self.stages = nn.ModuleList(
            nn.Sequential(*(SelfBlock(channels, heads, drop_path=config.drop_path) for _ in range(count)))
            for count in config.blocks
        )

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Features (B, m, C) of each level, coarse to fine, before and after."""
        done: list[Tensor] = []
        for number, (feats, stage) in enumerate(zip(levels, self.stages, strict=True)):
            x = feats
            if number:
                x = maybe_again(self.recompute_upsampling, self.upsample[number - 1], feats, done[-1])
                x = feats + x if self.doubled_input else x
            for block in stage:  # type: ignore[attr-defined]
                x = maybe_again(self.recompute_coarse and number + 1 < len(levels), block, x)
            done.append(x)
        return done


def maybe_again(again: bool, module: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """`module` of the inputs; computed again in the backward pass, from the inputs alone, if `again`. It must draw nothing."""
    if again and torch.is_grad_enabled():
        result: Tensor = checkpoint(module, *inputs, use_reentrant=False, preserve_rng_state=False)
        return result
    return module(*inputs)


class LevelQuery(nn.Module):
    """What points learn from one level: pre-norm cross attention without residual."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm = LayerNorm32(channels)
        self.norm_context = LayerNorm32(channels)
        self.attention = Attention(channels, heads)

    def memory(self, feats: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a level's features (B, m, C)."""
        return self.attention.keys_values(self.norm_context(feats))

    def forward(self, embedded: Tensor, feats: Tensor, weight: Tensor) -> Tensor:
        """`ask` the memory of a level's features (B, m, C)."""
        return self.ask(embedded, self.memory(feats), weight)

    def ask(self, embedded: Tensor, memory: tuple[Tensor, Tensor], weight: Tensor) -> Tensor:
        """Embedded queries (B, Q, C) and the last layer's weights (C,) -> this level's summand of the answer (B, Q) float32.

        The output projection and the last layer are linear with nothing between them, so their product, one vector of C, is
        applied instead: a C^2 product less a query.
        """
        gathered = self.attention.attend(self.norm(embedded), *memory)
        with torch.autocast(weight.device.type, enabled=False):
            product, constant = weight @ self.attention.out.weight, weight @ self.attention.out.bias
        return (gathered @ product.to(gathered.dtype)).float() + constant


class QueryHead(nn.Module):
    """What a point in space learns from all levels: one cross attention each, concatenated, one number (eq. 9)."""

    def __init__(self, config: LagemConfig) -> None:
        super().__init__()
        self.levels = nn.ModuleList(
            LevelQuery(config.channels, config.cross_heads or config.heads) for _ in config.tokens
        )
        self.out = nn.Linear(len(config.tokens) * config.channels, 1)
        self.recompute = config.recomputes("queries")

    def answers(self, embedded: Tensor, feats: Sequence[Tensor]) -> list[Tensor]:
        """`memory` and `forward` at once, for training: embedded queries (B, Q, C) and features (B, m, C) of each level.

        Recomputed, a level keeps nothing for the backward pass but its inputs, which others keep anyway: the queries' normed
        copies, projections and answers, three times each, are otherwise a tenth of all that is kept.

        Returns:
            (B, Q) float32 for each level: the answer from the coarsest level up to it; the last is the answer.
        """
        weights = self.out.weight[0].split(embedded.shape[-1])
        answers: list[Tensor] = []
        for level, each, weight in zip(self._levels(), feats, weights, strict=True):
            part = maybe_again(self.recompute, level, embedded, each, weight)
            answers.append(part + (answers[-1] if answers else self.out.bias.float()))
        return answers

    def memory(self, feats: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of each level's features (B, m, C), computed once for all queries."""
        return [level.memory(each) for level, each in zip(self._levels(), feats, strict=True)]

    def forward(self, embedded: Tensor, memory: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Embedded queries (B, Q, C) -> (B, Q) float32."""
        weights = self.out.weight[0].split(embedded.shape[-1])
        parts = zip(self._levels(), memory, weights, strict=True)
        return sum((level.ask(embedded, *part) for level, *part in parts), self.out.bias.float())

    def _levels(self) -> list[LevelQuery]:
        return list(self.levels)  # type: ignore[arg-type]


class KLLevel(nn.Module):
    """VecSet's bottleneck with the interface of `StandardiseBottleneck`."""

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__()
        self.gaussian = KLBottleneck(channels, latent)
        self.up = nn.Linear(latent, channels)

    def encode(self, feats: Tensor) -> Tensor:
        """(..., C) -> (..., Z) float32: the mean."""
        return self.gaussian(feats).mean

    def decode(self, latents: Tensor) -> Tensor:
        """(..., Z) latents -> (..., C)."""
        return self.up(latents)


class Bottlenecks(nn.ModuleList):
    """One for each level, coarse to fine; iterating gives them with their type."""

    def __init__(self, config: LagemConfig) -> None:
        kind = StandardiseBottleneck if config.bottleneck == "standardise" else KLLevel
        super().__init__(kind(config.channels, latent) for latent in config.latent)

    def __iter__(self) -> Iterator[StandardiseBottleneck | KLLevel]:
        return super().__iter__()  # type: ignore[return-value]
