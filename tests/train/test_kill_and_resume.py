"""A run that dies at any moment goes on as if it had not."""

import random
import time

import pytest
from vector_codec import VectorConfig, VectorSource, build, make_codec, newest, read_log, tensor_bytes

from shapecodec.errors import BadArgument
from shapecodec.train.config import RunConfig
from shapecodec.train.loop import resume, train

PLAIN = {"steps": 120, "lr": 1e-2, "log_every": 7, "checkpoint_every_steps": 10, "warmup_steps": 5}
SETTINGS = {**PLAIN, "_noise": 0.1}


def wait_for(condition, process, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert process.is_alive()
        assert time.monotonic() < end
        time.sleep(0.002)


def reference(folder):
    return train(make_codec(VectorConfig(noise=0.1)), VectorSource(), RunConfig(**PLAIN), folder, device="cpu")


def test_kill_9_at_random_moments_changes_nothing(tmp_path, launch, outcome):
    assert reference(tmp_path / "whole").finished
    folder, chance = tmp_path / "killed", random.Random(5)
    log = folder / "log.jsonl"
    for _ in range(5):
        before = log.read_bytes().count(b"\n") if log.exists() else 0
        process = launch(folder, {**SETTINGS, "_pause_s": 0.004})
        wait_for(lambda n=before: log.exists() and log.read_bytes().count(b"\n") > n, process)
        time.sleep(chance.random() * 0.1)
        process.kill()
        process.join()
        assert process.exitcode == -9
    end = outcome(launch(folder, SETTINGS), folder)
    assert end["finished"] and end["step"] == 120
    assert read_log(folder) == read_log(tmp_path / "whole")
    assert tensor_bytes(folder) == tensor_bytes(tmp_path / "whole")


def test_sigterm_saves_and_exits_0(tmp_path, launch, outcome):
    folder = tmp_path / "run"
    process = launch(folder, {**SETTINGS, "checkpoint_every_steps": 1000, "_pause_s": 0.01})
    log = folder / "log.jsonl"
    wait_for(lambda: log.exists() and log.stat().st_size > 0, process)
    process.terminate()
    end = outcome(process, folder)
    assert not end["finished"]
    assert newest(folder).name == f"step-{end['step']:08d}"
    assert resume(folder, build, device="cpu").finished
    reference(tmp_path / "whole")
    assert read_log(folder) == read_log(tmp_path / "whole")
    assert tensor_bytes(folder) == tensor_bytes(tmp_path / "whole")


class BrokenSource(VectorSource):
    """Fails at one step: the run dies there and then."""

    fails_at = -1

    def batch(self, step, rank, world, device):
        if step == self.fails_at:
            raise InterruptedError
        return super().batch(step, rank, world, device)


def test_dying_in_each_step_in_turn_equals_one_go(tmp_path):
    run = RunConfig(steps=7, log_every=3, lr=1e-2, checkpoint_every_steps=2)
    train(make_codec(), VectorSource(), run, tmp_path / "whole", device="cpu")
    source = BrokenSource()
    for step in range(7):
        object.__setattr__(source, "fails_at", step)
        with pytest.raises(InterruptedError):
            train(make_codec(), source, run, tmp_path / "parts", resume=step > 0, device="cpu")
    assert resume(tmp_path / "parts", build, device="cpu").finished
    assert read_log(tmp_path / "parts") == read_log(tmp_path / "whole")
    assert tensor_bytes(tmp_path / "parts") == tensor_bytes(tmp_path / "whole")


def test_a_finished_run_resumes_to_nothing(tmp_path):
    run = RunConfig(steps=4, log_every=2)
    hook = {"device": "cpu", "validate": lambda codec, step: {"step_seen": float(step)}}
    train(make_codec(), VectorSource(), run, tmp_path, **hook)
    log = (tmp_path / "log.jsonl").read_bytes()
    assert resume(tmp_path, build, **hook).step == 4
    assert (tmp_path / "log.jsonl").read_bytes() == log


def test_a_torn_or_later_log_line_is_dropped(tmp_path):
    run = RunConfig(steps=4, log_every=1)
    train(make_codec(), VectorSource(), run, tmp_path, device="cpu")
    log = (tmp_path / "log.jsonl").read_bytes()
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'{"step": 5, "loss": 1.0}\n{"step": 6, "lo')
    resume(tmp_path, build, device="cpu")
    assert (tmp_path / "log.jsonl").read_bytes() == log


def test_initial_weights_come_from_the_first_checkpoint(tmp_path):
    """Killed before the first step, a run goes on from the weights it was given, not from those made anew."""
    run = RunConfig(steps=5, log_every=1)
    train(make_codec(seed=3), VectorSource(), run, tmp_path / "whole", device="cpu")
    train(make_codec(seed=3), VectorSource(), run, tmp_path / "killed", device="cpu", stop_after_s=1e-9)
    resume(tmp_path / "killed", build, device="cpu")  # build's codec has seed 0
    assert tensor_bytes(tmp_path / "killed") == tensor_bytes(tmp_path / "whole")


def test_changed_configuration_is_refused_unless_allowed(tmp_path):
    run = RunConfig(steps=4, log_every=1)
    train(make_codec(), VectorSource(), run, tmp_path, device="cpu")
    changed = RunConfig(steps=6, log_every=1, lr=5e-4)
    with pytest.raises(BadArgument, match=r"run\.steps: 4 -> 6\n  run\.lr: 0\.0001 -> 0\.0005"):
        train(make_codec(), VectorSource(), changed, tmp_path, resume=True, device="cpu")
    with pytest.warns(RuntimeWarning, match="run.steps: 4 -> 6"):
        outcome = train(make_codec(), VectorSource(), changed, tmp_path, resume=True, allow_changes=True, device="cpu")
    assert outcome.step == 6
    assert resume(tmp_path, build, device="cpu").finished


def test_folders_that_do_not_fit(tmp_path):
    run = RunConfig(steps=1)
    with pytest.raises(BadArgument, match="holds no run"):
        train(make_codec(), VectorSource(), run, tmp_path / "none", resume=True, device="cpu")
    train(make_codec(), VectorSource(), run, tmp_path / "one", device="cpu")
    with pytest.raises(BadArgument, match="already holds a run"):
        train(make_codec(), VectorSource(), run, tmp_path / "one", device="cpu")


def test_time_budget_ends_the_run_and_goes_on_over_resumes(tmp_path):
    run = RunConfig(time_budget_s=0.6, log_every=5, lr=1e-2)
    first = train(make_codec(), VectorSource(), run, tmp_path, device="cpu", stop_after_s=0.2)
    assert not first.finished and 0 < first.elapsed_s < 0.6
    second = resume(tmp_path, build, device="cpu")
    assert second.finished and second.step >= first.step and second.elapsed_s >= 0.6
    rates = [line["lr"] for line in read_log(tmp_path)]
    assert rates == sorted(rates, reverse=True) and rates[-1] < 0.3 * 1e-2
