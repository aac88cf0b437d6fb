"""A checkpoint is complete or absent, whatever happens while it is written and whatever happens to it later."""

import errno
import os

import pytest
import torch
from safetensors.torch import load_file
from vector_codec import VectorSource, build, make_codec, newest, read_log, tensor_bytes

from shapecodec.errors import BadFile
from shapecodec.train.checkpoint import CheckpointFailed, damaged_file, latest_checkpoint, save_checkpoint
from shapecodec.train.config import RunConfig
from shapecodec.train.loop import resume, train


class Killed(BaseException):
    """Not an Exception: nothing may clean up after it, as after a kill -9."""


def tensors(value):
    return {name: {"w": torch.full((3, 2), float(value)), "n": torch.tensor(value)} for name in ("model", "optimizer")}


def save(folder, step, keep=2):
    return save_checkpoint(folder, step, tensors(step), {"step": step}, keep=keep)


def interrupt(monkeypatch, call, error):
    """Raise at the n-th call of what makes files durable or visible; returns how many calls there were."""
    count = [0]
    for name in ("fsync", "replace", "rename", "unlink", "rmdir", "mkdir"):
        plain = getattr(os, name)

        def counted(*args, plain=plain, **options):
            count[0] += 1
            if count[0] == call:
                raise error
            return plain(*args, **options)

        monkeypatch.setattr(os, name, counted)
    return count


@pytest.mark.parametrize("keep", [1, 2])
def test_kill_at_every_boundary_of_a_save(tmp_path, monkeypatch, keep):
    call, finished = 0, False
    while not finished:
        call += 1
        folder = tmp_path / str(call)
        save(folder, 1, keep)
        save(folder, 2, keep)
        with monkeypatch.context() as patch:
            interrupt(patch, call, Killed())
            try:
                save(folder, 3, keep)
                finished = True
            except Killed:
                pass
        found = latest_checkpoint(folder)  # and no warning: what a kill leaves does not look like damage
        assert found.name in (("step-00000003",) if finished else ("step-00000002", "step-00000003"))
        assert load_file(found / "model.safetensors")["n"] == int(found.name[-1])
        save(folder, 4, keep)
        kept = sorted(path.name for path in folder.iterdir())
        assert kept == [f"step-0000000{n}" for n in ([4] if keep == 1 else [int(found.name[-1]), 4])]
    assert call > 12


@pytest.mark.parametrize("victim", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
def test_a_flipped_byte_anywhere_is_found(tmp_path, victim):
    save(tmp_path, 1)
    path = save(tmp_path, 2) / victim
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        named = damaged_file(path.parent)
        # A flip inside the manifest may also make it promise something of another file
        assert named == victim or (victim == "manifest.json" and named)
    with pytest.warns(RuntimeWarning, match="step-00000002/.* is damaged"):
        assert latest_checkpoint(tmp_path).name == "step-00000001"
    path.write_bytes(content)
    assert latest_checkpoint(tmp_path) == path.parent


def test_missing_truncated_and_foreign_files_are_found(tmp_path):
    path = save(tmp_path, 1)
    (path / "state.json").write_bytes(b"")
    assert damaged_file(path) == "state.json"
    (path / "state.json").unlink()
    assert damaged_file(path) == "state.json"
    path = save(tmp_path, 2)
    (path / "other").write_bytes(b"")
    assert damaged_file(path) == "other"
    (path / "manifest.json").unlink()
    assert damaged_file(path) == "manifest.json"


def test_only_damaged_checkpoints_are_an_error_not_a_fresh_start(tmp_path):
    (save(tmp_path, 1) / "state.json").unlink()
    with pytest.warns(RuntimeWarning), pytest.raises(BadFile, match="all 1 checkpoints are damaged"):
        latest_checkpoint(tmp_path)
    assert latest_checkpoint(tmp_path / "none") is None


def test_a_damaged_later_checkpoint_does_not_displace_good_ones(tmp_path):
    """The run fell back from 9 to 2 and saves 4: 9 must neither count as kept nor be tried again."""
    for step in (2, 9):
        save(tmp_path, step)
    (tmp_path / "step-00000009" / "state.json").unlink()
    save(tmp_path, 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000004"]


def test_full_disk_at_every_boundary_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    save(tmp_path, 1)
    for call in range(1, 8):
        with monkeypatch.context() as patch:
            interrupt(patch, call, OSError(errno.ENOSPC, "No space left on device"))
            with pytest.raises(CheckpointFailed, match=r"step 2 .*No space left.*earlier checkpoints are intact"):
                save(tmp_path, 2)
        assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
        assert latest_checkpoint(tmp_path).name == "step-00000001"


def fill_disk(patch, call):
    """From the n-th sync on there is no room."""
    plain, left = os.fsync, [call]

    def sync(handle):
        left[0] -= 1
        if left[0] <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(handle)

    patch.setattr(os, "fsync", sync)


def test_full_disk_stops_the_run_and_room_lets_it_go_on(tmp_path, monkeypatch):
    run = RunConfig(steps=9, log_every=2, lr=1e-2, checkpoint_every_steps=4)
    train(make_codec(), VectorSource(), run, tmp_path / "whole", device="cpu")
    for call in (0, 1, 2, 3):
        folder = tmp_path / str(call)
        with monkeypatch.context() as patch:
            fill_disk(patch, 12 + call)
            with pytest.raises(CheckpointFailed, match="make room"):
                train(make_codec(), VectorSource(), run, folder, device="cpu")
        assert newest(folder).name in ("step-00000000", "step-00000004")
        assert resume(folder, build, device="cpu").finished
        assert read_log(folder) == read_log(tmp_path / "whole")
        assert tensor_bytes(folder) == tensor_bytes(tmp_path / "whole")


def test_damage_to_the_newest_checkpoint_costs_steps_but_changes_nothing(tmp_path):
    run = RunConfig(steps=9, log_every=2, lr=1e-2, checkpoint_every_steps=4)
    train(make_codec(), VectorSource(), run, tmp_path / "whole", device="cpu")
    train(make_codec(), VectorSource(), run, tmp_path / "hurt", device="cpu")
    victim = newest(tmp_path / "hurt") / "optimizer.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1] + b"\x55")
    with pytest.warns(RuntimeWarning, match=r"step-00000009/optimizer\.safetensors is damaged"):
        resume(tmp_path / "hurt", build, device="cpu")
    assert read_log(tmp_path / "hurt") == read_log(tmp_path / "whole")
    assert tensor_bytes(tmp_path / "hurt") == tensor_bytes(tmp_path / "whole")
