"""Triton kernels run through the interpreter where there is no GPU; the switch must be set before Triton is imported."""

import os

import pytest
import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # noqa: TID251 - the only switch that Triton has


@pytest.fixture
def device() -> str:
    """Where tests marked `gpu` run."""
    return "cuda" if torch.cuda.is_available() else "cpu"
