"""The cascade over LaGeM's levels: a denoiser a level, coarse to fine, conditioned by cross-attention upsampling (section 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from shapecodec.codecs.base import Codec, Loss
from shapecodec.errors import BadArgument
from shapecodec.generate.base import Generator
from shapecodec.generate.batch import LatentBatch, StageBatch
from shapecodec.generate.dit import Block, Dit, NoiseEmbedding
from shapecodec.generate.edm import Edm
from shapecodec.generate.guidance import Guidance, Network
from shapecodec.generate.sets import DenseSets
from shapecodec.latents import Latents, Level
from shapecodec.nn.attention import CrossBlock
from shapecodec.rng import rng as counted_rng

DENSE = DenseSets()
_EPS = 1e-6  # of the variance, as in the codec's bottleneck (appendix C)


@dataclass(frozen=True)
class CascadeConfig:
    """A cascade and the codec that it belongs to. Sequences are coarse to fine.

    Args:
        codec: name or folder of the codec.
        codec_hash: of the codec's weights; filled in, with all up to `classes`, by `for_codec`.
        tokens: vectors of each level.
        latent: channels of each level.
        resolution: voxels an axis that its latents are decoded at unless told otherwise.
        classes: names that a shape can be asked for by; none makes it unconditional.
        channels: C of each denoiser (section 4.2: 768).
        depth: blocks of each denoiser (section 4.2: 12 on ShapeNet, 24 on Objaverse).
        head_channels: channels of an attention head.
        cross_every: every so many blocks ask the coarser latents again; 0 asks once at the entrance, as eqs. 11 and 12 do.
        shared_modulation: one modulation layer for all blocks of a denoiser, a third of the parameters less.
        drop_label: share of the training shapes whose class is hidden, which classifier-free guidance needs.
        condition_noise: largest standard deviation of noise on the coarser latents in training (Ho et al. 2022, section 4.2). A
            denoiser is told how much there is; in sampling there is half of it. 0 conditions on them as they are.
        process: EDM's constants.
    """

    codec: str = "lagem-small"
    codec_hash: str = ""
    tokens: tuple[int, ...] = ()
    latent: tuple[int, ...] = ()
    resolution: int = 256
    classes: tuple[str, ...] = ()
    channels: tuple[int, ...] = (768, 768, 768)
    depth: tuple[int, ...] = (12, 12, 12)
    head_channels: int = 64
    cross_every: int = 0
    shared_modulation: bool = False
    drop_label: float = 0.1
    condition_noise: float = 0.0
    process: Edm = field(default_factory=Edm)

    def __post_init__(self) -> None:
        sizes = {len(self.channels), len(self.depth)} | {len(x) for x in (self.tokens, self.latent) if x}
        if len(sizes) != 1 or not self.channels or len(self.tokens) != len(self.latent):
            raise BadArgument(
                f"levels of {self.tokens} x {self.latent}, channels {self.channels}, depth {self.depth}: as many of each.",
                where="cascade",
            )
        if any(c % self.head_channels for c in self.channels) or min(self.depth) < 1 or self.cross_every < 0:
            raise BadArgument("channels are multiples of head_channels, depth starts at 1.", where="cascade")
        if not 0 <= self.drop_label <= 1 or self.condition_noise < 0 or len(set(self.classes)) != len(self.classes):
            raise BadArgument("drop_label is a share, condition_noise not negative, classes differ.", where="cascade")

    def for_codec(self, codec: Codec, classes: Sequence[str]) -> CascadeConfig:
        """The configuration with everything that the codec and the data decide.

        Raises:
            BadArgument: not a LaGeM codec with standardised latents and as many levels, or another one than was named before.
        """
        settings: Any = codec.config
        if codec.kind != "lagem" or settings.bottleneck != "standardise":
            raise BadArgument(
                f"'{codec.name or codec.kind}' has no standardised sets of vectors.",
                where="cascade",
                hint="lagem-small.",
            )
        if len(settings.tokens) != len(self.channels):
            raise BadArgument(
                f"{len(settings.tokens)} levels of the codec, {len(self.channels)} denoisers.", where="cascade"
            )
        if not codec.codec_hash:
            raise BadArgument("the codec was never saved: nothing tells its weights from others.", where="cascade")
        if self.codec_hash and self.codec_hash != codec.codec_hash:
            raise BadArgument(
                f"the run began with weights {self.codec_hash} of '{self.codec}', which now has {codec.codec_hash}.",
                where="cascade",
                hint="start a new run, or give the old weights.",
            )
        return replace(
            self,
            codec_hash=codec.codec_hash,
            tokens=settings.tokens,
            latent=settings.latent,
            resolution=settings.resolution,
            classes=tuple(classes),
        )


def standardise(latents: Tensor) -> Tensor:
    """(..., Z) -> (..., Z) float32 with mean 0 and variance 1 over the channels of each vector: back onto the codec's sphere."""
    return layer_norm(latents.float(), latents.shape[-1:], eps=_EPS)


