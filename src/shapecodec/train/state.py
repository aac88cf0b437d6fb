"""The numbers of a run that are neither weights nor moments, and what a step leaves for the log."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from shapecodec.errors import ShapecodecError


class Diverged(ShapecodecError):
    """Too many steps in a row had a non-finite loss or gradient."""


@dataclass
class RunState:
    """Stored in a checkpoint's state.json.

    Args:
        step: optimiser steps taken, skipped ones included.
        elapsed_s: seconds of training, all resumes together.
        skipped: steps whose update was skipped, counted from 1.
        rows: loss, gradient norm and terms of the steps since the last log line, skipped ones left out.
    """

    step: int = 0
    elapsed_s: float = 0.0
    skipped: list[int] = field(default_factory=list)
    rows: list[dict[str, float]] = field(default_factory=list)
    _pending: list[tuple[int, tuple[str, ...], Tensor]] = field(default_factory=list)

    @staticmethod
    def from_json(values: dict[str, Any]) -> RunState:
        """What `to_json` gave."""
        return RunState(values["step"], values["elapsed_s"], values["skipped"], values["rows"])

    def to_json(self) -> dict[str, Any]:
        """What a checkpoint stores; `settle` first."""
        return {"step": self.step, "elapsed_s": self.elapsed_s, "skipped": self.skipped, "rows": self.rows}

    def note(self, names: tuple[str, ...], values: Tensor) -> None:
        """Remember a step's loss, gradient norm and named terms (2 + len(names),) on their device, without reading."""
        self._pending.append((self.step, names, values))

    def settle(self) -> None:
        """Read what is pending, in one transfer, and tell kept from skipped steps."""
        if not self._pending:
            return
        numbers = iter(torch.cat([values for _, _, values in self._pending]).tolist())
        for step, names, _ in self._pending:
            row = {name: next(numbers) for name in ("loss", "grad_norm", *(f"terms/{name}" for name in names))}
            if math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"]):
                self.rows.append(row)
            else:
                self.skipped.append(step)
        self._pending.clear()

    def summary(self) -> dict[str, Any]:
        """Means since the last summary: loss, terms and gradient norm; None where no step counted."""
        means: dict[str, Any] = {"loss": None, "terms": {}, "grad_norm": None}
        for name in dict.fromkeys(name for row in self.rows for name in row):
            values = [row[name] for row in self.rows if name in row]
            mean = sum(values) / len(values)
            if name.startswith("terms/"):
                means["terms"][name.removeprefix("terms/")] = mean
            else:
                means[name] = mean
        self.rows.clear()
        return means
