"""Processes that die, hang or cannot start: every task has an outcome, and no other task suffers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pool_tasks import make

from shapecodec.errors import BadArgument, BadFile, ShapecodecError
from shapecodec.evaluate.pool import Lost, WorkerPool


def outcomes(tasks, *, workers=2, mode="works", timeout_s=None):
    with WorkerPool(make, (mode,), workers=workers, timeout_s=timeout_s) as pool:
        return {task[1]: outcome for task, outcome in pool.run(tasks)}


@pytest.mark.timeout(120)
def test_killed_or_late_task_takes_others_along():
    tasks = [("echo", 0), ("kill", 1), ("echo", 2), ("sleep", 60.0), ("exit", 4), ("last", 5), ("echo", 6)]
    found = outcomes(tasks, timeout_s=2.0)
    assert set(found) == {task[1] for task in tasks}
    assert [found[i][2] for i in (0, 2, 5, 6)] == [0, 2, 5, 6]
    assert found[1].status == "killed" and "SIGKILL" in found[1].reason
    assert found[60.0] == Lost("timeout", "not done after 2 s.")
    assert found[4].status == "killed" and "exit code 3" in found[4].reason


@pytest.mark.timeout(120)
def test_process_is_used_after_its_last_result_or_started_without_need():
    found = outcomes([("last", 0), ("echo", 1), ("echo", 2)], workers=1)
    assert found[0][1] != found[1][1] == found[2][1]
    assert outcomes([], workers=4) == {}


def test_tasks_are_taken_before_a_process_is_free():
    taken = []

    def tasks():
        for number in range(6):
            taken.append(number)
            yield "echo", number

    with WorkerPool(make, ("works",), workers=2) as pool:
        for count, _ in enumerate(pool.run(tasks()), 1):
            assert len(taken) <= count + 2


@pytest.mark.parametrize(
    ("mode", "error", "words"),
    [("missing", BadFile, "no such codec"), ("dies", ShapecodecError, "before it could begin")],
)
def test_process_that_cannot_begin_is_tried_for_ever(mode, error, words):
    with pytest.raises(error, match=words):
        outcomes([("echo", 0)], mode=mode)


def test_no_workers_wait_for_ever():
    with pytest.raises(BadArgument, match="0 workers"):
        WorkerPool(make, ("works",), workers=0)


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
from pool_tasks import make
from shapecodec.evaluate.pool import WorkerPool
if __name__ == "__main__":
    with WorkerPool(make, ("works",), workers=1) as pool:
        for task, (slot, process, value) in pool.run([("echo", 0), ("sleep", 100)]):
            print(process, flush=True)
"""


def test_workers_of_a_killed_process_work_on(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(folder=str(Path(__file__).parent)))
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)
        parent.send_signal(signal.SIGKILL)
    end = time.monotonic() + 30
    while Path(f"/proc/{worker}").exists() and "State:\tZ" not in Path(f"/proc/{worker}/status").read_text():
        assert time.monotonic() < end
        time.sleep(0.05)
