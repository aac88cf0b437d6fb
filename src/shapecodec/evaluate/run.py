"""A method over a folder of meshes: a row a shape, their means, a report. Survives what fails, and goes on after any kill.

The run's folder:

    config.json      what decides the numbers; a resume with anything else is refused
    environment.txt  versions and hardware of every session
    rows/NAME.json   a finished shape, whole or not there
    shapes/NAME/     its pictures and view meshes (`pictures.draw_shape`)
    rows.parquet, rows.csv, aggregate.json, summary.md, and the report's page: written at the end of every session
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from shapecodec.errors import BadArgument, BadFile
from shapecodec.evaluate.aggregate import aggregate
from shapecodec.evaluate.measure import describe_measure
from shapecodec.evaluate.pool import Last, Lost, WorkerPool
from shapecodec.evaluate.report import write_report
from shapecodec.evaluate.rows import FORMAT, Row, write_rows
from shapecodec.evaluate.shape import REFUSED, Plan, Work, open_worker
from shapecodec.evaluate.subjects import Subject, find_subjects, in_random_order, listing_digest
from shapecodec.evaluate.tables import summary_page
from shapecodec.io.atomic import atomic_file
from shapecodec.io.config_json import differences
from shapecodec.io.environment import environment, hardware, package_version

CONFIG, ROWS, LOCK = "config.json", "rows", ".lock"
FINAL = ("ok", "failed")  # what a resume does not try again; a killed or late shape may have had bad luck
Progress = Callable[[Row, int, int], None]


@dataclass(frozen=True)
class Evaluation:
    """What a session of a run gave.

    Args:
        run: its folder.
        rows: of all shapes done so far, by name.
        aggregate: of these rows.
        settings: of the run.
        report: the page.
        fresh: shapes that this session has done.
        missing: shapes that it has not, for want of time.
        seconds: wall time of this session.
    """

    run: Path
    rows: list[Row] = field(repr=False)
    aggregate: dict[str, Any] = field(repr=False)
    settings: dict[str, Any]
    report: Path
    fresh: int
    missing: int
    seconds: float


def evaluate(
    plan: Plan,
    run: Path,
    *,
    resume: bool = False,
    limit: int | None = None,
    workers: int | None = None,
    time_budget_s: float | None = None,
    timeout_s: float | None = 3600.0,
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a method on every shape of its data that has no row yet, and write the tables.

    Processes are started afresh: call it under `if __name__ == "__main__":`.

    Args:
        plan: what and how.
        run: folder; new, or with `resume` one that holds a run of the same plan.
        resume: go on with it. Shapes that are done, or that failed by themselves, are not done again.
        limit: only the first so many shapes of a fixed random order; a later resume may raise it.
        workers: processes; None takes half of the cores, 0 does the work in this process, which then dies of what kills a worker.
            On a GPU they take turns, and measure on it too.
        time_budget_s: no shape is begun after so many seconds; what was begun is finished.
        timeout_s: a shape that takes longer is given up.
        progress: called with each new row, the number of new rows and how many there will be.

    Raises:
        BadArgument: a folder that holds a run without `resume`, or with it none or one of other settings; a limit or number of
            workers below one; or the settings do not suit the method, as its first shape shows.
        BadFile: no data or codec, or a folder that cannot be written.
    """
    began = time.monotonic()
    if (limit is not None and limit < 1) or (workers is not None and workers < 0) or (plan.points or 1) < 1:
        raise BadArgument(f"limit {limit}, {workers} workers, {plan.points} points.", where="evaluate", hint="more.")
    every = find_subjects(plan.data, plan.split)
    subjects = in_random_order(every, plan.seed)[:limit]
    about = plan.method.describe()
    settings = _settings(plan, about, every)
    _open(run, settings, resume)
    with _locked(run):
        rows = _found(run, subjects)
        todo = [subject for subject in subjects if rows.get(subject.name, {}).get("status") not in FINAL]
        work = Work(plan, about, run, threads=_cores())
        end = None if time_budget_s is None else began + time_budget_s
        fresh = 0
        with closing(_outcomes(work, _until(todo, end), len(todo), workers, timeout_s)) as outcomes:
            for subject, outcome in outcomes:
                row = _row(subject, outcome, about, rows)
                _write_json(run / ROWS / f"{subject.name}.json", row)
                rows[subject.name], fresh = row, fresh + 1
                if progress is not None:
                    progress(row, fresh, len(todo))
        if not rows:
            raise BadArgument("the time budget ended before the first shape.", where="evaluate", hint="a longer one.")
        ordered = [rows[name] for name in sorted(rows)]
        means, page = write_tables(run, ordered, settings)
    return Evaluation(run, ordered, means, settings, page, fresh, len(todo) - fresh, time.monotonic() - began)


