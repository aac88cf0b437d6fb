"""MeshCollection: many meshes in a few flat arrays, resident on one device, and small as a file.

In memory 700 real meshes (3.1M vertices, 6.0M faces) take 109 MB. As a file they stay Draco streams (11 MB in all):
decoding all of them takes 1 s on one core and welding 2 s, so no format of our own is worth it.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import TypeVar

import DracoPy
import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from shapecodec.data.manifest import Entry, check_licences, read_manifest
from shapecodec.data.procedural import procedural_arrays
from shapecodec.errors import BadArgument, BadFile
from shapecodec.mesh import Mesh
from shapecodec.rng import numpy_rng

Arrays = tuple[np.ndarray, np.ndarray]
Job = TypeVar("Job")
Result = TypeVar("Result")
_FORMAT = "shapecodec-meshes-1"


def decode_draco(stream: bytes, where: str = "stream") -> Arrays:
    """Vertices (V, 3) float32 and faces (F, 3) int32 of a Draco stream, welded.

    Draco splits non-manifold vertices into exact copies; vertices with equal coordinates become one again, faces that
    this makes degenerate go, and so do unused vertices.

    Raises:
        BadFile: not a Draco mesh, or nothing is left of it.
    """
    try:
        decoded = DracoPy.decode(stream)
    except DracoPy.FileTypeException as error:
        raise BadFile("not a Draco mesh.", where=where, hint="re-export the file.") from error
    points = np.asarray(decoded.points, np.float32).reshape(-1, 3)
    key = np.zeros(len(points), np.int64)
    for axis in range(3):  # one-dimensional sorts: 4x faster than np.unique over rows
        values, index = np.unique(points[:, axis], return_inverse=True)
        key = key * len(values) + index.reshape(-1)
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    faces = inverse.reshape(-1)[np.asarray(decoded.faces, np.int64).reshape(-1, 3)]
    a, b, c = faces.T
    faces = faces[(a != b) & (b != c) & (a != c)]
    if len(faces) == 0:
        raise BadFile("the mesh has no face with an area.", where=where)
    used = np.zeros(len(first), bool)
    used[faces] = True
    renumbered = np.cumsum(used) - 1
    return points[first[used]], renumbered[faces].astype(np.int32)


@dataclass(frozen=True, eq=False)
class MeshCollection:
    """Meshes laid end to end: mesh i owns vertices vertex_offsets[i] : [i + 1] and faces face_offsets[i] : [i + 1].

    Args:
        vertices: (sum V, 3) float32, in each mesh's own frame; every vertex is used by a face.
        faces: (sum F, 3) int32, counted from the mesh's first vertex.
        vertex_offsets: (M + 1,) int64 on the CPU.
        face_offsets: (M + 1,) int64 on the CPU.
        entries: M rows that say where each mesh comes from.
    """

    vertices: Tensor
    faces: Tensor
    vertex_offsets: Tensor
    face_offsets: Tensor
    entries: tuple[Entry, ...]

    @classmethod
    def from_arrays(cls, meshes: Iterable[Arrays], entries: Sequence[Entry]) -> MeshCollection:
        """From pairs of vertices (V, 3) and faces (F, 3), each checked as a `Mesh`, and an entry for each.

        Raises:
            BadMesh: a pair that is not a mesh.
            BadArgument: no mesh, or another number of entries.
        """
        vertices, faces = [], []
        for (points, triangles), entry in zip(meshes, entries, strict=False):
            mesh = Mesh.from_arrays(points, triangles, entry.name)
            vertices.append(mesh.vertices)
            faces.append(mesh.faces.to(torch.int32))
        if not vertices or len(vertices) != len(entries):
            raise BadArgument(f"{len(vertices)} meshes for {len(entries)} entries.", where="MeshCollection")
        return cls(torch.cat(vertices), torch.cat(faces), _offsets(vertices), _offsets(faces), tuple(entries))

    @classmethod
    def from_folder(
        cls, folder: str | Path, split: str = "train", *, any_licence: bool = False, workers: int = 1
    ) -> MeshCollection:
        """The .drc files that `folder`/manifest.csv lists under a split; decoded by `workers` processes.

        Raises:
            BadFile: no manifest, a missing or damaged file (by its checksum), no mesh in it, or a closed licence.
        """
        folder = Path(folder)
        entries = read_manifest(folder, split)
        if not any_licence:
            check_licences(entries, str(folder))
        streams = [_read_stream(folder / entry.file, entry) for entry in entries]
        return cls.from_arrays(_decode_all(streams, [entry.file for entry in entries], workers), entries)

    @classmethod
    def from_path(cls, path: str | Path, split: str = "train", *, workers: int = 1) -> MeshCollection:
        """A folder as `from_folder` reads it, or a file as `load` does, which has no splits."""
        return cls.from_folder(path, split, workers=workers) if Path(path).is_dir() else cls.load(path, workers=workers)

    @classmethod
    def joined(cls, collections: Sequence[MeshCollection]) -> MeshCollection:
        """Several collections as one, on the first one's device."""
        device = collections[0].vertices.device
        return cls(
            torch.cat([c.vertices.to(device) for c in collections]),
            torch.cat([c.faces.to(device) for c in collections]),
            _from_counts(torch.cat([c.vertex_offsets.diff() for c in collections])),
            _from_counts(torch.cat([c.face_offsets.diff() for c in collections])),
            tuple(entry for c in collections for entry in c.entries),
        )

    def __len__(self) -> int:
        return len(self.entries)

    def to(self, device: torch.device | str) -> MeshCollection:
        """The same collection with its arrays on another device."""
        return MeshCollection(
            self.vertices.to(device), self.faces.to(device), self.vertex_offsets, self.face_offsets, self.entries
        )

    def mesh(self, index: int, device: torch.device | str | None = None) -> Mesh:
        """Mesh `index` in its own frame, on the collection's device or another; never waits for the device."""
        v0, v1 = (int(self.vertex_offsets[index + k]) for k in (0, 1))
        f0, f1 = (int(self.face_offsets[index + k]) for k in (0, 1))
        device = device or self.vertices.device
        vertices, faces = self.vertices[v0:v1].to(device), self.faces[f0:f1].to(device)
        return checked_mesh(vertices, faces.long(), self.entries[index].name)

    def face_counts(self) -> Tensor:
        """(M,) int64 faces of each mesh, on the CPU."""
        return self.face_offsets.diff()

    def licences(self) -> dict[str, int]:
        """How many meshes stand under each licence, the most frequent first."""
        return dict(Counter(entry.licence for entry in self.entries).most_common())

    def attributions(self) -> list[str]:
        """One line a source and licence that asks to be named wherever these meshes, or weights trained on them, go."""
        named = {f"{e.source}: {e.attribution} [{e.licence}]" for e in self.entries if e.needs_attribution}
        return sorted(named)

    def save(self, path: str | Path, *, bits: int = 16) -> None:
        """One .safetensors file of Draco streams with positions of `bits` bits; `pack_folder` copies files."""
        streams = []
        for index in range(len(self)):
            vertices, faces = self.mesh(index, "cpu").numpy()
            streams.append(
                DracoPy.encode(vertices, faces.astype(np.uint32), quantization_bits=bits, compression_level=7)
            )
        _write_streams(Path(path), streams, self.entries)

    @classmethod
    def load(cls, path: str | Path, *, workers: int = 1) -> MeshCollection:
        """What `save` or `pack_folder` wrote, onto the CPU.

        Raises:
            BadFile: missing, truncated, or of another format.
        """
        path = Path(path)
        if not path.is_file():
            raise BadFile("there is no such file.", where=str(path))
        try:
            with safe_open(path, framework="numpy") as archive:
                about = archive.metadata() or {}
                if about.get("format") != _FORMAT:
                    raise BadFile(f"expected the format {_FORMAT}, found {about.get('format')}.", where=str(path))
                data, offsets = archive.get_tensor("streams"), archive.get_tensor("offsets")
        except SafetensorError as error:
            raise BadFile(f"not a readable .safetensors file ({error}).", where=str(path)) from error
        entries = [Entry(**row) for row in json.loads(about["entries"])]
        streams = [data[start:end].tobytes() for start, end in pairwise(offsets)]
        return cls.from_arrays(_decode_all(streams, [f"{path}:{entry.name}" for entry in entries], workers), entries)


