"""The script that the reading child runs: `python -I child.py FOLDER`, FOLDER/request.json says what to read.

It limits its own memory and processor time, then writes vertices.npy and faces.npy, and report.json last. It starts in
0.2 s because it never runs shapecodec/__init__.py, which would import torch (2 s).
"""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any


def _limit(memory_bytes: int, seconds: int) -> None:
    """Address space and processor time, where the system has such limits (not on Windows; macOS ignores the first)."""
    if find_spec("resource") is None:
        return
    import resource

    limits = ((resource.RLIMIT_CORE, 0), (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory_bytes))
    for kind, value in limits:
        hard = resource.getrlimit(kind)[1]
        soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (soft, hard))  # at the hard processor limit comes SIGKILL, which does not say why
        except (ValueError, OSError) as error:  # the parent's clock still stands
            sys.stderr.write(f"limit {kind} not set: {error}\n")


def _open_package() -> None:
    """A bare `shapecodec` whose submodules import as usual, without its __init__."""
    package = ModuleType("shapecodec")
    package.__path__ = [str(Path(__file__).resolve().parents[2])]
    sys.modules["shapecodec"] = package


def _read(request: dict[str, Any], folder: Path) -> dict[str, str]:
    """The report: kind "ok", "memory", or the name of an error class with its text."""
    import numpy as np

    from shapecodec.errors import UserError
    from shapecodec.io.parse import parse_mesh

    try:
        path = Path(request["path"])
        vertices, faces = parse_mesh(path, request["suffix"], max_faces=request["max_faces"], weld=request["weld"])
        np.save(folder / "vertices.npy", vertices, allow_pickle=False)
        np.save(folder / "faces.npy", faces, allow_pickle=False)
    except UserError as error:
        return {"kind": type(error).__name__, "what": error.what, "hint": error.hint}
    except MemoryError:
        return {"kind": "memory"}
    except OSError as error:
        return {"kind": "BadFile", "what": f"it cannot be read ({error.strerror or error}).", "hint": ""}
    except Exception as error:  # a parser met bytes that its author did not foresee: the file is still at fault
        detail = f"{type(error).__name__}: {error}"[:200]
        return {"kind": "BadFile", "what": f"it is damaged ({detail}).", "hint": "download or export the file again."}
    return {"kind": "ok"}


def main(folder: Path) -> None:
    """Read what FOLDER/request.json asks for."""
    request = json.loads((folder / "request.json").read_text())
    os.putenv("OPENBLAS_NUM_THREADS", "1")  # each thread reserves address space, which the limit would count
    _limit(request["memory_bytes"], request["seconds"])
    sys.path += [entry for entry in request["import_paths"] if entry not in sys.path]
    _open_package()
    report = _read(request, folder)
    (folder / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
