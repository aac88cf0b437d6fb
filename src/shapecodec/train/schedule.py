"""How far a run is, and the learning rate there."""

from __future__ import annotations

import math

from shapecodec.train.config import RunConfig


def run_progress(run: RunConfig, step: int, elapsed_s: float) -> float:
    """Fraction of the run behind us, in [0, 1]: of its steps or of its time, whichever is further."""
    by_steps = 0.0 if run.steps is None else step / run.steps
    by_time = 0.0 if run.time_budget_s is None else elapsed_s / run.time_budget_s
    return min(1.0, max(by_steps, by_time))


def learning_rate(run: RunConfig, step: int, progress: float) -> float:
    """Learning rate of the step that takes the count from `step` to `step + 1`: linear warm-up times the schedule."""
    warmup = min(1.0, (step + 1) / run.warmup_steps) if run.warmup_steps else 1.0
    fall = 0.5 * (1 + math.cos(math.pi * progress)) if run.schedule == "cosine" else 1.0
    return run.lr * warmup * (run.final_factor + (1 - run.final_factor) * fall)
