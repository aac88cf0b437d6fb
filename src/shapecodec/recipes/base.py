"""A recipe: a complete run as one value, made by a Python function."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Generic, TypeVar

import torch

from shapecodec.codecs.base import Codec
from shapecodec.codecs.registry import KINDS
from shapecodec.data.occupancy import OccupancySourceConfig, open_occupancy_source
from shapecodec.data.pool import open_source
from shapecodec.data.prefetch import Prefetched
from shapecodec.data.source import SourceConfig
from shapecodec.data.view_source import ViewSourceConfig, open_view_source
from shapecodec.errors import BadArgument
from shapecodec.io.config_json import config_from_json
from shapecodec.rng import counted_seed
from shapecodec.train.config import RunConfig
from shapecodec.train.loop import Source

Settings = TypeVar("Settings", SourceConfig, OccupancySourceConfig, ViewSourceConfig)


@dataclass(frozen=True)
class Recipe(Generic[Settings]):
    """Everything that decides a run.

    Args:
        kind: of the codec, a key of `codecs.registry.KINDS`.
        codec: the codec's configuration.
        source: what batches are made of: blocks for LoG3D, points and queries for LaGeM, shapes and
            cameras for Focusing; `data` is filled in by whoever runs it.
        run: how it is trained.
    """

    kind: str
    codec: Any
    source: Settings
    run: RunConfig


def build(
    recipe: Recipe[Any], *, device: torch.device | str = "cpu", workers: int = 1
) -> tuple[Codec, Source, RunConfig]:
    """The three things that `train.loop.train` takes; weights depend on the run's seed alone.

    With `workers` > 1 meshes are decoded by so many processes. On CUDA the next blocks are prepared while a batch trains; batches
    of queries and of views are a few launches out of what lies on the device and need no thread of their own.
    """
    module, name, _ = KINDS[recipe.kind]
    torch.manual_seed(counted_seed(recipe.run.seed, purpose="initial weights"))
    codec: Codec = getattr(import_module(module), name)(recipe.codec)
    if isinstance(recipe.source, OccupancySourceConfig):
        return codec, open_occupancy_source(recipe.source, device=device, workers=workers), recipe.run
    if isinstance(recipe.source, ViewSourceConfig):
        return codec, open_view_source(recipe.source, device=device, workers=workers), recipe.run
    source = open_source(codec.prepare, recipe.source, device=device, workers=workers)
    ahead = Prefetched(source) if torch.device(device).type == "cuda" else source
    return codec, ahead, recipe.run


def from_run(config: dict[str, Any]) -> Recipe[Any]:
    """The recipe behind a run's config.json.

    Raises:
        BadArgument: a kind or setting that this version does not know.
    """
    kind = config["codec"]["kind"]
    if kind not in KINDS:
        raise BadArgument(f"unknown kind of codec {kind!r}.", where="config.json", hint=f"one of {', '.join(KINDS)}.")
    module, _, config_name = KINDS[kind]
    settings = config_from_json(
        getattr(import_module(module), config_name), config["codec"]["config"], where="config.json"
    )
    sources: dict[str, Any] = {"lagem": OccupancySourceConfig, "focusing": ViewSourceConfig}
    source = sources.get(kind, SourceConfig).from_json(config["source"])
    return Recipe(kind, settings, source, RunConfig.from_json(config["run"]))