def checked_mesh(vertices: Tensor, faces: Tensor, name: str) -> Mesh:
    """A Mesh from arrays that were validated before: a second validation on a GPU would wait for it five times."""
    mesh = object.__new__(Mesh)
    for key, value in (("vertices", vertices), ("faces", faces), ("name", name)):
        object.__setattr__(mesh, key, value)
    return mesh


def pack_folder(folder: str | Path, path: str | Path, split: str = "train") -> int:
    """Copy the .drc files of a split unchanged into one file for `MeshCollection.load`; returns its size in bytes.

    Raises:
        BadFile: as `MeshCollection.from_folder`.
    """
    entries = read_manifest(folder, split)
    check_licences(entries, str(folder))
    _write_streams(Path(path), [_read_stream(Path(folder) / entry.file, entry) for entry in entries], entries)
    return Path(path).stat().st_size


def build_pool(count: int, seed: int, workers: int = 1) -> MeshCollection:
    """`count` procedural meshes, mesh i a function of (seed, i) alone, made by `workers` processes.

    Raises:
        BadArgument: count or workers below one.
    """
    return MeshCollection.joined(list(procedural_collections(count, seed, workers)))


def procedural_collections(count: int, seed: int, workers: int = 1, *, size: int = 256) -> Iterator[MeshCollection]:
    """What `build_pool` makes in collections of `size` meshes (a multiple of 32), the next ones being made meanwhile.

    With `workers` > 1 the processes begin at this call, before the first collection is asked for.
    """
    if count < 1 or workers < 1 or size % 32:
        raise BadArgument(f"count {count} and workers {workers} must be at least 1.", where="build_pool")
    chunks = [(seed, start, min(start + 32, count)) for start in range(0, count, 32)]
    executor = None
    if workers > 1:
        executor = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))
    made = map(_make_procedural, chunks) if executor is None else executor.map(_make_procedural, chunks)
    return _collected(made, count, seed, size, executor)


