"""Runs that train LoG3D."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from shapecodec.codecs.log3d.config import Log3DConfig
from shapecodec.data.source import PoolConfig, SourceConfig
from shapecodec.recipes.base import Recipe
from shapecodec.train.config import RunConfig


def log3d_paper() -> Recipe[SourceConfig]:
    """The paper's network and optimiser (A.6) at 1024^3; it trained for three days on eight GPUs."""
    return Recipe(
        "log3d",
        Log3DConfig(checkpoint=True),
        SourceConfig(budget=32_768, resolutions=((1024, 1.0),)),
        RunConfig(steps=500_000, lr=5e-5, weight_decay=0.01, warmup_steps=1000, checkpoint_every_s=600.0),
    )


def log3d_paper_2048() -> Recipe[SourceConfig]:
    """The paper's second stage: the trained 1024^3 network goes on at 2048^3 (A.6); name it with `--init RUN`."""
    first = log3d_paper()
    return replace(
        first,
        codec=replace(first.codec, resolution=2048),
        source=replace(first.source, resolutions=((2048, 1.0),)),
        run=replace(first.run, steps=300_000),
    )


def log3d_base() -> Recipe[SourceConfig]:
    """The released `log3d-base`: 800 s on one H100.

    Two transformer blocks a side instead of eight and batches of crops of many shapes: with so few steps they reach a given
    error sooner (docs/notebook.md). The loss's weight near the surface and its delta made no difference in trials of 45 s.
    """
    return Recipe(
        "log3d",
        Log3DConfig(depth=2, huber_delta=0.05, near_weight=2.0),
        SourceConfig(procedural=1500, pool=PoolConfig(), resolutions=((256, 0.35), (512, 0.4), (1024, 0.25))),
        RunConfig(
            time_budget_s=800.0,
            lr=1.4e-3,
            weight_decay=0.01,
            warmup_steps=200,
            betas=(0.9, 0.99),
            checkpoint_every_s=200.0,
        ),
    )


def log3d_tiny() -> Recipe[SourceConfig]:
    """The released `log3d-tiny`, for laptops: a quarter of the channels' product and one plain block a side."""
    base = log3d_base()
    return replace(
        base,
        codec=replace(base.codec, resolution=256, width=16, depth=1, heads=4, convs_per_block=1),
        source=replace(base.source, resolutions=((256, 0.7), (512, 0.3))),
        run=replace(base.run, time_budget_s=230.0, lr=2e-3),
    )


def log3d_overfit() -> Recipe[SourceConfig]:
    """A few minutes on a CPU with generated meshes: shows that everything works, not what it can do."""
    tiny = log3d_tiny()
    return replace(
        tiny,
        codec=Log3DConfig(resolution=64, width=8, depth=1, heads=2, convs_per_block=1),
        source=SourceConfig(procedural=16, budget=256, resolutions=((64, 1.0),)),
        run=replace(
            tiny.run, steps=200, time_budget_s=None, lr=1e-3, warmup_steps=20, log_every=10, checkpoint_every_s=20.0
        ),
    )


RECIPES: dict[str, Callable[[], Recipe[SourceConfig]]] = {
    "log3d-paper": log3d_paper,
    "log3d-paper-2048": log3d_paper_2048,
    "log3d-base": log3d_base,
    "log3d-tiny": log3d_tiny,
    "log3d-overfit": log3d_overfit,
}
