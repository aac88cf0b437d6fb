"""What the compiler makes of the sparse convolutions' kernels for an H100, without one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

SHARED_LIMIT = 227 * 1024  # bytes a program may take on an H100


def test_kernels_spill_or_run_their_products_one_by_one():
    # The interpreter's switch, set for the other tests, must be off here.
    command = ["env", "-u", "TRITON_INTERPRET", sys.executable, Path(__file__).with_name("compile_sparse.py")]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert len(found) > 5
    for kernel in found:
        assert kernel["products"] > 0, kernel
        assert kernel["shared"] <= SHARED_LIMIT, kernel
        assert kernel["spills"] == 0, kernel
        assert kernel["waits"] == [], kernel
