"""Runs to the tests' measure: one thread, since sums depend on their number and the tests compare bytes."""

import ast
import multiprocessing

import pytest
import torch
from run_vectors import run_vectors


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def launch():
    """Start `run_vectors` in a process of its own; what still runs at the end of the test is killed.

    The processes are forked from a server that has imported torch once: starting afresh costs 6 s each.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["shapecodec.train.loop", "torch._dynamo"])  # any optimizer imports the latter
    started = []

    def start(folder, settings, **environment):
        started.append(context.Process(target=run_vectors, args=(folder, settings, environment)))
        started[-1].start()
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.join()


@pytest.fixture
def outcome():
    """Wait for a process of `launch` to end well, and read what it left."""

    def read(process, folder, rank=0):
        process.join(120)
        assert process.exitcode == 0
        return ast.literal_eval(folder.with_name(f"outcome.{rank}").read_text())

    return read
