"""Training, for every codec: load, step, log, save. One function, read from top to bottom."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from shapecodec.codecs.base import Trainable
from shapecodec.rng import counted_seed
from shapecodec.train.checkpoint import latest_checkpoint, save_checkpoint
from shapecodec.train.config import RunConfig, to_json
from shapecodec.train.ema import Ema
from shapecodec.train.export import export_codec
from shapecodec.train.folder import CHECKPOINTS, open_run, read_config, write_json
from shapecodec.train.muon import Muon
from shapecodec.train.parallel import StopSignals, Workers
from shapecodec.train.recorded import RecordedStep, Report, set_learning_rate
from shapecodec.train.schedule import learning_rate, run_progress
from shapecodec.train.state import Diverged, RunState
from shapecodec.train.trackers import Trackers

AGREE_EVERY = 10  # steps between which several processes compare clocks and signals: it makes them wait for the device


class Source(Protocol):
    """Where batches come from.

    Args of an implementation: `config`, what JSON can hold (or a dataclass of it), from which it can be built again.
    """

    config: Any

    def batch(self, step: int, rank: int, world: int, device: torch.device) -> Any:
        """Shard `rank` of `world` of the global batch of a step, on the device, as `Codec.loss` takes it.

        A function of its arguments alone. `rank` counts shards, not processes: pass m of a process is shard
        m * processes + process of passes * processes. A source that cuts a fixed global batch into `world` parts trains
        the same on any number of processes; one with a fixed budget a shard grows its batch with their number. Where
        the result has an attribute `tokens` (int), the log gives their rate.
        """
        ...


@dataclass(frozen=True)
class Outcome:
    """How `train` ended.

    Args:
        folder: the run folder.
        step: optimiser steps taken.
        elapsed_s: seconds of training, all resumes together.
        finished: False if a signal or `stop_after_s` ended it early; resume to go on.
    """

    folder: Path
    step: int
    elapsed_s: float
    finished: bool


class CodecLoss(nn.Module):
    """The codec's loss as a forward pass, which is what DDP and `torch.compile` wrap."""

    def __init__(self, codec: Trainable, precision: str, device: torch.device) -> None:
        super().__init__()
        self.codec = codec
        self.device_type = device.type
        self.bf16 = precision == "bf16" or (precision == "auto" and device.type == "cuda")

    def forward(self, batch: Any, step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Total and named terms."""
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.bf16):
            loss = self.codec.loss(batch, step, generator)
        return loss.total, loss.terms


def train(
    codec: Trainable,
    source: Source,
    run: RunConfig,
    folder: Path | str,
    *,
    resume: bool = False,
    allow_changes: bool = False,
    validate: Callable[[Trainable, int], dict[str, float]] | None = None,
    device: str = "auto",
    stop_after_s: float | None = None,
) -> Outcome:
    """Train `codec` in place and leave checkpoints, log.jsonl and the averaged weights as a codec in `folder`.

    With `run.steps` alone, on the CPU of one machine and one number of threads, a run that was killed and resumed any
    number of times gives the same bytes as one that was not. The global torch generator is seeded anew in each step.

    Args:
        codec: freshly made; a resumed run overwrites its weights.
        source: batches.
        run: settings.
        folder: new, or with `resume` that of an earlier call.
        resume: go on from the newest intact checkpoint.
        allow_changes: resume although the configuration differs.
        validate: called with the averaged weights in the codec, in eval mode, on the first process; logged.
        device: `auto`, `cpu`, `cuda` ...
        stop_after_s: end this call after so many seconds, with a checkpoint; unlike `time_budget_s` no part of the run.

    Raises:
        BadArgument: the folder and `resume` do not fit, or the configuration has changed.
        CheckpointFailed: the disk refused.
        Diverged: too many steps in a row were not finite; diverged.json in the folder lists all skipped steps.
    """
    began = time.monotonic()
    folder = Path(folder)
    workers = Workers(device, unused_parameters=run.unused_parameters)
    if workers.main:
        open_run(folder, describe(codec, source, run), resume=resume, allow_changes=allow_changes)
    checkpoint = workers.share(latest_checkpoint(folder / CHECKPOINTS) if workers.main else None)

    codec.to(workers.device).train()
    codec.codec_hash = ""  # latents of weights that change belong to no stored codec
    optimizer, ema = make_optimizer(codec, run), Ema(codec, run.ema_widths)
    state = RunState() if checkpoint is None else load(checkpoint, codec, optimizer, ema)
    model = workers.wrap(CodecLoss(codec, run.precision, workers.device))
    recorded = record(model, run, workers, optimizer, state.step)
    clock_zero = time.monotonic() - state.elapsed_s
    logged = validated = saved = (state.step, state.elapsed_s)
    tokens, lr, stop = 0, 0.0, False

    trackers = Trackers(folder, state.step, tensorboard=run.tensorboard, enabled=workers.main)
    with StopSignals() as signals, trackers, compiled(model, codec, run, workers):
        while True:
            if workers.world == 1 or state.step % AGREE_EVERY == 0 or state.step == run.steps:
                late = stop_after_s is not None and time.monotonic() - began >= stop_after_s
                state.elapsed_s, wish = workers.largest([time.monotonic() - clock_zero, signals.requested or late])
                stop = bool(wish)
            here = (state.step, state.elapsed_s)
            progress = run_progress(run, *here)
            finished = progress >= 1

            if due(here, logged, finished, run.log_every, None):
                settle(state, run, folder)
                trackers.write(log_line(state, lr, logged, workers.total(tokens), workers.device))
                tokens, logged = 0, here
            if validate is not None and due(here, validated, finished, run.validate_every_steps, run.validate_every_s):
                if workers.main:
                    trackers.write(validation_line(validate, codec, ema, state))
                workers.wait()
                validated = here
            fresh = checkpoint is None and state.step == 0
            if fresh or due(here, saved, finished or stop, run.checkpoint_every_steps, run.checkpoint_every_s):
                settle(state, run, folder)
                if workers.main:
                    trackers.sync()
                    save(folder, codec, optimizer, ema, state, run.keep)
                workers.wait()
                saved = here
            if finished or stop:
                return Outcome(folder, *here, finished)

            lr = learning_rate(run, state.step, progress)
            set_learning_rate(optimizer, lr)
            tokens += train_step(model, source, run, workers, optimizer, state, recorded)
            ema.update(state.step)
            trackers.advance(progress)


def train_step(
    model: nn.Module,
    source: Source,
    run: RunConfig,
    workers: Workers,
    optimizer: torch.optim.Optimizer,
    state: RunState,
    recorded: RecordedStep | None = None,
) -> int:
    """One update, without waiting for the device; returns the tokens that this process saw."""
    step, seen = state.step, 0
    shards = workers.world * run.accumulation

    def draw(micro: int) -> tuple[Any, int]:
        """The batch of a pass and the seed of its loss; layers that draw from the global generator are seeded."""
        nonlocal seen
        shard = micro * workers.world + workers.rank
        batch = source.batch(step, shard, shards, workers.device)
        torch.manual_seed(counted_seed(run.seed, step, shard, "torch"))
        seen += getattr(batch, "tokens", 0)
        return batch, counted_seed(run.seed, step, shard, "loss")

    if recorded is not None:
        names, report = recorded(*draw(0))
    else:
        passes = (
            (batch, torch.Generator(workers.device).manual_seed(seed))
            for batch, seed in map(draw, range(run.accumulation))
        )
        names, report = update(model, passes, step, run, workers, optimizer)
    state.step += 1
    state.note(names, report)
    return seen


def update(
    model: nn.Module,
    passes: Iterable[tuple[Any, torch.Generator]],
    step: int,
    run: RunConfig,
    workers: Workers,
    optimizer: torch.optim.Optimizer,
) -> Report:
    """Forward, backward and optimiser on batches; nothing in it waits for the device or reads a number from it.

    Returns:
        Names of the loss's terms, and the total, the gradient's norm and these terms, (2 + K,) float32.
    """
    reports: list[Tensor] = []
    names: tuple[str, ...] = ()
    optimizer.zero_grad(set_to_none=True)
    for micro, (batch, generator) in enumerate(passes):
        with workers.hold_back(model, micro + 1 < run.accumulation):
            total, terms = model(batch, step, generator)
            (total / run.accumulation).backward()
        reports.append(torch.stack([value.detach().float() for value in (total, *terms.values())]))
        names = tuple(terms)
    report = workers.mean(torch.stack(reports).mean(0))

    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(parameters, math.inf if run.clip_norm is None else run.clip_norm)
    # The fused kernel reads the flag on the device and leaves weights, moments and its step count alone: no branch
    # on the host, so no wait. Both parts are equal on all processes.
    optimizer.found_inf = (~(report[0].isfinite() & norm.isfinite())).float()  # type: ignore[attr-defined]
    optimizer.step()
    return names, torch.cat([report[:1], norm[None].float(), report[1:]])


def record(
    model: nn.Module, run: RunConfig, workers: Workers, optimizer: torch.optim.Optimizer, step: int
) -> RecordedStep | None:
    """`update` as a recorded step where the settings ask for it and one process trains; its loss is told `step` each time."""
    if not run.cuda_graphs or workers.world > 1:
        return None

    def work(batch: Any, generator: torch.Generator) -> Report:
        return update(model, [(batch, generator)], step, run, workers, optimizer)

    return RecordedStep(work, optimizer, workers.device)


@contextmanager
def compiled(model: nn.Module, codec: Trainable, run: RunConfig, workers: Workers) -> Iterator[None]:
    """Inside the block, with `run.compile`, the loss is compiled: by parts where the codec names some, else as a whole.

    Equal parts share a compilation, so that takes seconds where a whole network takes minutes.
    """
    parts = (codec.compiled_parts() if workers.world == 1 else ()) or (model,)
    if not run.compile:
        parts = ()
    for part in parts:
        if part is model:
            model.compile(mode="reduce-overhead" if run.cuda_graphs and workers.world > 1 else None)
        else:
            part.compile(dynamic=False)  # sizes differ between levels but not between steps
    try:
        yield
    finally:
        for part in parts:
            part._compiled_call_impl = None


def settle(state: RunState, run: RunConfig, folder: Path) -> None:
    """Read what the last steps reported; stop the run if it has diverged."""
    state.settle()
    last = state.skipped[-run.bad_steps_limit :]
    if len(last) == run.bad_steps_limit and last[-1] - last[0] == run.bad_steps_limit - 1:
        write_json(folder / "diverged.json", {"skipped": state.skipped})
        raise Diverged(
            f"{len(last)} steps in a row had a non-finite loss or gradient: {last[0]} to {last[-1]}.",
            where=str(folder),
            hint="resume with a smaller lr or more warmup_steps, or look at the batches of these steps.",
        )


def due(
    here: tuple[int, float], last: tuple[int, float], ending: bool, every_steps: int | None, every_s: float | None
) -> bool:
    """Whether something is to be done at `here` = (step, seconds), done last at `last`: at most once a step."""
    return here[0] > last[0] and (
        ending
        or (every_steps is not None and here[0] % every_steps == 0)
        or (every_s is not None and here[1] - last[1] >= every_s)
    )


def make_optimizer(codec: Trainable, run: RunConfig) -> torch.optim.Optimizer:
    """The optimiser that the run names; both read `found_inf` on the device."""
    if run.optimizer == "muon":
        trained = [p for p in codec.parameters() if p.requires_grad]
        return Muon(trained, run.lr, betas=run.betas, weight_decay=run.weight_decay)
    return adamw(codec, run)


def adamw(codec: Trainable, run: RunConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices and kernels only, not norms, biases and other vectors."""
    trained = [p for p in codec.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": run.weight_decay},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=run.lr, betas=run.betas, fused=True)


def log_line(
    state: RunState, lr: float, since: tuple[int, float], tokens: float, device: torch.device
) -> dict[str, Any]:
    """Means since the line before, and rates; `tokens` are those of all processes."""
    seconds = max(state.elapsed_s - since[1], 1e-9)
    line = {"step": state.step, **state.summary(), "lr": lr, "skipped": len(state.skipped)}
    line |= {"seconds": state.elapsed_s, "steps_per_second": (state.step - since[0]) / seconds}
    if tokens:
        line["tokens_per_second"] = tokens / seconds
    if device.type == "cuda":
        line["peak_memory_bytes"] = torch.cuda.max_memory_allocated(device)
    return line


def validation_line(
    validate: Callable[[Trainable, int], dict[str, float]], codec: Trainable, ema: Ema, state: RunState
) -> dict[str, Any]:
    """What the hook says of the averaged weights; the codec is as before afterwards."""
    codec.eval()
    try:
        # what was compiled for the sizes of a training step would be compiled anew for other ones
        with torch.no_grad(), ema.swapped(), torch.compiler.set_stance("force_eager"):
            return {"step": state.step, "validate": validate(codec, state.step), "seconds": state.elapsed_s}
    finally:
        codec.train()


def save(
    folder: Path, codec: Trainable, optimizer: torch.optim.Optimizer, ema: Ema, state: RunState, keep: int
) -> None:
    """Checkpoint everything that `load` reads, then export the first average as a codec."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in codec.named_parameters()}
    moments = {f"{names[p]}/{key}": value for p, entries in optimizer.state.items() for key, value in entries.items()}
    tensors = {"model": codec.state_dict(), "optimizer": moments}
    tensors |= {f"ema-{width:g}": ema.state_dict(width) for width in ema.exponents}
    save_checkpoint(folder / CHECKPOINTS, state.step, tensors, state.to_json(), keep=keep)
    with ema.swapped():
        export_codec(folder, codec)
    codec.codec_hash = ""  # which `Codec.save` has set: the weights that go on training are not those exported


def load(checkpoint: Path, codec: Trainable, optimizer: torch.optim.Optimizer, ema: Ema) -> RunState:
    """Restore what `save` wrote into objects made for the same configuration."""
    codec.load_state_dict(load_file(checkpoint / "model.safetensors"))
    parameters = dict(codec.named_parameters())
    for key, value in load_file(checkpoint / "optimizer.safetensors").items():
        name, _, entry = key.rpartition("/")
        parameter = parameters[name]
        optimizer.state[parameter][entry] = value.to(parameter.device)
    for width in ema.exponents:
        path = checkpoint / f"ema-{width:g}.safetensors"
        ema.load_state_dict(width, load_file(path))
    return RunState.from_json(json.loads((checkpoint / "state.json").read_text()))


def describe(codec: Trainable, source: Source, run: RunConfig) -> dict[str, Any]:
    """What config.json holds: enough to build the run again."""
    return {
        "format": 1,
        "codec": {"kind": codec.kind, "config": to_json(codec.config)},
        "source": to_json(source.config),
        "run": run.to_json(),
    }


def resume(
    folder: Path | str, build: Callable[[dict[str, Any]], tuple[Trainable, Source, RunConfig]], **options: Any
) -> Outcome:
    """Go on with the run in `folder`, which says all that is needed.

    Args:
        folder: of a run.
        build: codec, source and run settings from what config.json holds.
        options: keyword arguments of `train`.
    """
    codec, source, run = build(read_config(Path(folder)))
    return train(codec, source, run, folder, resume=True, **options)
