"""A codec over a list of meshes: one row of numbers a mesh, resolution and surface, beside the oracle's.

The device reconstructs while worker processes measure what came before; arrays travel as .npy files in a folder.
A mesh that fails gives a row with its error; a time limit stops cleanly between meshes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from multiprocessing import cpu_count, get_context
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch

from shapecodec.codecs.base import Codec
from shapecodec.errors import BadArgument
from shapecodec.evaluate.metrics import Numbers, compare
from shapecodec.evaluate.protocol import EXACT
from shapecodec.io.latent_file import save_latents
from shapecodec.io.mesh_files import read_mesh
from shapecodec.mesh import Mesh, Similarity

Row = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """A mesh to measure on.

    Args:
        path: its file.
        name: for the row; the file's stem if empty.
        level: detail level, the group of the averages.
        category: carried into the row.
    """

    path: Path
    name: str = ""
    level: str = ""
    category: str = ""


@dataclass
class BenchmarkResult:
    """What was measured.

    Args:
        rows: one a (mesh, resolution, surface), or one a (mesh, resolution) with `error` where it failed.
        meshes: asked for.
        done: meshes whose rows are complete, failures counted.
        stopped: why fewer than `meshes` were done, or empty.
        seconds: wall time.
    """

    rows: list[Row] = field(default_factory=list)
    meshes: int = 0
    done: int = 0
    stopped: str = ""
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def evaluate_codec(
    codec: Codec,
    meshes: Sequence[Path | str | Subject],
    *,
    resolutions: Sequence[int],
    surfaces: Sequence[str] = ("snapped",),
    device: torch.device | str | None = None,
    points: int = 100_000,
    workers: int = 2,
    seed: int = 0,
    bits: int = 8,
    oracle: bool = True,
    measure_on: str = "cpu",
    budget_s: float | None = None,
    scratch: Path | None = None,
    load: Callable[[Path], Mesh] = read_mesh,
    progress: Callable[[Row], None] | None = None,
) -> BenchmarkResult:
    """Reconstruct every mesh and measure it in the codec's own cube.

    Args:
        codec: needs `prepare`, `encode`, `decode`, and `oracle(inputs)` for the oracle, whose fields
            have `to_surface(surface=...) -> (Mesh, report)`.
        meshes: files, or `Subject`s that carry level and category.
        resolutions: voxels an axis, each measured.
        surfaces: ways of extraction, each measured.
        device: where the codec is moved to and runs; None leaves it where it is.
        points: samples of `compare`.
        workers: processes that measure; 0 measures in this process.
        seed: of the samples.
        bits: of the latent file whose size is reported.
        oracle: also measure the exact field through the same extraction.
        measure_on: device of `compare`; "cuda" with workers=0 measures on the GPU between reconstructions.
        budget_s: no mesh is begun after this many seconds; what was begun is finished.
        scratch: folder for the arrays on their way to the workers (a RAM disk is fastest); None takes the system's.
        load: file -> mesh.
        progress: called with each finished row.

    Raises:
        BadArgument: no meshes, resolutions or surfaces, or a negative number of workers.
    """
    if not meshes or not resolutions or not surfaces or workers < 0:
        raise BadArgument(
            f"{len(meshes)} meshes, {len(resolutions)} resolutions, {len(surfaces)} surfaces, {workers} workers.",
            where="evaluate_codec",
            hint="name at least one of each, and workers >= 0.",
        )
    started, result = time.perf_counter(), BenchmarkResult(meshes=len(meshes))
    settings = {"points": points, "seed": seed, "device": measure_on, "protocol": EXACT.name, "frame": Similarity()}
    codec.eval()
    if device is not None:
        codec.to(device)
    with tempfile.TemporaryDirectory(dir=scratch) as folder, _Measurer(workers, settings, Path(folder)) as measurer:
        for subject in map(_subject, meshes):
            if budget_s is not None and time.perf_counter() - started > budget_s:
                result.stopped = f"the budget of {budget_s:g} s was spent after {result.done} of {len(meshes)} meshes."
                break
            for row, prediction, truth, target in _reconstruct(
                codec, subject, resolutions, surfaces, bits, oracle, load, Path(folder)
            ):
                result.rows.append(row)
                if target is not None:
                    measurer.submit(row, "prediction", prediction, target)
                    measurer.submit(row, "oracle", truth, target)
            result.done += 1
            measurer.collect(progress)
        measurer.collect(progress, everything=True)
    result.seconds = time.perf_counter() - started
    return result


def _subject(item: Path | str | Subject) -> Subject:
    subject = item if isinstance(item, Subject) else Subject(Path(item))
    return subject if subject.name else Subject(subject.path, subject.path.stem, subject.level, subject.category)


def _reconstruct(
    codec: Codec,
    subject: Subject,
    resolutions: Sequence[int],
    surfaces: Sequence[str],
    bits: int,
    oracle: bool,
    load: Callable[[Path], Mesh],
    folder: Path,
) -> Iterator[tuple[Row, Mesh | None, Mesh | None, Mesh | None]]:
    """(row, prediction, oracle, target) of one mesh; a failure gives a row with its error and no meshes."""
    about = {"name": subject.name, "level": subject.level, "category": subject.category}
    for resolution in resolutions:
        row: Row = {**about, "resolution": resolution, "surface": None, "error": None}
        try:
            for surface, seconds, sizes, meshes in _stages(
                codec, subject.path, resolution, surfaces, bits, oracle, load, folder
            ):
                done = {**row, "surface": surface, "seconds": seconds, **sizes}
                yield done, *meshes
        except Exception as error:  # a benchmark over hundreds of files must outlive any one of them; the row says why
            yield {**row, "error": f"{type(error).__name__}: {error}"}, None, None, None


@torch.inference_mode()
def _stages(
    codec: Any,
    path: Path,
    resolution: int,
    surfaces: Sequence[str],
    bits: int,
    oracle: bool,
    load: Callable[[Path], Mesh],
    folder: Path,
) -> list[tuple[str, dict[str, float], Row, tuple[Mesh, Mesh | None, Mesh]]]:
    """Every surface of one mesh at one resolution, with seconds a stage (device synchronised)."""
    clock = _Clock(codec.device)
    target = codec.normalise(load(path))[0]
    clock.lap("load")
    inputs = codec.prepare(target.to(codec.device), None, resolution=resolution)
    clock.lap("prepare")
    latents = codec.encode(inputs)
    clock.lap("encode")
    decoded = codec.decode(latents)
    clock.lap("decode")
    sizes = {
        "tokens": sum(len(level.feats) for level in latents.levels),
        "bytes": save_latents(latents.to("cpu"), folder / "latents.safetensors", bits=bits),
    }
    exact = codec.oracle(inputs) if oracle else None
    rows = []
    for surface in surfaces:
        clock.skip()
        prediction, report = decoded.to_surface(surface=surface)
        clock.lap("extract")
        truth = None if exact is None else exact.to_surface(surface=surface)[0]
        sizes_here = {**sizes, "surface_used": getattr(report, "mode", surface)}
        rows.append((surface, dict(clock.seconds), sizes_here, (prediction, truth, target)))
    return rows


class _Clock:
    """Seconds a stage, waiting for the device."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, dict[str, float]()
        self.skip()

    def skip(self) -> None:
        """Leave out what happened since the last lap."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Name what happened since the last lap."""
        before = self.last
        self.skip()
        self.seconds[stage] = self.last - before


