"""What a verb says: progress on stderr, its result on stdout, as a table or as one JSON object."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table


class Reporter:
    """Stages with their seconds, and one result.

    Args:
        as_json: the result is one JSON object on stdout; else tables.
        device: waited for at the end of every stage, so that its seconds are its own.
    """

    def __init__(self, as_json: bool, device: torch.device | None = None) -> None:
        self.as_json, self.device = as_json, device
        self.progress, self.out = Console(stderr=True), Console()
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    @contextmanager
    def stage(self, key: str, text: str) -> Iterator[None]:
        """A named part of the work; its time is added to `seconds[key]`."""
        began = time.perf_counter()
        with self.progress.status(f"{text} ..."):
            yield
            if self.device is not None and self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        self._spent(key, text, time.perf_counter() - began)

    @contextmanager
    def counted(self, key: str, text: str, count: int) -> Iterator[Callable[[], None]]:
        """A stage of `count` equal parts, with a bar and an estimate; call what it yields after each part."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        began = time.perf_counter()
        with Progress(*columns, console=self.progress, transient=True) as bar:
            task = bar.add_task(f"{text} ...", total=count)
            yield lambda: bar.advance(task)
            if self.device is not None and self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        self._spent(key, text, time.perf_counter() - began)

    def _spent(self, key: str, text: str, spent: float) -> None:
        self.seconds[key] = self.seconds.get(key, 0.0) + spent
        self.progress.print(f"  {text:34}{spent:8.2f} s", style="dim", highlight=False)

    def total(self) -> dict[str, float]:
        """Seconds a stage and in total, since the reporter was made."""
        return {**self.seconds, "total": time.perf_counter() - self._began}

    def note(self, text: str) -> None:
        """A line on stderr."""
        self.progress.print(text, highlight=False, soft_wrap=True)

    def result(self, values: dict[str, Any], *tables: Table | str) -> None:
        """The one result: `values` with --json, else the tables."""
        if self.as_json:
            sys.stdout.write(json.dumps(values, allow_nan=False) + "\n")
            return
        for table in tables:
            self.out.print(table, highlight=False, soft_wrap=isinstance(table, str))


def grid(title: str, columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> Table:
    """A plain table: first column left, the others right."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2), header_style="dim")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def size_text(count: float) -> str:
    """Bytes for people: 61.3 kB, 2.4 MB (powers of 1000), as files are listed."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
