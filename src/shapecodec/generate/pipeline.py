"""From a generator to latents of single shapes: batches, classes, levels that are kept (Figure 13)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from shapecodec.errors import BadArgument
from shapecodec.generate.base import Generator
from shapecodec.generate.cascade import Cascade
from shapecodec.generate.guidance import Guidance
from shapecodec.latents import Latents, Level


@dataclass(frozen=True)
class Request:
    """What is asked of a generator.

    Args:
        count: shapes.
        seed: with a shape's number it decides the shape.
        categories: names that the shapes take in turn; none for whatever comes.
        steps: of the sampler.
        guidance: see `Guidance`.
        fix_levels: so many of the coarsest levels are those of the first shape in all shapes (Figure 13); 0 for none.
        batch: shapes that are generated at a time; larger ones take more memory.
    """

    count: int
    seed: int = 0
    categories: tuple[str, ...] = ()
    steps: int = 18
    guidance: Guidance = field(default_factory=Guidance)
    fix_levels: int = 0
    batch: int = 8

    def __post_init__(self) -> None:
        if self.count < 1 or self.batch < 1 or self.fix_levels < 0:
            raise BadArgument(f"{self.count} shapes in batches of {self.batch}.", where="generate", hint="-n 8.")

    def category(self, index: int) -> str | None:
        """Name of what shape `index` is to be."""
        if not self.categories:
            return None
        return self.categories[0 if self.fix_levels else index % len(self.categories)]

    def evaluations(self, generator: Generator) -> int:
        """How often `generate_latents` calls `progress`, at most."""
        head = 1 if self.fix_levels else 0
        batches = head + -(-(self.count - head) // self.batch)
        return batches * generator.evaluations(self.steps)


def generate_latents(
    generator: Generator,
    request: Request,
    *,
    like: Latents | None = None,
    progress: Callable[[], None] | None = None,
) -> Iterator[Latents]:
    """The shapes asked for, one after the other, each a batch of one on the generator's device.

    Args:
        generator: on its device.
        request: what to make.
        like: with `fix_levels`, the first shape; else it is generated, too.
        progress: called after every evaluation of a denoiser.

    Raises:
        BadArgument: an unknown category, or levels that cannot be kept.
    """
    labels = [
        None if name is None else generator.label_of(name) for name in map(request.category, range(request.count))
    ]
    if request.fix_levels or like is not None:
        yield from _variants(generator, request, labels, like, progress)
        return
    for first in range(0, request.count, request.batch):
        chosen = labels[first : first + request.batch]
        made = generator.sample(
            len(chosen),
            seed=request.seed,
            first=first,
            labels=chosen,
            steps=request.steps,
            guidance=request.guidance,
            progress=progress,
        )
        yield from (shape_of(made, index) for index in range(len(chosen)))


def _variants(
    generator: Generator,
    request: Request,
    labels: Sequence[int | None],
    like: Latents | None,
    progress: Callable[[], None] | None,
) -> Iterator[Latents]:
    """The first shape, and others that share its coarsest levels."""
    if not isinstance(generator, Cascade) or not 0 < request.fix_levels < len(generator.config.tokens):
        raise BadArgument(
            f"{request.fix_levels} levels cannot be kept: the coarsest ones of a cascade can, and not all.",
            where="--fix-levels",
            hint="1 or 2 for a cascade of three levels.",
        )

    def made(count: int, first: int, fixed: Sequence[Tensor]) -> Latents:
        return generator.sample(
            count,
            seed=request.seed,
            first=first,
            labels=labels[first : first + count],
            steps=request.steps,
            guidance=request.guidance,
            progress=progress,
            fixed=fixed,
        )

    base = made(1, 0, ()) if like is None else like.to(generator.device)
    yield base
    kept = [level.feats[None] for level in base.levels[: request.fix_levels]]
    for first in range(1, request.count, request.batch):
        count = min(request.batch, request.count - first)
        latents = made(count, first, [level.expand(count, -1, -1) for level in kept])
        yield from (shape_of(latents, index) for index in range(count))


def shape_of(latents: Latents, index: int) -> Latents:
    """One shape of a batch, as a batch of one."""
    levels = []
    for level in latents.levels:
        rows = slice(int(level.offsets[index]), int(level.offsets[index + 1]))
        coords = None if level.coords is None else level.coords[rows]
        feats = level.feats[rows]
        levels.append(Level(feats, torch.tensor([0, len(feats)]), coords, level.resolution))
    return replace(latents, levels=tuple(levels), frames=latents.frames[index : index + 1])
