"""Runs that train LoG3D."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from shapecodec.codecs.log3d.config import Log3DConfig
from shapecodec.data.source import SourceConfig
from shapecodec.recipes.base import Recipe
from shapecodec.train.config import RunConfig


def log3d_base() -> Recipe:
    """The paper's network on one 80 GB GPU; AdamW's 5e-5 and 0.01 are the paper's (A.6)."""
    return Recipe(
        "log3d",
        Log3DConfig(checkpoint=True),
        SourceConfig(budget=32_768),
        RunConfig(steps=500_000, lr=5e-5, weight_decay=0.01, warmup_steps=1000, checkpoint_every_s=600.0),
    )


def log3d_tiny() -> Recipe:
    """4.2M parameters for laptops; a small network bears, and a short run needs, a larger learning rate."""
    base = log3d_base()
    return replace(
        base,
        codec=Log3DConfig(resolution=256, width=16, depth=2, heads=4, convs_per_block=1),
        run=replace(base.run, steps=50_000, lr=1e-3, warmup_steps=500),
    )


def log3d_overfit() -> Recipe:
    """A few minutes on a CPU with generated meshes: shows that everything works, not what it can do."""
    tiny = log3d_tiny()
    return replace(
        tiny,
        codec=Log3DConfig(resolution=64, width=8, depth=1, heads=2, convs_per_block=1),
        source=SourceConfig(procedural=16, budget=256, resolutions=((64, 1.0),)),
        run=replace(tiny.run, steps=200, warmup_steps=20, log_every=10),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {
    "log3d-base": log3d_base,
    "log3d-tiny": log3d_tiny,
    "log3d-overfit": log3d_overfit,
}
