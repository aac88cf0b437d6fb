"""What the compiler makes of the kernels of extraction and pictures for an H100, without one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def test_kernels_that_only_the_interpreter_understands():
    # The interpreter's switch, set for the other tests, must be off here.
    command = ["env", "-u", "TRITON_INTERPRET", sys.executable, Path(__file__).with_name("compile_surfaces.py")]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert len(found) > 20
    assert [kernel for kernel in found if kernel["spills"] > 0] == []
