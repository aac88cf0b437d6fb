"""Prefetched: the next batch is made while the current one trains."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import torch


class Source(Protocol):
    """Batches that are functions of (step, rank, world), and the settings that they came from."""

    config: Any

    def batch(self, step: int, rank: int, world: int, device: torch.device | str) -> Any:
        """Shard `rank` of `world` of a step's batch, on `device`."""
        ...


class Prefetched:
    """A source that makes the next batch in a thread, and on CUDA in a stream of its own, while the caller works.

    Batches are those of the source, whatever the timing: one that was not foreseen is made on the spot. The caller may
    use a batch until it asks for the next one.

    Args:
        source: asked from one thread at a time.
        processes: training processes; a process visits every so-manieth shard of a step, then goes to the next step.
    """

    def __init__(self, source: Source, processes: int = 1) -> None:
        self.source, self.processes = source, processes
        self.config = source.config
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="prefetch")
        self._next: tuple[tuple[Any, ...], Future[Any]] | None = None
        self._stream: torch.cuda.Stream | None = None
        self._current: Any = None

    def batch(self, step: int, rank: int, world: int, device: torch.device | str) -> Any:
        """The source's batch; the making of the following one starts before this returns."""
        device = torch.device(device)
        done = None
        if device.type == "cuda":
            done = torch.cuda.Event()
            done.record(torch.cuda.current_stream(device))
            if self._stream is None:
                self._stream = torch.cuda.Stream(device)
        call = (step, rank, world, device)
        if self._next is None or self._next[0] != call:
            self.close_pending()
            self._next = call, self._pool.submit(self._make, call, None, None)
        ready = self._next[1].result()
        finished, self._current = self._current, ready
        shard = rank + self.processes
        following = (step, shard, world, device) if shard < world else (step + 1, rank % self.processes, world, device)
        self._next = following, self._pool.submit(self._make, following, done, finished)
        return ready

    def close_pending(self) -> None:
        """Wait for the batch under way and drop it."""
        if self._next is not None:
            self._next[1].result()
            self._next = None

    def _make(self, call: tuple[Any, ...], done: torch.cuda.Event | None, finished: Any) -> Any:
        """One batch, complete on the device when this returns.

        The memory of the batch before the current one belongs to this thread's stream: it may be used again only when
        the caller's work on it, which `done` marks, has ended. `finished` keeps it alive until then.
        """
        if done is not None:
            done.synchronize()
        del finished
        if self._stream is None:
            return self.source.batch(*call)
        with torch.cuda.stream(self._stream):
            batch = self.source.batch(*call)
        self._stream.synchronize()
        return batch
