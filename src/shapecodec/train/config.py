"""RunConfig: everything that decides a run beside the codec and the data, as one frozen, JSON-serialisable value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shapecodec.errors import BadArgument


@dataclass(frozen=True)
class RunConfig:
    """How a codec is trained. The batch is the source's; `accumulation` and the processes decide in how many shards.

    A run ends after `steps` steps or `time_budget_s` seconds of training, whichever comes first; at least one is given.
    The schedule follows the further advanced of the two. With `time_budget_s` the learning rate depends on the clock,
    so such a run is not bit-equal after a resume; with `steps` alone it is.

    Args:
        seed: root of all counted randomness.
        steps: optimiser steps of the whole run.
        time_budget_s: seconds of training, summed over resumes, validation and checkpoints included.
        accumulation: forward and backward passes a step and process, whose gradients are averaged.
        lr: peak learning rate.
        schedule: `cosine` falls from `lr` to `lr * final_factor` over the run, `constant` stays.
        warmup_steps: steps of linear growth of the learning rate from 0.
        final_factor: what the cosine ends on, as a fraction of `lr`.
        betas: AdamW's decay rates.
        weight_decay: of parameters with two or more axes; norms, biases and other vectors are not decayed.
        clip_norm: largest gradient norm; None does not clip (the norm is still logged).
        ema_widths: relative widths of the averages kept of the weights, each in (0, 0.288): 0.05 averages over about
            the last tenth of the run, whatever its length. The first is validated and exported; empty keeps none.
        optimizer: `adamw`, or `muon` for matrices with AdamW for the rest (`train.muon`), under the same learning rate.
        precision: `auto` is bf16 autocast on CUDA and fp32 elsewhere.
        compile: run the loss, or the parts of it that the codec names, through `torch.compile`.
        cuda_graphs: on CUDA, record the whole step, from forward pass to optimiser, as one CUDA graph (`train.recorded`), so that
            the host is no limit; for batches of one shape and losses that do not depend on the step. With several processes forward
            and backward pass are recorded alone, and only with `compile`.
        unused_parameters: some parameters get no gradient in some steps; needed by several processes only, and slower.
        bad_steps_limit: stop after so many steps in a row with a non-finite loss or gradient.
        log_every: steps between lines of log.jsonl; the only per-run cost of logging is one device read a line.
        validate_every_steps: steps between calls of the validation hook.
        validate_every_s: seconds between calls of the validation hook.
        checkpoint_every_steps: steps between checkpoints.
        checkpoint_every_s: seconds between checkpoints.
        keep: checkpoints that stay on disk.
        tensorboard: also write scalars for TensorBoard (extra `track`).
    """

    seed: int = 0
    steps: int | None = None
    time_budget_s: float | None = None
    accumulation: int = 1
    lr: float = 1e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = 0
    final_factor: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.01
    clip_norm: float | None = 1.0
    ema_widths: tuple[float, ...] = (0.05,)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    optimizer: Literal["adamw", "muon"] = "adamw"
    compile: bool = False
    cuda_graphs: bool = False
    unused_parameters: bool = False
    bad_steps_limit: int = 20
    log_every: int = 50
    validate_every_steps: int | None = None
    validate_every_s: float | None = None
    checkpoint_every_steps: int | None = None
    checkpoint_every_s: float | None = 600.0
    keep: int = 2
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if self.steps is None and self.time_budget_s is None:
            raise BadArgument("a run needs an end.", where="RunConfig", hint="steps=10000 or time_budget_s=3600.")
        positive = (
            "steps time_budget_s accumulation lr clip_norm bad_steps_limit log_every validate_every_steps "
            "validate_every_s checkpoint_every_steps checkpoint_every_s keep"
        )
        for name in positive.split():
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise BadArgument(f"{name} must be positive, not {value}.", where="RunConfig")
        if self.cuda_graphs and self.accumulation > 1:
            raise BadArgument(
                "a recorded step has one pass.", where="RunConfig", hint="accumulation=1, or no cuda_graphs."
            )
        for name, allowed in (
            ("schedule", ("cosine", "constant")),
            ("precision", ("auto", "bf16", "fp32")),
            ("optimizer", ("adamw", "muon")),
        ):
            if getattr(self, name) not in allowed:
                raise BadArgument(
                    f"unknown {name} '{getattr(self, name)}'.", where="RunConfig", hint=f"one of {', '.join(allowed)}."
                )
        if self.warmup_steps < 0 or not 0 <= self.final_factor <= 1 or self.weight_decay < 0:
            raise BadArgument(
                "warmup_steps and weight_decay must not be negative, final_factor lies in [0, 1].", where="RunConfig"
            )

    @staticmethod
    def from_json(values: dict[str, Any]) -> RunConfig:
        """The configuration that `to_json` wrote.

        Raises:
            BadArgument: a key is unknown or a value out of range.
        """
        unknown = sorted(set(values) - {field.name for field in dataclasses.fields(RunConfig)})
        if unknown:
            raise BadArgument(f"unknown settings: {', '.join(unknown)}.", where="RunConfig")
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
        return RunConfig(**fields)

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and strings."""
        return to_json(self)


def to_json(value: Any) -> Any:
    """Dataclasses, tuples and paths as what JSON can hold.

    Raises:
        BadArgument: something else is inside, which a resumed run could not be built from.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise BadArgument(f"{type(value).__name__} cannot be written as JSON.", where="configuration")
