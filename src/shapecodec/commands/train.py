"""`train`: a recipe on a data set, or an interrupted run to its end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from shapecodec.codecs.registry import load_codec
from shapecodec.commands.console import Reporter
from shapecodec.commands.steps import choose_device
from shapecodec.data.latent_cache import LatentSourceConfig
from shapecodec.data.occupancy import OccupancySourceConfig
from shapecodec.data.view_source import ViewSourceConfig
from shapecodec.errors import BadArgument
from shapecodec.generate.base import Generator
from shapecodec.generate.registry import load_generator
from shapecodec.recipes import RECIPES, Recipe, build, find_recipe, from_run
from shapecodec.train.config import RunConfig
from shapecodec.train.folder import read_config
from shapecodec.train.loop import Outcome
from shapecodec.train.loop import train as train_codec
from shapecodec.train.parallel import process_device


def run(
    recipe: str | None,
    *,
    data: Path | None,
    folder: Path | None,
    resume: Path | None,
    init: str | None,
    steps: int | None,
    time_budget: float | None,
    lr: float | None,
    budget: int | None,
    codec: str | None,
    seed: int | None,
    workers: int,
    pools: Path | None,
    stop_after: float | None,
    device: str,
    as_json: bool,
) -> None:
    """See `cli.train`."""
    report = Reporter(as_json)
    overrides = {"steps": steps, "time_budget_s": time_budget, "lr": lr, "seed": seed}
    if resume is not None:
        fixed = {
            **overrides,
            "budget": budget,
            "codec": codec,
            "init": init,
            "data": data,
            "run": folder,
            "recipe": recipe,
        }
        given = [name for name, value in fixed.items() if value is not None]
        if given:
            raise BadArgument(
                f"--resume takes everything from the run; {', '.join(given)} was given too.", where="train"
            )
        folder, plan = resume, from_run(read_config(resume))
    else:
        if recipe is None or folder is None:
            raise BadArgument(
                "a recipe and --run FOLDER are needed.", where="train", hint=f"a recipe is one of {', '.join(RECIPES)}."
            )
        plan = _changed(find_recipe(recipe), overrides, data, budget, codec)
    chosen = process_device(torch.device(choose_device(device)))
    with report.stage("load", "read the data"):
        model, source, settings = build(plan, device=chosen, workers=workers, pools=pools)
        if init is not None:
            start = load_generator(init) if isinstance(model, Generator) else load_codec(init)
            shapes = [{key: value.shape for key, value in each.state_dict().items()} for each in (model, start)]
            if shapes[0] != shapes[1]:
                raise BadArgument(
                    f"the weights of '{init}' do not fit the recipe's network.", where="--init", hint="its own recipe."
                )
            model.load_state_dict(start.state_dict())
    report.note(f"  losses and rates go to {folder / 'log.jsonl'}")
    outcome = train_codec(
        model, source, settings, folder, resume=resume is not None, device=device, stop_after_s=stop_after
    )
    values = _values(outcome, recipe, settings, model.export_folder)
    report.result(values, _sentence(outcome))


def _changed(
    recipe: Recipe[Any], overrides: dict[str, Any], data: Path | None, budget: int | None, codec: str | None
) -> Recipe[Any]:
    """The recipe with the settings that were given; an end that was given replaces both of the recipe's."""
    given = {name: value for name, value in overrides.items() if value is not None}
    if "steps" in given or "time_budget_s" in given:
        given = {"steps": None, "time_budget_s": None, **given}
    source = recipe.source if data is None else replace(recipe.source, data=str(data.resolve()))
    if codec is not None:
        if not isinstance(source, LatentSourceConfig):
            raise BadArgument("only generators learn from a codec's latents.", where="--codec", hint="--init.")
        source, recipe = replace(source, codec=codec), replace(recipe, codec=replace(recipe.codec, codec=codec))
    if budget is not None and isinstance(source, LatentSourceConfig):
        source = source.resized(budget)
    elif budget is not None:
        counted = isinstance(source, OccupancySourceConfig | ViewSourceConfig)
        source = replace(source, shapes=budget) if counted else replace(source, budget=budget)
    source = replace(source, seed=given.get("seed", source.seed))
    return replace(recipe, source=source, run=replace(recipe.run, **given))


def _values(outcome: Outcome, recipe: str | None, settings: RunConfig, export: str) -> dict[str, Any]:
    made = outcome.folder / export
    return {
        "run": str(outcome.folder),
        "recipe": recipe,
        "step": outcome.step,
        "finished": outcome.finished,
        "seed": settings.seed,
        "seconds": {"total": outcome.elapsed_s},
        export: str(made) if made.is_dir() else None,
    }


def _sentence(outcome: Outcome) -> str:
    state = "finished" if outcome.finished else f"stopped; go on with: shapecodec train --resume {outcome.folder}"
    return f"{outcome.folder}: step {outcome.step:,} after {outcome.elapsed_s:.0f} s, {state}"
