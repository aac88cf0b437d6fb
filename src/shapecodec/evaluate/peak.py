"""The most memory that one piece of work took, in a process that does many."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def reset_peak_memory(device: torch.device) -> None:
    """Begin to count anew what `peak_memory` tells."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _resettable():
        _RESET.write_text("5")  # VmHWM becomes what is resident now (proc(5))


def peak_memory(device: torch.device) -> int | None:
    """Bytes: the most that tensors held on the GPU, or this process of the host's memory, since `reset_peak_memory`.

    None on a CPU whose system cannot begin to count anew: an earlier piece of work may have set the peak there.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not _resettable():
        return None
    fields = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(fields["VmHWM"].split()[0]) * 1024


def _resettable() -> bool:
    return sys.platform == "linux" and os.access(_RESET, os.W_OK) and _STATUS.is_file()