def _collected(
    made: Iterator[list[Arrays]], count: int, seed: int, size: int, executor: ProcessPoolExecutor | None
) -> Iterator[MeshCollection]:
    try:
        for start in range(0, count, size):
            end = min(start + size, count)
            meshes = [pair for chunk in islice(made, -(-(end - start) // 32)) for pair in chunk]
            names = [f"procedural/{seed}/{index}" for index in range(start, end)]
            own = [Entry(name, licence="CC0-1.0", source="shapecodec", category="procedural") for name in names]
            yield MeshCollection.from_arrays(meshes, own)
    finally:
        if executor is not None:
            executor.shutdown(cancel_futures=True)


def build_families(families: Sequence[str], count: int, seed: int, workers: int = 1) -> MeshCollection:
    """`count` procedural meshes of each kind of `data.procedural.KINDS`, which is also their category.

    Mesh i of a family is a function of (seed, family, i) alone.

    Raises:
        BadArgument: no families, an unknown one, or count or workers below one.
    """
    if not families or count < 1 or workers < 1:
        raise BadArgument(f"{count} meshes of {families} by {workers} workers.", where="build_families")
    chunks = [(family, seed, start, min(start + 32, count)) for family in families for start in range(0, count, 32)]
    made = [pair for chunk in spread(_make_family, chunks, workers) for pair in chunk]
    own = [
        Entry(f"{family}/{seed}/{index}", licence="CC0-1.0", source="shapecodec", category=family)
        for family in families
        for index in range(count)
    ]
    return MeshCollection.from_arrays(made, own)


def _make_family(job: tuple[str, int, int, int]) -> list[Arrays]:
    family, seed, start, end = job
    purpose = f"procedural {family}"
    return [procedural_arrays(numpy_rng(seed, index, purpose=purpose), family) for index in range(start, end)]


def _make_procedural(job: tuple[int, int, int]) -> list[Arrays]:
    seed, start, end = job
    return [procedural_arrays(numpy_rng(seed, index, purpose="procedural mesh")) for index in range(start, end)]


def _decode_named(job: tuple[bytes, str]) -> Arrays:
    return decode_draco(*job)


def _decode_all(streams: list[bytes], names: list[str], workers: int) -> list[Arrays]:
    return spread(_decode_named, list(zip(streams, names, strict=True)), workers)


def spread(function: Callable[[Job], Result], jobs: Sequence[Job], workers: int) -> list[Result]:
    """The function over all jobs, in their order; in fresh processes: a fork would inherit CUDA and threads."""
    if workers == 1:
        return [function(job) for job in jobs]
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(function, jobs, chunksize=max(1, len(jobs) // (4 * workers))))


def _read_stream(path: Path, entry: Entry) -> bytes:
    if not path.is_file():
        raise BadFile("the manifest lists it, but there is no such file.", where=str(path))
    stream = path.read_bytes()
    if entry.sha256 and hashlib.sha256(stream).hexdigest() != entry.sha256:
        raise BadFile("the checksum is not the manifest's: the file is damaged or was replaced.", where=str(path))
    return stream


def _write_streams(path: Path, streams: Sequence[bytes], entries: Sequence[Entry]) -> None:
    data = np.frombuffer(b"".join(streams), np.uint8)
    offsets = np.cumsum([0] + [len(stream) for stream in streams]).astype(np.int64)
    about = {"format": _FORMAT, "entries": json.dumps([asdict(entry) for entry in entries])}
    save_file({"streams": data, "offsets": offsets}, path, metadata=about)


def _offsets(parts: Sequence[Tensor]) -> Tensor:
    return _from_counts(torch.tensor([len(part) for part in parts]))


def _from_counts(counts: Tensor) -> Tensor:
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])
