"""Runs that train LaGeM, and VecSet as its one-level case."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from shapecodec.codecs.lagem.config import LagemConfig
from shapecodec.data.occupancy import OccupancySourceConfig
from shapecodec.data.shape_pools import PoolSizes
from shapecodec.recipes.base import Recipe
from shapecodec.train.config import RunConfig

SHAPENET_TOKENS, SHAPENET_LATENT = (32, 128, 512), (32, 16, 8)


def lagem_objaverse() -> Recipe[OccupancySourceConfig]:
    """LaGeM-Objaverse: 499.85M parameters, levels of 128, 512 and 2048 vectors; four GPUs of 80 GB, 16 shapes a pass.

    The optimiser is the released code's (effective batch 256, 5e-5, clipped at 1, half a cosine to 1e-6). Its 500 passes over 600
    thousand shapes are 1.17 million steps.
    """
    return Recipe(
        "lagem",
        LagemConfig(),
        OccupancySourceConfig(shapes=256, points=8192, latents=2048, rotate=1.0, procedural=0),
        RunConfig(
            steps=1_170_000,
            lr=5e-5,
            final_factor=0.02,
            warmup_steps=2344,
            weight_decay=0.01,
            accumulation=4,
            compile=True,
        ),
    )


def lagem_shapenet() -> Recipe[OccupancySourceConfig]:
    """LaGeM-ShapeNet: 125.09M parameters, levels of 32, 128 and 512 vectors; 500 passes over 48,597 shapes."""
    first = lagem_objaverse()
    return replace(
        first,
        codec=LagemConfig(tokens=SHAPENET_TOKENS, latent=SHAPENET_LATENT, channels=512, points=2048),
        source=replace(first.source, points=2048, latents=512),
        run=replace(first.run, steps=95_000, warmup_steps=190, accumulation=1),
    )


def vecset_objaverse() -> Recipe[OccupancySourceConfig]:
    """VecSet beside `lagem_objaverse` (Table 3: 424.24M parameters, 2048 vectors of 64 channels, 24 blocks)."""
    first = lagem_objaverse()
    return replace(first, codec=_vecset(first.codec, latent=64))


def vecset_shapenet() -> Recipe[OccupancySourceConfig]:
    """VecSet beside `lagem_shapenet` (Table 3: 106.13M parameters, 512 vectors of 8 channels, 24 blocks)."""
    first = lagem_shapenet()
    return replace(first, codec=_vecset(first.codec, latent=8))


def _vecset(codec: LagemConfig, *, latent: int, depth: int = 24) -> LagemConfig:
    """One level with the finest one's vectors, KL, one head where points are read and asked, paths dropped as in VecSet."""
    return replace(
        codec,
        tokens=codec.tokens[-1:],
        latent=(latent,),
        depth=depth,
        depths=(),
        bottleneck="kl",
        cross_heads=1,
        drop_path=0.1,
    )


def lagem_small() -> Recipe[OccupancySourceConfig]:
    """Small enough for minutes of one GPU: 31.4M parameters, ShapeNet's levels, 11,264 numbers, real meshes and procedural solids.

    The weights that ship as `lagem-small` were trained by an earlier form of this recipe, with 7,168 numbers: 8 a vector on the
    finest level, 8 blocks a level, no normals, half of the shapes rotated. Their folder's train_config.json has all of it.

    Departures from the paper for a run of minutes; docs/notebook.md has the measurements behind them. Muon. Near queries weigh as
    much as volume queries, three quarters of the shapes are not rotated, a quarter is bent. Points carry normals. 18 of the 24
    self-attention blocks are on the finest level: spread evenly, those of the coarsest one learnt to do nothing. Coarser levels
    have to answer by themselves, too.
    """
    return Recipe(
        "lagem",
        LagemConfig(
            tokens=SHAPENET_TOKENS,
            latent=(32, 16, 16),
            channels=256,
            depths=(2, 4, 18),
            points=4096,
            normals=True,
            near_weight=1.0,
            level_weight=0.1,
        ),
        OccupancySourceConfig(procedural=6000, points=4096, normals=True, rotate=0.25, bend=0.25),
        RunConfig(
            time_budget_s=900.0,
            lr=3e-3,
            warmup_steps=200,
            weight_decay=0.01,
            betas=(0.9, 0.99),
            optimizer="muon",
            compile=True,
            cuda_graphs=True,
            checkpoint_every_s=200.0,
        ),
    )


def vecset_small() -> Recipe[OccupancySourceConfig]:
    """Budget, data, optimiser and numbers of `lagem_small` for one level; 30.9M parameters. No weights of it ship."""
    first = lagem_small()
    codec = replace(_vecset(first.codec, latent=22, depth=28), cross_heads=None, drop_path=0.0)
    return replace(first, codec=codec)


def lagem_overfit() -> Recipe[OccupancySourceConfig]:
    """A few minutes on a CPU with generated meshes: shows that everything works, not what it can do."""
    return Recipe(
        "lagem",
        LagemConfig(
            tokens=(8, 16, 32), latent=(16, 8, 8), channels=64, head_channels=32, depth=1, points=256, resolution=64
        ),
        OccupancySourceConfig(
            procedural=16,
            shapes=8,
            points=256,
            latents=32,
            volume=128,
            near=128,
            stored=PoolSizes(surface=1024, inside=512, outside=512, near=1024),
        ),
        RunConfig(steps=300, lr=1e-3, warmup_steps=20, log_every=10, checkpoint_every_s=20.0),
    )


RECIPES: dict[str, Callable[[], Recipe[OccupancySourceConfig]]] = {
    "lagem-objaverse": lagem_objaverse,
    "lagem-shapenet": lagem_shapenet,
    "vecset-objaverse": vecset_objaverse,
    "vecset-shapenet": vecset_shapenet,
    "lagem-small": lagem_small,
    "vecset-small": vecset_small,
    "lagem-overfit": lagem_overfit,
}
