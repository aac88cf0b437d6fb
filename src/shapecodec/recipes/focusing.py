"""Runs that train Focusing, and the two baselines that its paper compares itself with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from shapecodec.codecs.focusing.config import FocusConfig, FocusingConfig, WeightsConfig
from shapecodec.data.augment import Augment
from shapecodec.data.view_source import ViewSourceConfig
from shapecodec.recipes.base import Recipe
from shapecodec.render.image_losses import ImageLossConfig
from shapecodec.train.config import RunConfig


def focusing_512() -> Recipe[ViewSourceConfig]:
    """The paper's first stage: 178.8M parameters at 512^3, 32 GPUs of 80 GB with one shape each, 40,000 steps.

    LPIPS has its weight here, so its pretrained weights must be present; `focusing-small` does without.
    """
    return Recipe(
        "focusing",
        FocusingConfig(checkpoint=True),
        ViewSourceConfig(shapes=32, procedural=0, real=1.0),
        RunConfig(steps=40_000, lr=1e-4, weight_decay=0.01, warmup_steps=500, checkpoint_every_s=1200.0),
    )


def focusing_1024() -> Recipe[ViewSourceConfig]:
    """The paper's second stage at 1024^3, which goes on from the first's weights."""
    first = focusing_512()
    codec = replace(first.codec, resolution=1024, weights=replace(first.codec.weights, tsdf_steps=0))
    return replace(first, codec=codec, source=replace(first.source, resolutions=((1024, 1.0),)))


def focusing_small() -> Recipe[ViewSourceConfig]:
    """The released `focusing-small`: 512^3 on one GPU, real meshes and procedural ones with open sheets, shells and rods.

    Departures from the paper for a run of minutes (docs/notebook.md): a narrower network whose PointNet is trained with it, Muon,
    four shapes a step of fewer voxels in pictures of 256^2, an encoder that reads the kept voxels and the windows around them, a
    signed distance that keeps counting after the warm-up, no LPIPS, and no occupancy heads, whose targets take a third of a
    step while the host is the limit. The released weights had 215 s (`--time-budget 215`).
    """
    return Recipe(
        "focusing",
        FocusingConfig(
            points=409_600,
            point_channels=128,
            channels=256,
            heads=8,
            depth=6,
            up_channels=(128, 64),
            occupancy_ratio=1,
            focus=FocusConfig(least=2048, most=4096, size=256, depth_size=256, halo=1),
            weights=WeightsConfig(
                images=ImageLossConfig(lpips=0.0),
                occupancy=0.0,
                tsdf=5.0,
                tsdf_steps=4000,
                tsdf_after=0.3,
                render_from=300,
                variation=0.0,
                deviation=20.0,
                parameters=0.05,
            ),
        ),
        ViewSourceConfig(shapes=4, procedural=300, real=0.7, augment=Augment(stretched=0.25, fill=(0.6, 0.95))),
        RunConfig(
            time_budget_s=900.0,
            lr=3e-3,
            warmup_steps=200,
            weight_decay=0.01,
            betas=(0.9, 0.99),
            optimizer="muon",
            checkpoint_every_s=200.0,
            unused_parameters=True,
        ),
    )


def focusing_small_carve() -> Recipe[ViewSourceConfig]:
    """`focusing-small` without zooming: all voxels that a view sees; one shape a step."""
    return _as(focusing_small(), "carve")


def focusing_small_all() -> Recipe[ViewSourceConfig]:
    """`focusing-small` without carving and zooming, as TripoSF trains: everything is decoded, a section of it is looked at."""
    return _as(focusing_small(), "all")


def _as(recipe: Recipe[ViewSourceConfig], mode: str) -> Recipe[ViewSourceConfig]:
    focus = replace(recipe.codec.focus, mode=mode, halo=None)
    return replace(recipe, codec=replace(recipe.codec, focus=focus), source=replace(recipe.source, shapes=1))


def focusing_overfit() -> Recipe[ViewSourceConfig]:
    """A few minutes on a CPU with generated meshes at 64^3: shows that everything works, not what it can do."""
    small = focusing_small()
    return Recipe(
        "focusing",
        replace(
            small.codec,
            resolution=64,
            points=8192,
            point_channels=32,
            channels=48,
            heads=3,
            depth=2,
            up_channels=(32, 16),
            focus=FocusConfig(least=64, most=128, size=64, depth_size=64, halo=1),
            weights=replace(small.codec.weights, tsdf_steps=300, render_from=50, tsdf_corners=4096),
        ),
        ViewSourceConfig(shapes=2, procedural=8, resolutions=((64, 1.0),), size=64),
        RunConfig(steps=400, lr=3e-3, warmup_steps=20, log_every=10, checkpoint_every_s=30.0),
    )


RECIPES: dict[str, Callable[[], Recipe[ViewSourceConfig]]] = {
    "focusing-512": focusing_512,
    "focusing-1024": focusing_1024,
    "focusing-small": focusing_small,
    "focusing-small-carve": focusing_small_carve,
    "focusing-small-all": focusing_small_all,
    "focusing-overfit": focusing_overfit,
}
