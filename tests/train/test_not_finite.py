"""Steps whose loss or gradient is not finite change nothing, are counted, and end the run when they do not end."""

import json

import pytest
import torch
from vector_codec import VectorConfig, VectorSource, make_codec, newest, read_log

from shapecodec.codecs.base import Loss
from shapecodec.train.config import RunConfig
from shapecodec.train.loop import CodecLoss, adamw, train, train_step
from shapecodec.train.parallel import Workers
from shapecodec.train.state import Diverged, RunState


def test_a_nan_step_leaves_weights_moments_and_count(tmp_path):
    codec, run, state = make_codec(VectorConfig(bad_steps=(2,))), RunConfig(steps=9), RunState()
    optimizer, model = adamw(codec, run), CodecLoss(codec, "auto", torch.device("cpu"))
    for step in range(4):
        before = {k: v.clone() for k, v in codec.state_dict().items()}
        moments = [v.clone() for s in optimizer.state.values() for v in s.values()]
        train_step(model, VectorSource(), run, Workers("cpu"), optimizer, state)
        changed = any(not torch.equal(before[k], v) for k, v in codec.state_dict().items())
        assert changed == (step != 2)
        if step == 2:
            after = [v for s in optimizer.state.values() for v in s.values()]
            assert all(torch.equal(a, b) for a, b in zip(moments, after, strict=True))
    state.settle()
    assert state.skipped == [3] and state.step == 4 and len(state.rows) == 3


def test_skipped_steps_are_counted_in_the_log_and_left_out_of_means(tmp_path):
    codec = make_codec(VectorConfig(bad_steps=(1, 2, 5)))
    assert train(codec, VectorSource(), RunConfig(steps=8, log_every=1), tmp_path, device="cpu").finished
    log = read_log(tmp_path)
    assert [line["skipped"] for line in log] == [0, 1, 2, 2, 2, 3, 3, 3]
    assert [line["loss"] is None for line in log] == [False, True, True, False, False, True, False, False]
    assert json.loads((newest(tmp_path) / "state.json").read_text())["skipped"] == [2, 3, 6]
    assert all(p.isfinite().all() for p in codec.parameters())


class InfiniteGradient(type(make_codec())):
    def loss(self, batch, step, rng):
        loss = super().loss(batch, step, rng)
        # d sqrt(x) / dx at 0: the loss is finite, its gradient is not
        return Loss(loss.total + (self.up.weight.sum() * 0).sqrt() if step == 1 else loss.total, loss.terms)


def test_a_finite_loss_with_an_infinite_gradient_is_skipped(tmp_path):
    codec = InfiniteGradient(VectorConfig())
    train(codec, VectorSource(), RunConfig(steps=3, log_every=1), tmp_path, device="cpu")
    assert [line["skipped"] for line in read_log(tmp_path)] == [0, 1, 1]
    assert all(p.isfinite().all() for p in codec.parameters())


@pytest.mark.parametrize("log_every", [1, 4, 100])
def test_many_bad_steps_in_a_row_stop_the_run(tmp_path, log_every):
    codec = make_codec(VectorConfig(bad_steps=(3, *range(10, 99))))
    run = RunConfig(steps=99, log_every=log_every, bad_steps_limit=6, checkpoint_every_steps=5)
    with pytest.raises(Diverged, match=r"6 steps in a row .*: \d+ to \d+"):
        train(codec, VectorSource(), run, tmp_path, device="cpu")
    skipped = json.loads((tmp_path / "diverged.json").read_text())["skipped"]
    assert skipped[:8] == [4, 11, 12, 13, 14, 15, 16, 17][: len(skipped)] and len(skipped) >= 7
    assert newest(tmp_path).name == "step-00000015"


def test_a_short_bad_stretch_before_the_last_read_still_counts(tmp_path):
    codec = make_codec(VectorConfig(bad_steps=(3, 4, 5)))
    with pytest.raises(Diverged, match=r"3 steps in a row .*: 4 to 6"):
        run = RunConfig(steps=20, log_every=20, bad_steps_limit=3, checkpoint_every_s=None)
        train(codec, VectorSource(), run, tmp_path, device="cpu")
