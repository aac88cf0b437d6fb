"""What is said when a verb fails: a line on stderr, with --json one object on stdout, and the exit code.

Imported by the command line before any verb, so nothing heavy is imported here.
"""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from pathlib import Path

from shapecodec.errors import ShapecodecError, UserError


def failed(message: str, kind: str, as_json: bool, *, error: ShapecodecError | None = None, said: bool = False) -> int:
    """Say what is wrong with the input; exit code 1."""
    _emit({"kind": kind, "message": message, **_parts(error or UserError(message))}, as_json)
    if not said:
        sys.stderr.write(f"error: {message}\n")
    return 1


def fault(error: Exception, as_json: bool) -> int:
    """Say what broke and where, in a few lines; exit code 2."""
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f for f in reversed(frames) if "shapecodec" in f.filename), frames[-1] if frames else None)
    where = f"{Path(place.filename).name}:{place.lineno} in {place.name}" if place else "unknown"
    message = f"{type(error).__name__}: {error}"
    _emit({"kind": type(error).__name__, "message": message, "where": where}, as_json)
    sys.stderr.write(f"internal error: {message}\n  at {where}\n  please report it with `shapecodec doctor`\n")
    return 2


def _parts(error: ShapecodecError) -> dict[str, str]:
    return {"what": error.what, "where": error.where, "hint": error.hint}


def _emit(error: dict[str, str], as_json: bool) -> None:
    if as_json:
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.write(json.dumps({"error": error}) + "\n")
