"""Latents: what every codec emits and every generator, cache and viewer understands."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from shapecodec.errors import BadLatents
from shapecodec.mesh import Similarity


@dataclass(frozen=True, eq=False)
class Level:
    """One packed set of latent vectors for a batch of shapes.

    Args:
        feats: (N, C) float32.
        offsets: (B + 1,) int64 on the CPU; shape b owns rows offsets[b] : offsets[b + 1].
        coords: (N, 3) int32 voxel coordinates in Morton order, or None for an unordered set.
        resolution: voxels an axis of `coords`, or None.
    """

    feats: Tensor
    offsets: Tensor
    coords: Tensor | None = None
    resolution: int | None = None

    def __post_init__(self) -> None:
        if self.feats.ndim != 2 or int(self.offsets[-1]) != len(self.feats):
            raise BadLatents(f"feats {tuple(self.feats.shape)} do not fit offsets that end at {int(self.offsets[-1])}.")
        if (self.coords is None) != (self.resolution is None):
            raise BadLatents("coords and resolution go together.")
        if self.coords is not None and self.coords.shape != (len(self.feats), 3):
            raise BadLatents(f"coords {tuple(self.coords.shape)} do not fit feats {tuple(self.feats.shape)}.")

    def to(self, device: torch.device | str) -> Level:
        """The same level on another device."""
        return replace(
            self, feats=self.feats.to(device), coords=None if self.coords is None else self.coords.to(device)
        )


@dataclass(frozen=True, eq=False)
class Latents:
    """Latent levels of a batch of shapes, coarse to fine, and what is needed to undo the preparation.

    Args:
        levels: at least one `Level`, all with the same batch size.
        resolution: voxels an axis of the field that they decode to.
        codec: kind of the codec that made them, and `codec_hash` of its weights; empty where they are not known.
        frames: the similarity of each shape, user frame -> unit cube; empty, or one a shape.
    """

    levels: tuple[Level, ...]
    resolution: int
    codec: str = ""
    codec_hash: str = ""
    frames: tuple[Similarity, ...] = ()

    @property
    def batch_size(self) -> int:
        """Shapes in the batch."""
        return len(self.levels[0].offsets) - 1

    def to(self, device: torch.device | str) -> Latents:
        """The same latents on another device."""
        return replace(self, levels=tuple(level.to(device) for level in self.levels))
