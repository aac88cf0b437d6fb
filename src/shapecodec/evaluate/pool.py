"""Worker processes that may die: each task's outcome comes back, or the reason why there is none.

`concurrent.futures` ends a whole pool when one of its processes is killed and cannot say whose task it was; here the others go
on and a new process takes the dead one's place.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from typing import Any

from shapecodec.errors import BadArgument, ShapecodecError

Handler = Callable[[Any], Any]


@dataclass(frozen=True)
class Lost:
    """What takes the place of a result.

    Args:
        status: "killed" or "timeout".
        reason: a sentence.
    """

    status: str
    reason: str


@dataclass(frozen=True)
class Last:
    """A result after which its process is not to be used again, such as after an error of the GPU."""

    result: Any


class WorkerPool:
    """Processes that run one handler on tasks.

    Args:
        make: importable; make(slot, *args) is called once in each process and returns its handler. Slots count from 0; the
            process that replaces a dead one has its slot. Handlers should not raise: it ends their process.
        args: of `make`, picklable.
        workers: processes, started when there is a task for them.
        timeout_s: seconds after which a task's process is killed; None waits for ever.
    """

    def __init__(
        self, make: Callable[..., Handler], args: tuple[Any, ...], *, workers: int, timeout_s: float | None = None
    ) -> None:
        if workers < 1 or (timeout_s is not None and not timeout_s > 0):
            raise BadArgument(
                f"{workers} workers, {timeout_s} s: expected at least 1, and above 0.", where="WorkerPool"
            )
        self._make, self._args, self._timeout = make, args, timeout_s
        self._slots: list[_Worker | None] = [None] * workers

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in filter(None, self._slots):
            worker.end(patience_s=5.0 if worker.task is None else 0.0)

    def run(self, tasks: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        """(task, its result or `Lost`) in the order in which they end. A task is taken when a process is free for it.

        Raises:
            ShapecodecError: what `make` raised, or processes die before they can begin.
        """
        waiting = iter(tasks)
        done = object()
        while True:
            for slot, worker in enumerate(self._slots):
                if worker is not None and worker.task is not None:
                    continue
                task = next(waiting, done)
                if task is done:
                    break
                if worker is not None and not worker.process.is_alive():
                    worker.end(patience_s=0.0)
                    worker = None
                self._slots[slot] = worker = worker or _Worker(self._make, (slot, *self._args))
                worker.give(task)
            busy = {slot: worker for slot, worker in enumerate(self._slots) if worker and worker.task is not None}
            if not busy:
                return
            self._wait(list(busy.values()))
            for slot, worker in busy.items():
                outcome = worker.outcome(self._timeout)
                if outcome is None:
                    continue
                task, worker.task = worker.task, None
                if isinstance(outcome, Lost | Last):
                    worker.end(patience_s=0.0)
                    self._slots[slot] = None
                yield task, outcome.result if isinstance(outcome, Last) else outcome

    def _wait(self, busy: list[_Worker]) -> None:
        """Until a process says something or dies, or a task's time is over."""
        patience, began = None, [worker.began for worker in busy if worker.ready]
        if self._timeout is not None and began:
            patience = max(0.0, min(began) + self._timeout - time.monotonic())
        connection.wait([handle for worker in busy for handle in (worker.pipe, worker.process.sentinel)], patience)


class _Worker:
    """A process, this end of its pipe, and what it is doing."""

    def __init__(self, make: Callable[..., Handler], args: tuple[Any, ...]) -> None:
        context = get_context("spawn")  # CUDA does not survive a fork
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make, args), daemon=True)
        self.process.start()
        theirs.close()  # else the death of the process would not close the pipe
        self.task: Any = None
        self.ready, self.began = False, time.monotonic()

    def give(self, task: Any) -> None:
        """Hand over a task; `outcome` finds out where the process has died meanwhile."""
        self.task, self.began = task, time.monotonic()
        with contextlib.suppress(OSError):
            self.pipe.send(task)

    def outcome(self, timeout_s: float | None) -> Any:
        """The result of the task, `Last`, `Lost`, or None while it is being worked on."""
        try:
            while self.pipe.poll():
                kind, value = self.pipe.recv()
                if kind == "broken":
                    raise value
                if kind == "done":
                    return value
                self.ready, self.began = True, time.monotonic()
        except (EOFError, OSError):  # it died, perhaps in the middle of a message
            self.process.join()
        if not self.process.is_alive():
            return self._death()
        if self.ready and timeout_s is not None and time.monotonic() - self.began >= timeout_s:
            return Lost("timeout", f"not done after {timeout_s:g} s.")
        return None

    def _death(self) -> Lost:
        code = self.process.exitcode or 0
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
        if not self.ready:
            raise ShapecodecError(
                f"a worker ended {how} before it could begin.", hint="fewer --workers: memory is short."
            )
        memory = "; the memory was not enough, unless somebody did it" if code == -signal.SIGKILL else ""
        return Lost("killed", f"its process was ended {how}{memory}.")

    def end(self, *, patience_s: float) -> None:
        """Close the pipe, which ends an idle process, and kill what does not end in time."""
        self.pipe.close()
        self.process.join(patience_s)
        self.process.kill()
        self.process.join()


def _serve(pipe: Connection, make: Callable[..., Handler], args: tuple[Any, ...]) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends its workers itself
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        handler = make(*args)
    except Exception as error:
        known = isinstance(error, ShapecodecError)
        pipe.send(("broken", error if known else ShapecodecError(f"{type(error).__name__}: {error}", where="worker")))
        return
    pipe.send(("ready", None))
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        pipe.send(("done", handler(task)))


def _end_with_parent() -> None:
    """A worker whose parent was killed would go on writing into a folder that a resumed run now owns."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
