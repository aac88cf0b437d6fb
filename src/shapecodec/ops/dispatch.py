"""Which implementation of an operation runs: an argument, checked; never an environment variable or a module global."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import torch

from shapecodec.errors import BadArgument


def triton_interprets() -> bool:
    """Whether Triton is installed and set to its interpreter, which runs kernels on CPU tensors (for tests)."""
    if find_spec("triton") is None:
        return False
    import triton  # imported here: costs half a second, and only tests on the CPU get this far

    return bool(triton.knobs.runtime.interpret)


def choose(
    backend: str, device: torch.device, *, available: Sequence[str], op: str, dtype: torch.dtype | None = None
) -> str:
    """The backend to use: `auto` takes Triton on CUDA, else the CPU path where there is one, else the reference.

    Args:
        backend: auto, or one of `available`.
        device: of the tensors.
        available: what the operation has.
        op: its name, for errors.
        dtype: of the tensors, where the operation's kernels sum in float32 and so cannot serve float64; else left out.

    Raises:
        BadArgument: the backend is unknown to the operation or cannot serve tensors of `dtype` on `device`.
    """
    if backend == "auto":
        fits = "triton" in available and dtype != torch.float64
        if device.type == "cuda" and fits and find_spec("triton") is not None:
            return "triton"
        return "cpu" if device.type == "cpu" and "cpu" in available else "reference"
    if backend not in available:
        raise BadArgument(f"unknown backend '{backend}'.", where=op, hint=f"one of auto, {', '.join(available)}.")
    if backend == "cpu" and device.type != "cpu":
        raise BadArgument(f"backend 'cpu' cannot serve tensors on {device}.", where=op, hint="backend='auto'.")
    if backend == "triton" and device.type != "cuda" and not triton_interprets():
        raise BadArgument(f"backend 'triton' cannot serve tensors on {device}.", where=op, hint="backend='auto'.")
    if backend == "triton" and dtype == torch.float64:
        raise BadArgument("backend 'triton' cannot serve float64.", where=op, hint="backend='auto'.")
    return backend
