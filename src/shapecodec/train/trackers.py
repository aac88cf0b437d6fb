"""Where a run reports to: log.jsonl always, TensorBoard on demand, a progress bar where stderr is a terminal."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from shapecodec.errors import require
from shapecodec.train.folder import LOG


def truncate_log(path: Path, step: int) -> None:
    """Drop the lines after `step`, and a last line that a crash cut: the log then equals an uninterrupted run's."""
    if not path.exists():
        return
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            complete = line.endswith(b"\n") and json.loads(line)["step"] <= step
        except ValueError:
            complete = False
        if not complete:
            break
        kept.append(line)
    staged = path.with_name(f".{path.name}.staged")
    staged.write_bytes(b"".join(kept))
    staged.replace(path)


class Trackers:
    """Open reports of one process; all but the first process's are silent.

    Args:
        folder: the run's.
        step: where the run goes on; later lines of an earlier attempt are dropped.
        tensorboard: also write event files to `folder`/tensorboard.
        enabled: whether this process reports.
    """

    def __init__(self, folder: Path, step: int, *, tensorboard: bool, enabled: bool) -> None:
        self._folder, self._step, self._tensorboard, self._enabled = folder, step, tensorboard, enabled
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=console, disable=not (enabled and console.is_terminal))
        self._task = self._bar.add_task("training", total=1.0)
        self._writer: Any = None

    def __enter__(self) -> Trackers:
        if self._enabled:
            truncate_log(self._folder / LOG, self._step)
            self._log = (self._folder / LOG).open("a")
            if self._tensorboard:
                require("tensorboard", extra="track")
                module = require("torch.utils.tensorboard", extra="track")
                self._writer = module.SummaryWriter(str(self._folder / "tensorboard"), purge_step=self._step)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._enabled:
            self._bar.stop()
            self._log.close()
            if self._writer is not None:
                self._writer.close()

    def advance(self, progress: float) -> None:
        """Move the bar to `progress` in [0, 1]."""
        self._bar.update(self._task, completed=progress)

    def write(self, line: dict[str, Any]) -> None:
        """One line of log.jsonl; it must hold `step`. Numbers that are not finite become null."""
        if not self._enabled:
            return
        self._log.write(json.dumps(_finite(line), allow_nan=False) + "\n")
        self._log.flush()
        if line.get("loss") is not None:
            self._bar.update(self._task, description=f"step {line['step']}  loss {line['loss']:.4g}")
        if self._writer is not None:
            for name, value in _flat(line):
                self._writer.add_scalar(name, value, line["step"])

    def sync(self) -> None:
        """Make the lines so far survive a power cut: before a checkpoint that relies on them."""
        if self._enabled:
            os.fsync(self._log.fileno())


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _flat(line: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """(path, number) of each number in nested dicts, `step` left out."""
    found: list[tuple[str, float]] = []
    for key, value in line.items():
        if isinstance(value, dict):
            found += _flat(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and key != "step":
            found.append((prefix + key, value))
    return found