class Stage(nn.Module):
    """The denoiser D_i of one level (eq. 10): noised vectors ask each coarser level in turn, then a DiT.

    Args:
        config: of the cascade.
        index: of the level, 0 is the coarsest.
    """

    def __init__(self, config: CascadeConfig, index: int) -> None:
        super().__init__()
        channels, latent = config.channels[index], config.latent
        heads = channels // config.head_channels
        self.embed = nn.Linear(latent[index], channels)
        self.embed_coarser = nn.ModuleList(nn.Linear(latent[j], channels) for j in range(index))
        self.upsample = nn.ModuleList(CrossBlock(channels, heads) for _ in range(index))
        self.noise = NoiseEmbedding(channels)
        self.condition_noise = NoiseEmbedding(channels) if index and config.condition_noise else None
        self.label = nn.Embedding(len(config.classes) + 1, channels)  # the last one is "any"
        self.body = Dit(
            channels,
            latent[index],
            heads,
            config.depth[index],
            context=channels if index and config.cross_every else None,
            cross_every=config.cross_every or 1,
            shared=config.shared_modulation,
        )

    def forward(self, x: Tensor, label: Tensor, classes: Tensor, coarser: Sequence[Tensor], strength: Tensor) -> Tensor:
        """Noised vectors (B, m, Z) -> the preconditioned network's answer (B, m, Z).

        Args:
            x: of unit variance.
            label: (B,) of the noise level, see `Edm`.
            classes: (B,) int64.
            coarser: (B, m_j, Z_j) of the levels before, coarsest first.
            strength: (B,) of the noise on `coarser`.
        """
        condition = self.noise(label) + self.label(classes)
        if self.condition_noise is not None:
            condition = condition + self.condition_noise(strength)
        tokens, context = self.embed(x), None
        if coarser:
            parts = [embed(level) for embed, level in zip(self.embed_coarser, coarser, strict=True)]
            for upsample, part in zip(self.upsample, parts, strict=True):
                tokens = upsample(tokens, part)  # eq. 11, and eq. 12 from the inside outwards
            context = torch.cat(parts, 1)
        return self.body(tokens, condition, DENSE, context)


