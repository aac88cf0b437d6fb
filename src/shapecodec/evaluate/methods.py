"""What can be evaluated: a codec, or a folder of meshes that something else has reconstructed.

A method is a small frozen description that travels to worker processes and into the run's config.json; `open` makes of it, in the
worker, the thing that reconstructs.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from shapecodec.codecs.base import Codec
from shapecodec.codecs.registry import load_codec
from shapecodec.errors import BadArgument, BadFile, BadMesh
from shapecodec.evaluate.peak import peak_memory, reset_peak_memory
from shapecodec.evaluate.subjects import Subject
from shapecodec.io.codec_folder import read_header
from shapecodec.io.codec_locate import locate
from shapecodec.io.latent_file import load_latents, save_latents
from shapecodec.io.mesh_files import FORMATS, read_mesh
from shapecodec.io.quantise import check_bits
from shapecodec.mesh import Mesh, Similarity

Align = Literal["none", "box"]


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What a method made of a mesh.

    Args:
        mesh: in the frame of the mesh that was given, the unit cube of `Mesh.normalise`.
        oracle: the exact field through the same extraction, in the same frame; None where there is no such thing.
        facts: columns of the row: surface, tokens, bytes, peak_memory_bytes; reason where an oracle could not be made.
    """

    mesh: Mesh
    oracle: Mesh | None = None
    facts: dict[str, Any] = field(default_factory=dict)


class Clock:
    """Seconds a stage, waiting for the device."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, dict[str, float]()
        self.skip()

    def skip(self) -> None:
        """Leave out what happened since the last lap."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Name what happened since the last lap."""
        before = self._last
        self.skip()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + self._last - before


class Opened(Protocol):
    """A method in the process where it works."""

    def __call__(self, subject: Subject, mesh: Mesh, frame: Similarity, clock: Clock) -> Reconstruction:
        """Reconstruct one mesh.

        Args:
            subject: what it is called.
            mesh: as the file holds it, on the CPU.
            frame: the similarity that puts it into the unit cube of `Mesh.normalise`.
            clock: laps of every stage.
        """
        ...


class Method(Protocol):
    """What is evaluated; a frozen dataclass, picklable."""

    def describe(self) -> dict[str, Any]:
        """JSON-ready: `codec` (name), `codec_hash`, `bits`, `resolution` and whatever else decides the results."""
        ...

    def open(self, device: torch.device) -> Opened:
        """Load what is needed, once in each process."""
        ...


@dataclass(frozen=True)
class CodecMethod:
    """A codec: mesh -> latents -> what their file holds -> surface.

    Args:
        codec: a bundled name, a folder, a training run or a hub id.
        resolution: voxels an axis; None is the codec's own.
        surface: way of extraction, for codecs that offer several; None is theirs.
        bits: of a latent channel in the file that is decoded.
    """

    codec: str
    resolution: int | None = None
    surface: str | None = None
    bits: int = 8

    def describe(self) -> dict[str, Any]:
        """See `Method`."""
        check_bits(self.bits)
        header = read_header(locate(self.codec))
        own = header.get("config", {}).get("resolution")
        return {
            "method": "codec",
            "codec": str(header.get("name") or header.get("kind")),
            "codec_hash": str(header.get("codec_hash", "")),
            "resolution": own if self.resolution is None else self.resolution,
            "surface": self.surface,
            "bits": self.bits,
        }

    def open(self, device: torch.device) -> OpenCodec:
        """See `Method`."""
        return OpenCodec(load_codec(self.codec, device), self.resolution, self.surface, self.bits)


