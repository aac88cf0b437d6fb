"""Mesh files: reading what others wrote, in a child process with limits; writing whole files or none."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from shapecodec.errors import BadArgument, BadFile, BadMesh
from shapecodec.io.mesh_write import WRITE_FORMATS, write_mesh
from shapecodec.io.parse import FORMATS
from shapecodec.mesh import Mesh

__all__ = ["FORMATS", "WRITE_FORMATS", "read_mesh", "write_mesh"]

_CHILD = Path(__file__).parent / "parse" / "child.py"


def read_mesh(
    path: str | Path,
    *,
    max_faces: int = 20_000_000,
    timeout_s: float = 180.0,
    memory_bytes: int = 8 << 30,
    weld: bool = True,
) -> Mesh:
    """A mesh from an .obj, .ply, .stl, .off, .glb, .gltf or .drc file that nobody has to trust.

    The parsing happens in a child process, so a crash, a hang or a memory bomb in a file ends the child only. Scenes
    are merged with their node transforms, polygons become fans, vertices no face uses are dropped.

    Args:
        path: the file; its suffix says the format.
        max_faces: refuse more faces than this, before allocating them where the header tells.
        timeout_s: seconds until the child is ended.
        memory_bytes: address space of the child (where the system can limit it: not on Windows and macOS).
        weld: merge vertices of exactly equal position (most formats split them) and drop faces that this collapses.

    Raises:
        BadFile: missing, unreadable, unknown format, truncated, damaged, too slow or too large to read.
        BadMesh: readable, but without faces, with indices out of range, not finite, degenerate, or over `max_faces`.
    """
    path = Path(path)
    if max_faces < 1 or not timeout_s > 0 or memory_bytes < 1:
        raise BadArgument("max_faces, timeout_s and memory_bytes must be above zero.", where="read_mesh")
    suffix = _check_path(path)
    request = {
        "path": str(path.resolve()),
        "suffix": suffix,
        "max_faces": max_faces,
        "memory_bytes": memory_bytes,
        "seconds": math.ceil(timeout_s) + 1,
        "weld": weld,
        # Not the current folder: a numpy.py lying beside an untrusted mesh would run.
        "import_paths": [entry for entry in sys.path if entry and Path(entry).is_absolute()],
    }
    with tempfile.TemporaryDirectory(prefix="shapecodec-read-") as name:
        folder = Path(name)
        (folder / "request.json").write_text(json.dumps(request))
        report = _run_child(folder, path, timeout_s, memory_bytes)
        if report["kind"] == "memory":
            raise _out_of_memory(path, memory_bytes)
        if report["kind"] != "ok":
            kind = BadMesh if report["kind"] == "BadMesh" else BadFile
            raise kind(report["what"], where=str(path), hint=report["hint"])
        vertices = np.load(folder / "vertices.npy", allow_pickle=False)
        faces = np.load(folder / "faces.npy", allow_pickle=False)
    return Mesh.from_arrays(vertices, faces, name=str(path))


def _check_path(path: Path) -> str:
    """The format's suffix, if there is a file that may be read."""
    if not path.exists():
        raise BadFile("no such file.", where=str(path), hint="check the path.")
    if path.is_dir():
        raise BadFile("is a folder, not a mesh file.", where=str(path), hint="name one file in it.")
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        known = " ".join(FORMATS)
        raise BadFile(f"unknown mesh format '{path.suffix}'.", where=str(path), hint=f"convert it to one of {known}")
    if not path.is_file():
        raise BadFile("is not a regular file.", where=str(path), hint="copy its content into a file.")
    if path.stat().st_size == 0:
        raise BadFile("the file is empty.", where=str(path), hint="download or export the file again.")
    return suffix


def _run_child(folder: Path, path: Path, timeout_s: float, memory_bytes: int) -> dict[str, Any]:
    """Run the parsing child on `folder` and return its report."""
    with (folder / "stderr.txt").open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-I", str(_CHILD), str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        try:
            code = child.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            raise _too_slow(path, timeout_s) from error
        finally:
            child.kill()  # also when the caller is interrupted; does nothing to a child that has ended
            child.wait()
    report = folder / "report.json"
    if code == 0 and report.exists():
        return json.loads(report.read_text())
    said = (folder / "stderr.txt").read_text(errors="replace")
    if hasattr(signal, "SIGXCPU") and code == -signal.SIGXCPU:
        raise _too_slow(path, timeout_s)
    # A library written in C++ aborts where Python would raise MemoryError.
    if "MemoryError" in said or "bad_alloc" in said:
        raise _out_of_memory(path, memory_bytes)
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    last = said.strip().splitlines()[-1][:200] if said.strip() else "no message"
    raise BadFile(f"its reader crashed ({how}; {last}).", where=str(path), hint="export the file again, as PLY or GLB.")


def _too_slow(path: Path, timeout_s: float) -> BadFile:
    what = f"reading took longer than {timeout_s:g} s."
    return BadFile(what, where=str(path), hint="raise timeout_s, or decimate it.")


def _out_of_memory(path: Path, memory_bytes: int) -> BadFile:
    what = f"reading needs more than {memory_bytes / 2**30:.3g} GiB of memory."
    return BadFile(what, where=str(path), hint="raise memory_bytes, or decimate it.")
