"""One process or many. Several come from `torchrun` or `accelerate launch` and go through Accelerate's DDP."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import FrameType, TracebackType
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import broadcast_object_list, reduce
from torch import Tensor, nn

from shapecodec.errors import BadArgument


def process_device(device: torch.device) -> torch.device:
    """The device of this process: the one asked for, or with several processes each its own of that type."""
    state = PartialState(cpu=device.type == "cpu")
    return state.device if state.num_processes > 1 else device


class Workers:
    """The processes of a run, and what they have to agree on.

    Args:
        device: `auto`, `cpu`, `cuda` or another torch device; with several processes a type only, each takes its own.
        unused_parameters: tell DDP to look for parameters without a gradient.
    """

    def __init__(self, device: str = "auto", *, unused_parameters: bool = False) -> None:
        state = PartialState(cpu=device == "cpu")
        self.rank, self.world = int(state.process_index), int(state.num_processes)
        self.main = self.rank == 0
        self._accelerator: Accelerator | None = None
        if self.world > 1:
            options = DistributedDataParallelKwargs(find_unused_parameters=unused_parameters)
            # Autocast is the loop's own, so that one and many processes run the same code
            self._accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no", kwargs_handlers=[options])
            self.device = self._accelerator.device
        else:
            self.device = _single_device(device)

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module whose backward pass averages gradients over the processes; unchanged for one process."""
        return module if self._accelerator is None else self._accelerator.prepare_model(module)

    def hold_back(self, model: nn.Module, hold: bool) -> AbstractContextManager[Any]:
        """Leaves the exchange of gradients out of the backward passes inside, if `hold`: all but the last of a step."""
        return self._accelerator.no_sync(model) if self._accelerator is not None and hold else nullcontext()

    def mean(self, values: Tensor) -> Tensor:
        """Mean over the processes, on the device and without waiting for it."""
        return values if self._accelerator is None else reduce(values, reduction="mean")

    def largest(self, values: Sequence[float]) -> list[float]:
        """The largest of each value over the processes; with several, this waits for the device."""
        if self._accelerator is None:
            return list(values)
        gathered = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(gathered, torch.distributed.ReduceOp.MAX)
        return gathered.tolist()

    def total(self, value: float) -> float:
        """Sum over the processes; with several, this waits for the device."""
        if self._accelerator is None:
            return value
        return float(reduce(torch.tensor(value, dtype=torch.float64, device=self.device), reduction="sum"))

    def share(self, value: Any) -> Any:
        """The first process's value, on every process."""
        return value if self._accelerator is None else broadcast_object_list([value])[0]

    def wait(self) -> None:
        """Until all processes are here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()


def _single_device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BadArgument("no CUDA device is available.", where="device", hint="device='cpu' or 'auto'.")
    return torch.device(device)


class StopSignals:
    """Inside the block SIGTERM and SIGINT ask for a clean end instead of one; a second SIGINT interrupts at once.

    Signals reach Python's main thread only; elsewhere this does nothing.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            self._previous = {which: signal.signal(which, self._handle) for which in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for which, handler in self._previous.items():
            signal.signal(which, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
