"""The run folder: config.json (what the run is), environment.txt (its machine), log.jsonl, checkpoints/, codec/ or generator/."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from shapecodec.errors import BadArgument, BadFile
from shapecodec.io.config_json import differences
from shapecodec.io.environment import environment

CONFIG, LOG, CHECKPOINTS = "config.json", "log.jsonl", "checkpoints"


def open_run(folder: Path, config: dict[str, Any], *, resume: bool, allow_changes: bool) -> None:
    """Make a new run folder, or check that an existing one describes the same run.

    Raises:
        BadArgument: the folder holds a run and `resume` is False, holds none and it is True, or the configuration has
            changed and `allow_changes` is False; the message lists the differences.
        BadFile: a new folder cannot be made or written.
    """
    path = folder / CONFIG
    if not resume:
        if path.exists():
            raise BadArgument(
                "the folder already holds a run.", where=str(folder), hint="resume it, or another folder."
            )
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, config)
        except OSError as error:
            raise BadFile(f"a run cannot be written there ({error.strerror}).", where=str(folder)) from error
    else:
        changes = differences(read_config(folder), config)
        if changes and not allow_changes:
            raise BadArgument(
                "the configuration differs from the one that the run began with:\n  " + "\n  ".join(changes) + "\n",
                where=str(folder),
                hint="allow_changes=True to go on with the new one.",
            )
        if changes:
            warnings.warn("the run goes on with changes:\n  " + "\n  ".join(changes), RuntimeWarning, stacklevel=3)
            write_json(path, config)
    with (folder / "environment.txt").open("a") as file:
        file.write(environment())


def read_config(folder: Path) -> dict[str, Any]:
    """What config.json holds: `codec` {kind, config}, `source`, `run`.

    Raises:
        BadArgument: the folder holds no run.
        BadFile: config.json is not what a run writes.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise BadArgument(f"the folder holds no run (no {CONFIG}).", where=str(folder))
    try:
        config = json.loads(path.read_text())
    except ValueError as error:
        raise BadFile(f"not valid JSON ({error}).", where=str(path)) from error
    if not isinstance(config, dict) or config.get("format") != 1:
        raise BadFile("not the configuration of a run in format 1.", where=str(path))
    return config


def write_json(path: Path, value: Any) -> None:
    """Write the whole file or none of it."""
    staged = path.with_name(f".{path.name}.staged")
    staged.write_text(json.dumps(value, indent=1) + "\n")
    staged.replace(path)
