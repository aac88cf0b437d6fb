"""Checkpoints that are complete or absent.

A checkpoint is a folder of safetensors files, state.json and manifest.json (SHA-256 of every other file, written last).
It is staged under another name, synced to disk and renamed: a crash at any moment leaves the previous ones untouched.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from shapecodec.errors import BadFile, UserError

_NAME = re.compile(r"step-(\d{8,})")
_MANIFEST = "manifest.json"


class CheckpointFailed(UserError):
    """A checkpoint could not be written; those before it are untouched."""


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], *, keep: int
) -> Path:
    """Write `folder`/step-XXXXXXXX and remove all but the last `keep` checkpoints.

    Args:
        folder: holds the checkpoints of one run; made if missing.
        step: optimiser steps taken; a checkpoint of the same step is replaced.
        tensors: one safetensors file each, named by its key; copied to the CPU, shared storage is written twice.
        state: anything JSON can hold.
        keep: checkpoints that stay.

    Raises:
        CheckpointFailed: the disk refused; nothing but staged files, removed again, was written.
    """
    target, staged = folder / f"step-{step:08d}", folder / f".staged-step-{step:08d}"
    try:
        _clear(folder)
        staged.mkdir(parents=True)
        for name, group in tensors.items():
            save_file(
                {key: t.detach().to("cpu", copy=True).contiguous() for key, t in group.items()},
                staged / f"{name}.safetensors",
            )
        (staged / "state.json").write_text(json.dumps(dict(state)))
        for path in staged.iterdir():
            _sync(path)
        (staged / _MANIFEST).write_bytes(_manifest(staged))
        _sync(staged / _MANIFEST)
        _sync(staged)
        if target.exists():
            target.replace(folder / f".removed-{target.name}")
        staged.replace(target)
        _sync(folder)
        others = [path for path in _checkpoints(folder) if path != target]
        older = [path for path in others if _step(path) < step]
        # Newer ones are what this run could not be resumed from
        for old in [path for path in others if path not in older[: keep - 1]]:
            old.replace(
                folder / f".removed-{old.name}"
            )  # a half-deleted folder must not look like a damaged checkpoint
        _clear(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(staged, ignore_errors=True)
        raise CheckpointFailed(
            f"the checkpoint of step {step} could not be written ({error}); earlier checkpoints are intact.",
            where=str(folder),
            hint="make room on the disk and resume the run.",
        ) from error
    return target


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint whose every byte matches its manifest; None if there is none at all.

    Warns (RuntimeWarning) of each damaged checkpoint passed over, naming the file.

    Raises:
        BadFile: there are checkpoints, and all of them are damaged.
    """
    candidates = _checkpoints(folder)
    for path in candidates:
        damaged = damaged_file(path)
        if damaged is None:
            return path
        warnings.warn(
            f"{path / damaged} is damaged; falling back to the checkpoint before.", RuntimeWarning, stacklevel=2
        )
    if candidates:
        raise BadFile(f"all {len(candidates)} checkpoints are damaged.", where=str(folder), hint="start a new run.")
    return None


def damaged_file(checkpoint: Path) -> str | None:
    """Name of the first file of a checkpoint that is missing, unknown or altered; None if all is well."""
    try:
        written = (checkpoint / _MANIFEST).read_bytes()
        promised = json.loads(written)["files"]
        found = json.loads(_manifest(checkpoint))["files"]
        for name in sorted(promised.keys() | found.keys()):
            if promised.get(name) != found.get(name):
                return str(name)
        return None if written == _manifest_bytes(found) else _MANIFEST
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return _MANIFEST


def _manifest(folder: Path) -> bytes:
    files = {}
    for path in folder.iterdir():
        if path.name != _MANIFEST:
            with path.open("rb") as file:
                files[path.name] = {
                    "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
                    "bytes": path.stat().st_size,
                }
    return _manifest_bytes(files)


def _manifest_bytes(files: dict[str, Any]) -> bytes:
    return json.dumps({"format": 1, "files": files}, sort_keys=True, indent=1).encode()


def _checkpoints(folder: Path) -> list[Path]:
    """Newest first."""
    found = [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return sorted(found, key=_step, reverse=True)


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-"))


def _clear(folder: Path) -> None:
    """Remove what an interrupted save or removal left."""
    for path in folder.glob(".*-step-*"):
        shutil.rmtree(path)


def _sync(path: Path) -> None:
    """Make a file's bytes, or a folder's entries, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
