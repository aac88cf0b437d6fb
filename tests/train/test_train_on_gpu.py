"""Training on CUDA: the host never waits inside a step, bad steps are skipped on the device, and runs resume."""

import pytest
import torch
from vector_codec import VectorConfig, VectorSource, build, make_codec, newest, read_log

from shapecodec.train.config import RunConfig
from shapecodec.train.ema import Ema
from shapecodec.train.loop import CodecLoss, adamw, resume, train, train_step
from shapecodec.train.parallel import Workers
from shapecodec.train.state import RunState

pytestmark = pytest.mark.gpu


class Resident(VectorSource):
    """Makes its batches beforehand, so that only the loop's own work is watched."""

    def fill(self, steps):
        object.__setattr__(self, "made", [VectorSource.batch(self, s, 0, 1, "cuda") for s in range(steps)])
        return self

    def batch(self, step, rank, world, device):
        return self.made[step]


@pytest.fixture
def sync_is_an_error():
    def forbid(on):
        torch.cuda.set_sync_debug_mode("error" if on else "default")

    yield forbid
    forbid(False)


def test_the_host_does_not_wait_within_steps(sync_is_an_error):
    codec = make_codec(VectorConfig(noise=0.1, bad_steps=(3,))).cuda()
    run, state, workers = RunConfig(steps=8, accumulation=2), RunState(), Workers("cuda")
    optimizer, ema, model = adamw(codec, run), Ema(codec, (0.05,)), CodecLoss(codec, "auto", torch.device("cuda"))
    source = Resident().fill(8)
    for step in range(8):
        sync_is_an_error(step > 1)  # the first steps make the optimizer's state and load kernels
        train_step(model, source, run, workers, optimizer, state)
        ema.update(state.step)
    sync_is_an_error(False)
    state.settle()
    assert state.skipped == [4] and len(state.rows) == 7
    assert all(p.isfinite().all() for p in codec.parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cuda_learns_like_the_cpu(tmp_path, precision):
    run = RunConfig(steps=100, lr=1e-2, log_every=20, precision=precision)
    train(make_codec(), VectorSource(), run, tmp_path / "cuda", device="cuda")
    train(make_codec(), VectorSource(), run, tmp_path / "cpu", device="cpu")
    for cuda, cpu in zip(read_log(tmp_path / "cuda"), read_log(tmp_path / "cpu"), strict=True):
        assert cuda["loss"] == pytest.approx(cpu["loss"], rel=1e-3 if precision == "fp32" else 2e-2)


def test_a_stopped_run_goes_on_with_its_moments_and_averages(tmp_path):
    run = RunConfig(steps=60, lr=1e-2, log_every=20, precision="fp32", checkpoint_every_steps=25)
    train(make_codec(), VectorSource(), run, tmp_path / "whole", device="cuda")

    class Broken(VectorSource):
        def batch(self, step, rank, world, device):
            if step == 40:
                raise InterruptedError
            return super().batch(step, rank, world, device)

    with pytest.raises(InterruptedError):
        train(make_codec(), Broken(), run, tmp_path / "parts", device="cuda")
    assert newest(tmp_path / "parts").name == "step-00000025"
    assert resume(tmp_path / "parts", build, device="cuda").finished
    for parts, whole in zip(read_log(tmp_path / "parts"), read_log(tmp_path / "whole"), strict=True):
        assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-4)