class OpenCodec:
    """A codec at one resolution, surface and number of bits; see `CodecMethod`."""

    def __init__(self, codec: Codec, resolution: int | None, surface: str | None, bits: int) -> None:
        self.codec, self.resolution, self.surface, self.bits = codec, resolution, surface, bits

    @torch.inference_mode()
    def __call__(self, subject: Subject, mesh: Mesh, frame: Similarity, clock: Clock) -> Reconstruction:
        """See `Opened`. Nothing random is asked for: `prepare` and `encode` get no generator."""
        reset_peak_memory(self.codec.device)
        clock.skip()
        own, own_frame = self.codec.normalise(mesh)
        inputs = self.codec.prepare(own.to(self.codec.device), None, resolution=self.resolution)
        clock.lap("prepare")
        latents = self.codec.encode(inputs)
        clock.lap("encode")
        with tempfile.TemporaryDirectory(prefix="shapecodec-") as folder:
            path = Path(folder) / "latents.safetensors"
            size = save_latents(latents.to("cpu"), path, bits=self.bits)
            stored = load_latents(path)
        clock.lap("store")
        decoded = self.codec.decode(stored.to(self.codec.device))
        clock.lap("decode")
        surface, mode = self._extract(decoded)
        clock.lap("extract")
        facts = {
            "surface": mode,
            "tokens": sum(len(level.feats) for level in latents.levels),
            "bytes": size,
            "peak_memory_bytes": peak_memory(self.codec.device),
        }
        oracle = self._oracle(inputs, facts)
        clock.lap("oracle")
        back = between(own_frame, frame)
        exact = None if oracle is None else oracle.to("cpu").transformed(back)
        return Reconstruction(surface.to("cpu").transformed(back), exact, facts)

    def _oracle(self, inputs: Any, facts: dict[str, Any]) -> Mesh | None:
        """The exact field's surface; a shape that has none, such as one without an inside, is measured without."""
        oracle = getattr(self.codec, "oracle", None)  # field codecs have one
        if not callable(oracle):
            return None
        try:
            return self._extract(oracle(inputs))[0]
        except BadMesh as error:
            facts["reason"] = f"no oracle: {error}"
            return None

    def _extract(self, decoded: Any) -> tuple[Mesh, str]:
        """The surface, and the way that it was made."""
        if hasattr(decoded, "to_surface"):
            mesh, report = decoded.to_surface(None, self.surface or "auto")
            return mesh, report.mode
        if self.surface is not None:
            raise BadArgument(
                f"'{self.codec.name}' has one way of making a surface.", where="--surface", hint="leave it out."
            )
        return decoded.to_mesh(), ""


def between(start: Similarity, end: Similarity) -> Similarity:
    """The similarity from the unit frame of `start` to that of `end`; the identity where they are equal."""
    centre = [(b - a) * start.scale for a, b in zip(start.centre, end.centre, strict=True)]
    return Similarity((centre[0], centre[1], centre[2]), end.scale / start.scale)


@dataclass(frozen=True)
class FolderMethod:
    """Meshes that something else has reconstructed, under the names of the originals.

    Args:
        folder: holds, for the original `a/b.glb`, a file `a/b` or `b` or of the shape's name, of any format that is read.
        label: of the method, in the rows and tables; the folder's name if empty.
        resolution: voxels an axis, if distances are to be given in voxels too.
        align: "none": the files lie in the originals' own scale and position; "box": each is moved so that its box has the
            centre and longest side of the original's, which hides errors of scale and position and is said in the run's settings.
    """

    folder: Path
    label: str = ""
    resolution: int | None = None
    align: Align = "none"

    def describe(self) -> dict[str, Any]:
        """See `Method`."""
        if not self.folder.is_dir():
            raise BadFile("no such folder.", where=str(self.folder), hint="--meshes names a folder of reconstructions.")
        return {
            "method": "meshes",
            "codec": self.label or self.folder.resolve().name,
            "codec_hash": "",
            "resolution": self.resolution,
            "surface": None,
            "bits": None,
            "align": self.align,
        }

    def open(self, device: torch.device) -> OpenFolder:
        """See `Method`."""
        return OpenFolder(self.folder, self.align)


class OpenFolder:
    """A folder of reconstructions; see `FolderMethod`."""

    def __init__(self, folder: Path, align: Align) -> None:
        self.folder, self.align = folder, align

    def __call__(self, subject: Subject, mesh: Mesh, frame: Similarity, clock: Clock) -> Reconstruction:
        """See `Opened`; `bytes` is the size of the file."""
        path = self._find(subject)
        clock.skip()
        found = read_mesh(path)
        clock.lap("load_reconstruction")
        unit = found.normalise()[0] if self.align == "box" else found.transformed(frame)
        return Reconstruction(unit, None, {"bytes": path.stat().st_size})

    def _find(self, subject: Subject) -> Path:
        original = Path(subject.file)
        stems = (original.with_suffix(""), Path(subject.name), Path(original.stem))
        for stem in dict.fromkeys(stems):
            for suffix in FORMATS:
                path = self.folder / stem.with_name(stem.name + suffix)
                if path.is_file():
                    return path
        raise BadFile(
            "no reconstruction of this name.",
            where=str(self.folder),
            hint=f"add {original.stem}.glb or another format.",
        )