def _outcomes(
    work: Work, subjects: Iterator[Subject], most: int, workers: int | None, timeout_s: float | None
) -> Generator[tuple[Subject, Any], None, None]:
    """(subject, row or `Lost`) in the order in which they end; closing it ends the workers."""
    if workers == 0:
        worker = open_worker(0, work)
        for subject in subjects:
            outcome = worker(subject)
            yield subject, outcome.result if isinstance(outcome, Last) else outcome
        return
    count = min(workers or max(1, _cores() // 2), max(1, most))
    shared = replace(work, threads=max(1, _cores() // count))
    with WorkerPool(open_worker, (shared,), workers=count, timeout_s=timeout_s) as pool:
        yield from pool.run(subjects)


def write_tables(run: Path, rows: Sequence[Row], settings: dict[str, Any]) -> tuple[dict[str, Any], Path]:
    """rows.parquet, rows.csv, aggregate.json, summary.md and the page from rows; returns the aggregate and the page."""
    facts = {
        **settings,
        "hardware": hardware(settings["device"]),
        "date": date.today().isoformat(),
        "version": package_version("shapecodec"),
    }
    means = aggregate(rows, facts, seed=settings["seed"])
    write_rows(rows, run, settings)
    _write_json(run / "aggregate.json", means, indent=None)
    with atomic_file(run / "summary.md") as file:
        file.write(summary_page(means, (run / "environment.txt").read_text()).encode())
    return means, write_report(run)


def _settings(plan: Plan, about: dict[str, Any], subjects: Sequence[Subject]) -> dict[str, Any]:
    """What decides the numbers. No path: a run may be moved, and its files published."""
    return {
        "format": FORMAT,
        **about,
        "data": plan.data.resolve().name,
        "split": plan.split or ("test" if (plan.data / "manifest.csv").is_file() else None),
        "shapes": len(subjects),
        "data_digest": listing_digest(subjects),
        "protocols": {name: describe_measure(name)["digest"] for name in plan.protocols},
        "points": plan.points,
        "seed": plan.seed,
        "device": plan.device,
        "pictures": plan.pictures,
        "max_faces": plan.max_faces,
    }


def _open(run: Path, settings: dict[str, Any], resume: bool) -> None:
    """Make the folder, or check that it holds this run."""
    path = run / CONFIG
    if not resume:
        if path.exists():
            raise BadArgument("the folder already holds a run.", where=str(run), hint="--resume, or another folder.")
        try:
            (run / ROWS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadFile(f"a run cannot be written there ({error.strerror}).", where=str(run)) from error
        _write_json(path, settings)
    else:
        changes = differences(_read_json(path), settings)
        if changes:
            raise BadArgument(
                "the settings differ from those that the run began with:\n  " + "\n  ".join(changes) + "\n",
                where=str(run),
                hint="the same settings, or another folder.",
            )
    with (run / "environment.txt").open("a") as file:
        file.write(environment())


@contextmanager
def _locked(run: Path) -> Iterator[None]:
    """Refuse a second process on one folder; the system ends the lock of a killed one."""
    with (run / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BadArgument(
                "another process is at work there.", where=str(run), hint="wait for it, or end it."
            ) from error
        yield


def _found(run: Path, subjects: Sequence[Subject]) -> dict[str, Row]:
    """Rows of former sessions; what killed writers left behind is removed."""
    for part in [*(run / ROWS).glob(".*.part"), *run.glob("shapes/*/.*.part")]:
        part.unlink(missing_ok=True)
    paths = {subject.name: run / ROWS / f"{subject.name}.json" for subject in subjects}
    return {name: _read_json(path) for name, path in paths.items() if path.is_file()}


def _until(subjects: Sequence[Subject], end: float | None) -> Iterator[Subject]:
    """Subjects, as long as there is time when one is asked for."""
    for subject in subjects:
        if end is not None and time.monotonic() >= end:
            return
        yield subject


def _row(subject: Subject, outcome: Row | Lost, about: dict[str, Any], rows: dict[str, Row]) -> Row:
    """The row of an outcome. What every shape would refuse, the first one tells, and the run ends."""
    if isinstance(outcome, Lost):
        named = {"name": subject.name, "category": subject.category, "level": subject.level, "file": subject.file}
        shared = {key: about[key] for key in ("codec", "codec_hash", "resolution", "bits")}
        return {**named, **shared, "status": outcome.status, "reason": outcome.reason}
    if outcome["status"] == REFUSED:
        if not any(row["status"] == "ok" for row in rows.values()):
            raise BadArgument(outcome["reason"], where="evaluate")
        return {**outcome, "status": "failed"}
    return outcome


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write_json(path: Path, value: dict[str, Any], indent: int | None = 1) -> None:
    with atomic_file(path) as file:
        file.write(json.dumps(value, indent=indent, allow_nan=False).encode() + b"\n")


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise BadArgument("the folder holds no run.", where=str(path.parent), hint="leave --resume out.")
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise BadFile(f"not valid JSON ({error}).", where=str(path), hint="remove the file.") from error
    if not isinstance(value, dict):
        raise BadFile("not a JSON object.", where=str(path), hint="remove the file.")
    return value
