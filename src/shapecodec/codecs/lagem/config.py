"""LaGeM's settings, with where each comes from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shapecodec.errors import BadArgument

RECOMPUTE = ("nothing", "queries", "upsampling", "coarse")


@dataclass(frozen=True)
class LagemConfig:
    """The Objaverse scale by default; `docs/lagem.md` says how the paper and its released code were read.

    Args:
        tokens: vectors of each level, coarse to fine (section 4.1: 128, 512, 2048). One level is VecSet.
        latent: channels of each level's vectors, coarse to fine (section 4.1: 64, 32, 16).
        channels: C of the transformer (Table 3: 1024, or 512 at ShapeNet scale).
        depth: self-attention blocks a level (Table 3: 8; 24 for VecSet's single level).
        depths: self-attention blocks of each level, coarse to fine, where levels differ; empty takes `depth` for each.
        head_channels: channels of an attention head (released code: 64).
        cross_heads: heads of the encoder's first and of the queries' attention; None takes channels / head_channels. VecSet has 1.
        points: surface points that are read (released code: 8192; the measurements of Table 3: 2048).
        normals: also read the points' unit normals, turned out of the solid: they say on which side of a wall the inside lies.
        bottleneck: `standardise` (eq. 6) or `kl` (VecSet).
        kl_weight: of the mean over channels and vectors (VecSet: 1e-3).
        doubled_input: a level's own features are added a second time after the upsampling block, as in the released code; eq. 8
            has them once.
        drop_path: probability to leave out a self-attention branch in training (VecSet: 0.1).
        head: `occupancy` answers logits of being inside (eq. 9); `sdf` answers truncated signed distances instead.
        truncation: of the signed distances, in the radius of the unit sphere.
        near_weight: of the queries near the surface (eq. 15: 0.1).
        level_weight: of the same loss for the answers from the coarsest level up to each but the last. 0 is the paper's; in runs of
            minutes the finest level learns first, and the coarsest then carries nothing (docs/notebook.md).
        level: logit at which the surface lies. 0 is the paper's; training on as many inside as outside points shifts it.
        resolution: voxels an axis of decoded meshes when `prepare` is given none.
        query_chunk: points that are answered at a time outside training.
        recompute: what training computes again in the backward pass instead of keeping it; each includes the ones before it, and
            the numbers are the same. `queries`: what queries learn from a level. `upsampling`: the cross attentions between levels.
            `coarse`: self-attention on all levels but the finest. What VecSet has of these saves it nothing.
    """

    tokens: tuple[int, ...] = (128, 512, 2048)
    latent: tuple[int, ...] = (64, 32, 16)
    channels: int = 1024
    depth: int = 8
    depths: tuple[int, ...] = ()
    head_channels: int = 64
    cross_heads: int | None = None
    points: int = 8192
    normals: bool = False
    bottleneck: Literal["standardise", "kl"] = "standardise"
    kl_weight: float = 1e-3
    doubled_input: bool = False
    drop_path: float = 0.0
    head: Literal["occupancy", "sdf"] = "occupancy"
    truncation: float = 0.05
    near_weight: float = 0.1
    level_weight: float = 0.0
    level: float = 0.0
    resolution: int = 256
    query_chunk: int = 1 << 16
    recompute: Literal["nothing", "queries", "upsampling", "coarse"] = "nothing"

    def __post_init__(self) -> None:
        if not self.tokens or len(self.tokens) != len(self.latent):
            raise BadArgument(
                f"{len(self.tokens)} sizes of levels and {len(self.latent)} numbers of channels.", where="lagem"
            )
        if min(self.tokens) < 1 or list(self.tokens) != sorted(self.tokens) or self.tokens[-1] > self.points:
            raise BadArgument(
                f"levels of {self.tokens} vectors out of {self.points} points.",
                where="lagem",
                hint="coarse to fine, the finest no larger than `points`.",
            )
        if self.depths and (len(self.depths) != len(self.tokens) or min(self.depths) < 0):
            raise BadArgument(f"depths {self.depths} for {len(self.tokens)} levels.", where="lagem")
        if self.channels % self.head_channels or self.channels % (self.cross_heads or 1):
            raise BadArgument(f"{self.channels} channels do not split into the heads.", where="lagem")
        if self.resolution % 8 or self.resolution < 16:
            raise BadArgument(f"resolution {self.resolution} is not a multiple of 8 of at least 16.", where="lagem")
        if self.recompute not in RECOMPUTE:
            raise BadArgument(f"unknown recompute '{self.recompute}'.", where="lagem", hint=f"one of {RECOMPUTE}.")
        if self.drop_path and self.recomputes("coarse"):
            raise BadArgument("dropped paths cannot be computed again.", where="lagem", hint="drop_path=0.")
        if self.query_chunk < 1 or self.truncation <= 0:
            raise BadArgument("query_chunk and truncation must be positive.", where="lagem")

    @property
    def heads(self) -> int:
        """Heads of self-attention."""
        return self.channels // self.head_channels

    @property
    def blocks(self) -> tuple[int, ...]:
        """Self-attention blocks of each level, coarse to fine."""
        return self.depths or (self.depth,) * len(self.tokens)

    def recomputes(self, part: str) -> bool:
        """Whether `recompute` includes that part."""
        return RECOMPUTE.index(self.recompute) >= RECOMPUTE.index(part)
