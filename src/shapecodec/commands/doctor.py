"""`doctor`: what this machine can do, as a block to paste into an issue."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch

from shapecodec.codecs.registry import KINDS, bundled_names, load_codec
from shapecodec.commands.console import Reporter
from shapecodec.commands.memory import GIB, free_memory

PACKAGES = (
    "shapecodec",
    "torch",
    "triton",
    "numpy",
    "numba",
    "safetensors",
    "accelerate",
    "DracoPy",
    "Pillow",
)


def run(*, as_json: bool) -> None:
    """See `cli.doctor`."""
    report = Reporter(as_json)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    free = free_memory(device)
    values = {
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "system": platform.platform(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "gpus": [_gpu(index) for index in range(torch.cuda.device_count())],
        "triton": find_spec("triton") is not None,
        "free_memory_bytes": free,
        "kinds": list(KINDS),
        "codecs": [_codec(name, device, free) for name in bundled_names()],
    }
    report.result(values, "\n".join(_lines(values)))


def _version(name: str) -> str | None:
    """A source tree on the path has no metadata, and Triton exists on Linux only."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _gpu(index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    return {
        "name": properties.name,
        "memory_bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
    }


def _codec(name: str, device: torch.device, free: int | None) -> dict[str, Any]:
    """Parameters, and the memory that a typical mesh takes at each resolution."""
    codec = load_codec(name, device)
    needs = {}
    for resolution in (256, 512, 1024, 2048):
        need = codec.estimate_memory(None, resolution)
        needs[str(resolution)] = {"bytes": need, "fits": None if free is None else need <= free}
    count = sum(parameter.numel() for parameter in codec.parameters())
    return {"name": name, "kind": codec.kind, "parameters": count, "memory": needs}


def _lines(values: dict[str, Any]) -> list[str]:
    versions = values["versions"]
    free = values["free_memory_bytes"]
    lines = [
        f"shapecodec {versions['shapecodec'] or '(source tree)'}, Python {versions['python']} ({sys.implementation.name})",
        f"system     {values['system']}",
        "packages   " + ", ".join(f"{name} {versions[name] or 'missing'}" for name in PACKAGES[1:]),
        f"processor  {values['cores']} cores, {values['threads']} torch threads",
        f"device     {values['device']}, {'unknown' if free is None else f'{free / GIB:.1f} GiB'} free",
    ]
    lines += [
        f"GPU        {g['name']}, {g['memory_bytes'] / GIB:.0f} GiB, sm_{g['capability']}" for g in values["gpus"]
    ]
    lines.append(f"Triton     {'yes' if values['triton'] else 'no'} (kernels run on CUDA devices only)")
    for codec in values["codecs"]:
        needs = ", ".join(
            f"{resolution}^3 {need['bytes'] / GIB:.1f} GiB{'' if need['fits'] in (True, None) else ' (too much here)'}"
            for resolution, need in codec["memory"].items()
        )
        lines.append(f"codec      {codec['name']}: {codec['parameters'] / 1e6:.1f}M parameters; typical mesh: {needs}")
    return lines
