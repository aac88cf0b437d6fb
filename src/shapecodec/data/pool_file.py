"""Pools of labelled points as files: made once, found by what they were made from, mapped by all processes of a machine at once.

Labels of 3,700 shapes take half a minute of a GPU and all cores; the file (0.7 MB a shape) loads in seconds.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from shapecodec.data.shape_pools import ShapePools
from shapecodec.errors import BadFile

FORMAT = "shapecodec-pools-1"
MADE_BY = 2  # changes with what is drawn or labelled, so that older files are not found


def pools_key(settings: dict[str, Any]) -> str:
    """20 hexadecimal digits of the settings that pools are a function of; values as JSON holds them."""
    text = json.dumps({"made by": MADE_BY, **settings}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def data_digest(path: str | Path) -> str:
    """SHA-256 of a packed collection, or of a folder's manifest, which holds the checksums of its files."""
    path = Path(path)
    file = path / "manifest.csv" if path.is_dir() else path
    if not file.is_file():
        raise BadFile("there is no such file.", where=str(file))
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def stored_pools(
    folder: str | Path, key: str, make: Callable[[], ShapePools], device: torch.device | str
) -> ShapePools:
    """The pools of that key from `folder`, on the device; made and written first where there are none.

    Several processes may ask at once: one makes them, the others wait for it; one that dies lets the next one in. The file appears
    whole or not at all. A damaged file is not made anew unasked: it was intact once, so the disk is to be looked at.

    Args:
        folder: made if missing.
        key: of `pools_key`.
        make: builds the pools.
        device: of the result.

    Raises:
        BadFile: see `load_pools`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"pools-{key}.safetensors"
    if not path.exists():
        with (folder / f".pools-{key}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                pools = make()
                save_pools(pools, path, key)
                return pools.to(device)
    return load_pools(path, key, device)


def save_pools(pools: ShapePools, path: str | Path, key: str) -> None:
    """One .safetensors file with a checksum of each tensor, under its name only once it is complete."""
    path = Path(path)
    tensors = {name: t.cpu().contiguous() for name, t in _tensors(pools).items()}
    sums = {name: _checksum(t) for name, t in tensors.items()}
    names = {"names": json.dumps(pools.names), "left_out": json.dumps(pools.left_out)}
    sums |= {name: zlib.crc32(text.encode()) for name, text in names.items()}
    about = {"format": FORMAT, "key": key, "sums": json.dumps(sums), **names}
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        save_file(tensors, part, metadata=about)
        with part.open("rb") as stream:
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_pools(path: str | Path, key: str | None = None, device: torch.device | str = "cpu") -> ShapePools:
    """What `save_pools` wrote; on the CPU the tensors stay mapped to the file.

    Raises:
        BadFile: missing, truncated, of another format, of another key than the one asked for, or a tensor whose checksum differs.
    """
    path = Path(path)
    hint = "remove it, and it is made anew."
    if not path.is_file():
        raise BadFile("there is no such file.", where=str(path))
    try:
        with safe_open(path, framework="pt") as archive:
            about = archive.metadata() or {}
            if about.get("format") != FORMAT or (key is not None and about.get("key") != key):
                found = f"{about.get('format')}, {about.get('key')}"
                raise BadFile(f"expected {FORMAT} of key {key}, found {found}.", where=str(path), hint=hint)
            tensors = {name: archive.get_tensor(name) for name in archive.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise BadFile(f"not a readable .safetensors file ({error}).", where=str(path), hint=hint) from error
    try:
        sums: dict[str, int] = json.loads(about["sums"])
        seen = {name: _checksum(t) for name, t in tensors.items()}
        seen |= {name: zlib.crc32(about[name].encode()) for name in ("names", "left_out")}
        wrong = sorted(name for name in sums.keys() | seen.keys() if sums.get(name) != seen.get(name))
    except (KeyError, ValueError) as error:
        raise BadFile(f"its description is damaged ({error}).", where=str(path), hint=hint) from error
    if wrong:
        raise BadFile(f"damaged: {', '.join(wrong)}.", where=str(path), hint=hint)
    names = {name: tuple(json.loads(about[name])) for name in ("names", "left_out")}
    here: dict[str, Any] = {name: t.to(device) for name, t in tensors.items()}
    return ShapePools(**{"distances": None, **here, **names})


def _tensors(pools: ShapePools) -> dict[str, Tensor]:
    values = {field.name: getattr(pools, field.name) for field in fields(pools)}
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}


def _checksum(tensor: Tensor) -> int:
    return zlib.crc32(tensor.contiguous().view(-1).view(torch.uint8).numpy().data) if tensor.numel() else 0
