"""What a generator is trained on: clean latents of each stage with all the random numbers that its loss takes.

The numbers are part of the batch so that the loss is a function without draws, which compiles to one CUDA graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class StageBatch:
    """Shapes for one stage.

    Args:
        clean: (B, m, Z) float32 latents that it learns to make.
        coarser: (B, m_j, Z_j) float32 latents of the levels before it, coarsest first.
        labels: (B,) int64 classes.
        noise: like `clean`, unit normal.
        coarser_noise: like `coarser`, unit normal.
        normal: (B,) unit normal, from which the noise level follows.
        uniform: (B, 2) in [0, 1): whether the label is dropped, and how much noise the condition gets.
    """

    clean: Tensor
    coarser: tuple[Tensor, ...]
    labels: Tensor
    noise: Tensor
    coarser_noise: tuple[Tensor, ...]
    normal: Tensor
    uniform: Tensor


@dataclass(frozen=True, eq=False)
class LatentBatch:
    """A batch of every stage, coarse to fine; stages learn from different shapes.

    Args:
        stages: one a level.
    """

    stages: tuple[StageBatch, ...]

    @property
    def tokens(self) -> int:
        """Vectors that are denoised, all stages together."""
        return sum(stage.clean.shape[0] * stage.clean.shape[1] for stage in self.stages)


def stage_batch(levels: list[Tensor], labels: Tensor, generator: torch.Generator) -> StageBatch:
    """A batch for the stage that makes the last of `levels` (B, m, Z) out of those before it."""
    levels = [level.float() for level in levels]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device=labels.device)

    noise = tuple(normal(*level.shape) for level in levels)
    uniform = torch.rand(len(labels), 2, generator=generator, device=labels.device)
    return StageBatch(levels[-1], tuple(levels[:-1]), labels, noise[-1], noise[:-1], normal(len(labels)), uniform)