class _Measurer:
    """A pool of processes that compare meshes, with a bounded queue; with no workers, this process."""

    def __init__(self, workers: int, settings: dict[str, Any], folder: Path) -> None:
        self.workers, self.settings, self.folder = workers, settings, folder
        self.pending: list[tuple[Row, str, Future[Numbers]]] = []
        self.count = 0
        self.pool = self._open()

    def __enter__(self) -> _Measurer:
        return self

    def __exit__(self, *error: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def _open(self) -> ProcessPoolExecutor | None:
        if self.workers == 0:
            return None
        threads = max(cpu_count() // self.workers, 1)
        return ProcessPoolExecutor(
            self.workers, mp_context=get_context("spawn"), initializer=_limit_threads, initargs=(threads,)
        )

    def submit(self, row: Row, key: str, mesh: Mesh | None, target: Mesh) -> None:
        """Measure `mesh` against `target` into row[key]; waits while the queue is twice the workers."""
        if mesh is None:
            return
        settings = {**self.settings, "resolution": row["resolution"]}
        if self.pool is None:
            future: Future[Numbers] = Future()
            try:
                future.set_result(_measure(mesh, target, settings))
            except Exception as error:
                future.set_exception(error)
        else:
            while len(self.pending) >= 4 * self.workers and not self.pending[0][2].done():
                time.sleep(0.01)
            paths = [
                self._save(part) for part in (mesh.vertices, mesh.faces.int(), target.vertices, target.faces.int())
            ]
            try:
                future = self.pool.submit(_measure_files, paths, settings)
            except BrokenProcessPool:  # a worker was killed (memory): its row says so, the others go on in a new pool
                self.pool.shutdown(wait=False)
                self.pool = self._open()
                assert self.pool is not None
                future = self.pool.submit(_measure_files, paths, settings)
        self.pending.append((row, key, future))

    def _save(self, tensor: torch.Tensor) -> Path:
        self.count += 1
        path = self.folder / f"{self.count}.npy"
        np.save(path, tensor.cpu().numpy())
        return path

    def collect(self, progress: Callable[[Row], None] | None, *, everything: bool = False) -> None:
        """Move finished numbers into their rows."""
        while self.pending and (everything or self.pending[0][2].done()):
            row, key, future = self.pending.pop(0)
            try:
                row[key] = future.result()
            except Exception as error:
                row["error"] = f"{key}: {type(error).__name__}: {error}"
            if progress is not None and not any(waiting is row for waiting, _, _ in self.pending):
                progress(row)


def _limit_threads(threads: int) -> None:
    numba.set_num_threads(min(threads, numba.get_num_threads()))
    torch.set_num_threads(threads)


def _measure_files(paths: list[Path], settings: dict[str, Any]) -> Numbers:
    arrays = [np.load(path) for path in paths]
    for path in paths:
        path.unlink()
    return _measure(Mesh.from_arrays(*arrays[:2]), Mesh.from_arrays(*arrays[2:]), settings)


def _measure(mesh: Mesh, target: Mesh, settings: dict[str, Any]) -> Numbers:
    started = time.perf_counter()
    numbers = compare(mesh, target, **settings)
    return {**numbers, "seconds": time.perf_counter() - started}
