"""Counted randomness: a generator is a function of (seed, step, rank, purpose), so nothing has to be stored.

A resumed run asks for the same counters and gets the same numbers; no generator state travels in checkpoints.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def counted_seed(seed: int, step: int = 0, rank: int = 0, purpose: str = "") -> int:
    """A 63-bit seed that depends on all four counters."""
    digest = hashlib.blake2b(f"{seed}/{step}/{rank}/{purpose}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def rng(
    seed: int, step: int = 0, rank: int = 0, purpose: str = "", *, device: torch.device | str = "cpu"
) -> torch.Generator:
    """A torch generator on `device`, counted by (seed, step, rank, purpose)."""
    return torch.Generator(device=device).manual_seed(counted_seed(seed, step, rank, purpose))


def numpy_rng(seed: int, step: int = 0, rank: int = 0, purpose: str = "") -> np.random.Generator:
    """The numpy twin of `rng`, for code that stays on the CPU."""
    return np.random.default_rng(counted_seed(seed, step, rank, purpose))
