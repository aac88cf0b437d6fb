"""One shape of an evaluation, in a worker process: read, reconstruct, measure, draw; or the reason why not."""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numba
import torch

from shapecodec.errors import BadArgument, UserError
from shapecodec.evaluate.detail import detail_level, sharp_edges
from shapecodec.evaluate.measure import MEASURES, measure
from shapecodec.evaluate.methods import Clock, Method
from shapecodec.evaluate.pictures import draw_shape
from shapecodec.evaluate.pool import Last
from shapecodec.evaluate.rows import Row, measured
from shapecodec.evaluate.subjects import Subject
from shapecodec.io.mesh_files import read_mesh

TURN = ".turn"  # files that say whose turn it is on a GPU
REFUSED = "refused"  # status of a shape whose settings cannot be served; never written, see `run`
_LONGEST_REASON = 2000


@dataclass(frozen=True)
class Plan:
    """What is evaluated on what, and how it is measured.

    Args:
        method: a codec or a folder of reconstructions.
        data: see `find_subjects`.
        split: of a manifest.
        protocols: some of `MEASURES`.
        points: samples on each mesh; None is each protocol's own number.
        seed: of the samples, of the order of the shapes and of the intervals.
        device: cpu or cuda.
        pictures: draw every shape.
        max_faces: larger originals are refused.
    """

    method: Method
    data: Path
    split: str | None = None
    protocols: tuple[str, ...] = MEASURES
    points: int | None = None
    seed: int = 0
    device: str = "cpu"
    pictures: bool = True
    max_faces: int = 20_000_000


@dataclass(frozen=True)
class Work:
    """What a worker has to know; travels to it once.

    Args:
        plan: what is evaluated, and how.
        about: `Method.describe`, columns of every row.
        run: the run's folder.
        threads: of each worker.
    """

    plan: Plan
    about: dict[str, Any]
    run: Path
    threads: int


def open_worker(slot: int, work: Work) -> Callable[[Subject], Row | Last]:
    """The handler of a worker process: `Subject` -> row."""
    numba.set_num_threads(max(1, min(work.threads, numba.get_num_threads())))
    torch.set_num_threads(work.threads)
    device = torch.device("cpu" if work.plan.device == "cpu" else f"cuda:{slot % torch.cuda.device_count()}")
    return ShapeWorker(work, device)


class ShapeWorker:
    """Evaluates shapes one after the other; a failure becomes a row that says why."""

    def __init__(self, work: Work, device: torch.device) -> None:
        self.work, self.device, self.warm = work, device, False
        self.opened = work.plan.method.open(device)

    def __call__(self, subject: Subject) -> Row | Last:
        """The row of a shape; after an error that is not the input's fault the process is not used again."""
        row: Row = {
            "name": subject.name, "category": subject.category, "level": subject.level, "file": subject.file,
            **{key: self.work.about[key] for key in ("codec", "codec_hash", "resolution", "bits")},
        }  # fmt: skip
        try:
            self._fill(row, subject)
            row["status"] = "ok"
        except UserError as error:
            kind = REFUSED if isinstance(error, BadArgument) else "failed"
            return {**row, "status": kind, "reason": self._reason(error, subject)}
        except Exception as error:  # an evaluation of hundreds of files must outlive any one of them; the row says why
            return Last({**row, "status": "failed", "reason": self._reason(error, subject)})
        return row

    def _reason(self, error: Exception, subject: Subject) -> str:
        """The error in words, without this machine's folders."""
        return f"{type(error).__name__}: {error}".replace(str(subject.path), subject.file)[:_LONGEST_REASON]

    def _fill(self, row: Row, subject: Subject) -> None:
        plan, clock = self.work.plan, Clock(self.device)
        mesh = read_mesh(subject.path, max_faces=plan.max_faces)
        row["file_hash"] = hashlib.sha256(subject.path.read_bytes()).hexdigest()[:16]
        unit, frame = mesh.normalise()
        row["level"] = subject.level or detail_level(len(sharp_edges(unit).ends))
        clock.lap("load")
        with self._turn():
            made = self.opened(subject, mesh, frame, clock)
        row.update(made.facts)
        with self._turn():
            clock.skip()
            settings: dict[str, Any] = {"resolution": row["resolution"], "points": plan.points, "seed": plan.seed}
            result = measure(made.mesh, unit, plan.protocols, **settings, device=self.device)
            clock.lap("measure")
            oracle = None
            if made.oracle is not None:
                oracle = measure(made.oracle, unit, plan.protocols, **settings, device=self.device)
            clock.lap("measure_oracle")
        row.update(measured(result, oracle))
        if plan.pictures:
            folder = self.work.run / "shapes" / subject.name
            with self._turn():
                clock.skip()
                draw_shape(unit, made.mesh, folder, resolution=row["resolution"], device=self.device)
                clock.lap("pictures")
        row.update({f"seconds.{stage}": seconds for stage, seconds in clock.seconds.items()})
        row["warm"], self.warm = self.warm, True

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """On a GPU one worker at a time, so that its memory suffices and seconds are its own; a dead worker's turn ends."""
        if self.device.type != "cuda":
            yield
            return
        with (self.work.run / f"{TURN}{self.device.index}").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                torch.cuda.empty_cache()  # waits for the device