class Cascade(Generator):
    """Three denoisers, or as many as the codec has levels: each makes a level out of noise and the levels before it."""

    kind = "lagem-cascade"
    config: CascadeConfig

    def __init__(self, config: CascadeConfig) -> None:
        super().__init__()
        if not config.tokens:
            raise BadArgument(
                "the levels are not known yet.", where="cascade", hint="config.for_codec(codec, classes)."
            )
        self.config = config
        self.stages = nn.ModuleList(Stage(config, index) for index in range(len(config.tokens)))

    def loss(self, batch: LatentBatch, step: int, rng: torch.Generator) -> Loss:
        """Sum over the levels of EDM's loss (eq. 10 with appendix F); each denoiser learns by its own term alone."""
        losses = [self._stage_loss(stage, part) for stage, part in zip(self.stages, batch.stages, strict=True)]
        count = len(losses)
        terms = {f"z{count - index}": loss.detach() for index, loss in enumerate(losses)}  # the paper's names
        return Loss(torch.stack(losses).sum(), terms)

    def _stage_loss(self, stage: nn.Module, batch: StageBatch) -> Tensor:
        config = self.config
        hidden = batch.uniform[:, 0] < config.drop_label
        classes = torch.where(hidden, len(config.classes), batch.labels)
        strength = config.condition_noise * batch.uniform[:, 1]
        parts = zip(batch.coarser, batch.coarser_noise, strict=True)
        coarser = [_noised(level, noise, strength) for level, noise in parts]

        def network(x: Tensor, label: Tensor) -> Tensor:
            return stage(x, label, classes, coarser, strength)

        times = config.process.times(batch.normal)
        return config.process.loss(network, batch.clean, batch.noise, times, DENSE).mean()

    def compiled_parts(self) -> list[nn.Module]:
        """See `Trainable.compiled_parts`: equal blocks of a denoiser share a compilation."""
        kinds = (Block, CrossBlock)
        return [part for stage in self.stages for part in stage.modules() if isinstance(part, kinds)]

    def evaluations(self, steps: int) -> int:
        """See `Generator.evaluations`: of all levels."""
        return len(self.stages) * self.config.process.evaluations(steps)

    @torch.inference_mode()
    def sample(
        self,
        count: int,
        *,
        seed: int = 0,
        first: int = 0,
        labels: Sequence[int | None] | None = None,
        steps: int = 18,
        guidance: Guidance | None = None,
        progress: Callable[[], None] | None = None,
        fixed: Sequence[Tensor] = (),
    ) -> Latents:
        """Latents of `count` new shapes, on the generator's device.

        Args:
            count: shapes.
            seed: with a shape's number it decides the shape.
            first: number of the first shape.
            labels: a class for each shape, or None for any; None for all.
            steps: of the sampler, a level.
            guidance: classifier-free guidance by the class.
            progress: called after every evaluation of a denoiser (two where guidance asks twice count as one).
            fixed: (count, m, Z) latents of the coarsest levels, which are then not generated (Figure 13).

        Raises:
            BadArgument: sizes that do not fit, or guidance without a class to go by.
        """
        config, guide = self.config, guidance or Guidance()
        given = list(labels) if labels is not None else [None] * count
        if count < 1 or len(given) != count or len(fixed) > len(config.tokens):
            raise BadArgument(f"{count} shapes, {len(given)} labels, {len(fixed)} fixed levels.", where="sample")
        if guide.scale != 1 and None in given:
            raise BadArgument(
                "guidance follows a category, and none was asked for.", where="--guidance", hint="--category"
            )
        nothing = len(config.classes)
        classes = torch.tensor([nothing if label is None else label for label in given], device=self.device)
        made = [level.to(self.device, torch.float32) for level in fixed]
        for index, level in enumerate(made):
            if level.shape != (count, config.tokens[index], config.latent[index]):
                raise BadArgument(f"fixed level {index} is {tuple(level.shape)}.", where="sample")
        for index, stage in islice(enumerate(self.stages), len(made), None):
            noise = self._noise(count, index, seed, first, "cascade")
            strength = torch.full((count,), config.condition_noise / 2, device=self.device)
            hints = [
                _noised(level, self._noise(count, j, seed, first, f"cascade condition {index}"), strength)
                for j, level in enumerate(made)
            ]
            network, without = self._networks(stage, classes, hints, strength)
            tokens = config.process.sample(
                network, noise, DENSE, steps=steps, guidance=guide, without=without, progress=progress
            )
            made.append(standardise(tokens))
        return self._packed(made)

    def _networks(
        self, stage: nn.Module, classes: Tensor, coarser: list[Tensor], strength: Tensor
    ) -> tuple[Network, Network]:
        """The denoiser told the classes, and told none."""

        def told(which: Tensor) -> Network:
            def network(x: Tensor, label: Tensor) -> Tensor:
                with self._autocast():
                    return stage(x, label, which, coarser, strength)

            return network

        return told(classes), told(torch.full_like(classes, len(self.config.classes)))

    def _noise(self, count: int, index: int, seed: int, first: int, purpose: str) -> Tensor:
        """(count, m, Z) unit normal of level `index`, drawn on the CPU: the same on every device."""
        size = self.config.tokens[index], self.config.latent[index]
        each = [torch.randn(size, generator=counted_rng(seed, first + i, index, purpose)) for i in range(count)]
        return torch.stack(each).to(self.device)

    def _packed(self, made: Sequence[Tensor]) -> Latents:
        levels = tuple(Level(level.flatten(0, 1), torch.arange(len(level) + 1) * level.shape[1]) for level in made)
        return Latents(levels, self.config.resolution, codec="lagem", codec_hash=self.config.codec_hash)


def _noised(level: Tensor, noise: Tensor, strength: Tensor) -> Tensor:
    """(B, m, Z) latents with noise of standard deviation `strength` (B,), scaled back to unit variance."""
    spread = strength[:, None, None]
    return (level + spread * noise) / (1 + spread.square()).sqrt()
