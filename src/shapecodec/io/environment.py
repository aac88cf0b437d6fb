"""What a run ran on: versions and hardware, for its folder."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version

import torch


def environment() -> str:
    """Versions and hardware, a line each."""
    packages = ("shapecodec", "torch", "numpy", "accelerate", "safetensors")
    lines = [f"command: {' '.join(sys.argv)}", f"python: {platform.python_version()}", f"system: {platform.platform()}"]
    lines += [f"{name}: {package_version(name)}" for name in packages]
    lines += [f"processor: {platform.machine()}, {torch.get_num_threads()} threads"]
    if torch.cuda.is_available():
        lines.append(f"cuda: {torch.version.cuda}, cudnn: {torch.backends.cudnn.version()}")
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            lines.append(f"device {index}: {device.name}, {device.total_memory / 2**30:.0f} GiB")
    return "\n".join(lines) + "\n\n"


def hardware(device: str) -> str:
    """The GPU that cuda means, or the processor, in a few words."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"


def package_version(name: str) -> str:
    """Of an installed package; a source tree on the path has no metadata, which is no reason to fail."""
    try:
        return version(name)
    except ModuleNotFoundError:
        return "source tree"
