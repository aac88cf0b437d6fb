"""A whole training step as one CUDA graph: the host launches one thing a step, however many kernels the step has.

What is recorded is fixed: shapes, addresses, numbers that the host held. So batches are copied into the tensors that were
recorded, the learning rate and the seeds live on the device, and everything else of a step must be equal from step to step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from shapecodec.errors import BadArgument

Report = tuple[tuple[str, ...], Tensor]
WARM = 3  # steps that run unrecorded: they compile kernels and make the optimiser's state


class RecordedStep:
    """Runs `work` on batches of one shape, from the fourth call on as one recorded graph where the device is CUDA.

    All calls train: those before the recording run as they are, recording itself computes nothing and is followed by a replay. On
    another device every call runs as it is, with batches and learning rate placed likewise.

    Args:
        work: (batch, generator) -> names and values (K,); launches only, without a wait for the device, and what it draws comes
            from the generator or from torch's global one.
        optimizer: that `work` steps; its learning rate becomes a tensor, to be set with `set_learning_rate`.
        device: of everything.
    """

    def __init__(
        self, work: Callable[[Any, torch.Generator], Report], optimizer: torch.optim.Optimizer, device: torch.device
    ) -> None:
        self.work, self.optimizer, self.device = work, optimizer, device
        self.generator = torch.Generator(device=device)
        self.graph: torch.cuda.CUDAGraph | None = None
        self.batch: Any = None
        self._calls = 0
        # one for all warm steps: memory that a stream has freed is not reused on another
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._report: Report = (), torch.zeros(0)
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(float(group["lr"]), device=device)

    def __call__(self, batch: Any, seed: int) -> Report:
        """One step; the values are the caller's own.

        Args:
            batch: as `work` takes it, on the device; copied, so it may be changed or freed at once.
            seed: of the generator.

        Raises:
            BadArgument: tensors of another shape or dtype, or other plain values, than in the first batch.
        """
        self._place(batch)
        self.generator.manual_seed(seed)
        self._calls += 1
        if self.device.type != "cuda":
            return self.work(self.batch, self.generator)
        if self._calls <= WARM:
            return self._warm()
        if self.graph is None:
            self.graph = self._record()
        self.graph.replay()
        names, values = self._report
        return names, values.clone()  # the next replay writes over them

    def _place(self, batch: Any) -> None:
        if self.batch is None:
            self.batch = mapped(batch, Tensor.clone)
            return
        ours, theirs = list(leaves(self.batch)), list(leaves(batch))
        if [_fixed(leaf) for leaf in ours] != [_fixed(leaf) for leaf in theirs]:
            raise BadArgument(
                "a batch differs from the first one in shapes or settings, and a recorded step cannot.",
                where="cuda_graphs",
                hint="cuda_graphs=False for this source.",
            )
        pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if isinstance(a, Tensor)]
        torch._foreach_copy_([a for a, _ in pairs], [b for _, b in pairs])

    def _warm(self) -> Report:
        """Unrecorded, but on a stream of its own, as recording will be."""
        stream, here = self._stream, torch.cuda.current_stream(self.device)
        assert stream is not None
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            report = self.work(self.batch, self.generator)
        here.wait_stream(stream)
        report[1].record_stream(here)
        return report

    def _record(self) -> torch.cuda.CUDAGraph:
        self.optimizer.zero_grad(set_to_none=True)  # gradients of the recording live in the graph's own memory
        for group in self.optimizer.param_groups:
            if "capturable" in group:
                group["capturable"] = True
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.generator)
        with torch.cuda.graph(graph):
            self._report = self.work(self.batch, self.generator)
        return graph


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """In all groups, into the tensor where a `RecordedStep` has put one; without waiting for the device."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def leaves(value: Any) -> Iterator[Any]:
    """What a nest of dataclasses, tuples, lists and dicts holds, in order."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    elif isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, tuple | list):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nest with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = {field.name: mapped(getattr(value, field.name), change) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **inner)
    if isinstance(value, dict):
        return {key: mapped(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [mapped(item, change) for item in value]
    if isinstance(value, tuple):
        parts = [mapped(item, change) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


def _fixed(leaf: Any) -> Any:
    return (leaf.shape, leaf.dtype, leaf.device) if isinstance(leaf, Tensor) else leaf
