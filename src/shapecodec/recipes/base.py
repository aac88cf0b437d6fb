"""A recipe: a complete run as one value, made by a Python function."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from shapecodec.codecs.base import Codec, Trainable
from shapecodec.codecs.registry import KINDS, load_codec
from shapecodec.data.latent_cache import LatentSourceConfig, open_latent_source
from shapecodec.data.occupancy import OccupancySourceConfig, open_occupancy_source
from shapecodec.data.pool import open_source
from shapecodec.data.prefetch import Prefetched
from shapecodec.data.source import SourceConfig
from shapecodec.data.view_source import ViewSourceConfig, open_view_source
from shapecodec.errors import BadArgument
from shapecodec.generate.registry import GENERATORS
from shapecodec.io.config_json import config_from_json
from shapecodec.rng import counted_seed
from shapecodec.train.config import RunConfig
from shapecodec.train.loop import Source

Settings = TypeVar("Settings", SourceConfig, OccupancySourceConfig, LatentSourceConfig, ViewSourceConfig)


@dataclass(frozen=True)
class Recipe(Generic[Settings]):
    """Everything that decides a run.

    Args:
        kind: of the codec or generator, a key of `codecs.registry.KINDS` or `generate.registry.GENERATORS`.
        codec: the configuration of either.
        source: what batches are made of: blocks for LoG3D, points and queries for LaGeM, shapes and
            cameras for Focusing, latents for generators; `data` is filled in by whoever runs it.
        run: how it is trained.
    """

    kind: str
    codec: Any
    source: Settings
    run: RunConfig


def build(
    recipe: Recipe[Any], *, device: torch.device | str = "cpu", workers: int = 1, pools: Path | None = None
) -> tuple[Trainable, Source, RunConfig]:
    """The three things that `train.loop.train` takes; weights depend on the run's seed alone.

    With `workers` > 1 meshes are decoded by so many processes. `pools` is a folder that keeps labelled points (`data.pool_file`).
    On CUDA the next blocks are prepared while a batch trains; batches of queries and of views are a few launches out of what lies
    on the device and need no thread of their own.
    """
    if isinstance(recipe.source, LatentSourceConfig):
        return _build_generator(recipe, recipe.source, device, workers)
    module, name, _ = KINDS[recipe.kind]
    torch.manual_seed(counted_seed(recipe.run.seed, purpose="initial weights"))
    codec: Codec = getattr(import_module(module), name)(recipe.codec)
    if isinstance(recipe.source, OccupancySourceConfig):
        return codec, open_occupancy_source(recipe.source, device=device, workers=workers, pools=pools), recipe.run
    if isinstance(recipe.source, ViewSourceConfig):
        return codec, open_view_source(recipe.source, device=device, workers=workers), recipe.run
    source = open_source(codec.prepare, recipe.source, device=device, workers=workers)
    ahead = Prefetched(source) if torch.device(device).type == "cuda" else source
    return codec, ahead, recipe.run


def _build_generator(
    recipe: Recipe[Any], settings: LatentSourceConfig, device: torch.device | str, workers: int
) -> tuple[Trainable, Source, RunConfig]:
    """A generator for the codec that the source names, which encodes the shapes once and is then let go."""
    codec = load_codec(settings.codec, device)
    recipe.codec.for_codec(codec, ())  # another codec than the run began with is refused before the work
    source = open_latent_source(settings, codec, device=device, workers=workers)
    config = recipe.codec.for_codec(codec, source.cache.classes)
    module, name, _ = GENERATORS[recipe.kind]
    torch.manual_seed(counted_seed(recipe.run.seed, purpose="initial weights"))
    return getattr(import_module(module), name)(config), source, recipe.run


def from_run(config: dict[str, Any]) -> Recipe[Any]:
    """The recipe behind a run's config.json.

    Raises:
        BadArgument: a kind or setting that this version does not know.
    """
    kind = config["codec"]["kind"]
    known = {**KINDS, **GENERATORS}
    if kind not in known:
        raise BadArgument(f"unknown kind {kind!r}.", where="config.json", hint=f"one of {', '.join(known)}.")
    module, _, config_name = known[kind]
    settings = config_from_json(
        getattr(import_module(module), config_name), config["codec"]["config"], where="config.json"
    )
    sources: dict[str, Any] = {"lagem": OccupancySourceConfig, "focusing": ViewSourceConfig} | dict.fromkeys(
        GENERATORS, LatentSourceConfig
    )
    source = sources.get(kind, SourceConfig).from_json(config["source"])
    return Recipe(kind, settings, source, RunConfig.from_json(config["run"]))
