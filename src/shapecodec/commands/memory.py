"""How much memory there is, how much was used, and whether a resolution fits."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

from shapecodec.codecs.base import Codec
from shapecodec.errors import BadArgument
from shapecodec.mesh import Mesh

GIB = 2**30


def free_memory(device: torch.device) -> int | None:
    """Bytes that this process may still take on a device; None where the system does not say."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    return _free_on_host(Path("/"))


def _free_on_host(root: Path) -> int | None:
    """The least of what the kernel calls available and what a container's limit leaves."""
    found: list[int] = []
    listing = root / "proc/meminfo"
    if listing.is_file():
        fields = dict(line.split(":", 1) for line in listing.read_text().splitlines() if ":" in line)
        if "MemAvailable" in fields:
            found.append(int(fields["MemAvailable"].split()[0]) * 1024)
    elif (
        hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
    ):  # macOS tells what is built in, not what is free
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for limit, used in (
        ("sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory.current"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        if (root / limit).is_file() and (root / used).is_file():
            text = (root / limit).read_text().strip()
            if text.isdigit():
                found.append(max(int(text) - int((root / used).read_text()), 0))
    return min(found) if found else None


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that tensors held on the GPU, or that this process held of the host's memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource  # not on Windows, which is not supported

    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * 1024


def check_memory(codec: Codec, mesh: Mesh, resolution: int) -> None:
    """Refuse a resolution that would not fit.

    Args:
        codec: on the device that it will use.
        mesh: in the unit cube.
        resolution: voxels an axis.

    Raises:
        BadArgument: the estimate exceeds what is free; the hint names the largest power of two that fits.
    """
    free = free_memory(codec.device)
    need = codec.estimate_memory(mesh, resolution)
    if free is None or need <= free:
        return
    fitting = resolution // 2
    while fitting >= 64 and codec.estimate_memory(mesh, fitting) > free:
        fitting //= 2
    hint = f"--resolution {fitting // 8 * 8}" if fitting >= 64 else "a machine with more memory"
    raise BadArgument(
        f"resolution {resolution} needs about {need / GIB:.1f} GiB, and {free / GIB:.1f} GiB are free on {codec.device}.",
        where=mesh.name,
        hint=f"{hint}.",
    )
