"""What a run says of itself: log lines, validation with the averaged weights, TensorBoard, the environment."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from vector_codec import VectorCodec, VectorConfig, VectorSource, make_codec, newest, read_log

from shapecodec.errors import BadArgument
from shapecodec.train import trackers
from shapecodec.train.config import RunConfig
from shapecodec.train.export import load_average
from shapecodec.train.loop import train


def test_log_lines_hold_means_and_every_term(tmp_path):
    for every in (1, 5):
        run = RunConfig(steps=12, log_every=every)
        train(make_codec(), VectorSource(), run, tmp_path / str(every), device="cpu")
    single, coarse = read_log(tmp_path / "1"), read_log(tmp_path / "5")
    assert [line["step"] for line in coarse] == [5, 10, 12]
    assert coarse[0]["loss"] == pytest.approx(sum(line["loss"] for line in single[:5]) / 5)
    assert coarse[2]["terms"]["error"] == pytest.approx(sum(line["terms"]["error"] for line in single[10:]) / 2)
    full = read_log(tmp_path / "5", timeless=False)[0]
    assert full["tokens_per_second"] == pytest.approx(8 * full["steps_per_second"])
    assert full.keys() >= {"step", "loss", "terms", "lr", "grad_norm", "skipped", "seconds"}


def test_validation_sees_the_average_in_eval_mode_and_training_goes_on_undisturbed(tmp_path):
    seen = {}

    def look(codec, step):
        assert not codec.training and not torch.is_grad_enabled()
        seen[step] = codec.up.weight.clone()
        return {"distance": float(step), "bad": float("nan")}

    run = RunConfig(steps=10, log_every=5, validate_every_steps=4, lr=1e-2)
    watched, plain = make_codec(VectorConfig(noise=0.1)), make_codec(VectorConfig(noise=0.1))
    train(watched, VectorSource(), run, tmp_path / "watched", device="cpu", validate=look)
    train(plain, VectorSource(), run, tmp_path / "plain", device="cpu")
    assert list(seen) == [4, 8, 10]
    assert torch.equal(seen[10], load_file(newest(tmp_path / "plain") / "ema-0.05.safetensors")["up.weight"])
    assert not torch.equal(seen[10], watched.up.weight)
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), plain.parameters(), strict=True))
    lines = [line for line in read_log(tmp_path / "watched") if "validate" in line]
    assert [line["validate"] for line in lines] == [{"distance": float(s), "bad": None} for s in (4, 8, 10)]


class SavableCodec(VectorCodec):
    def save(self, folder):
        folder.mkdir()
        save_file(self.state_dict(), folder / "model.safetensors")


def test_the_folder_holds_the_averaged_weights_as_a_codec(tmp_path):
    codec, run = SavableCodec(VectorConfig()), RunConfig(steps=8, lr=1e-2, ema_widths=(0.1, 0.05))
    train(codec, VectorSource(), run, tmp_path, device="cpu")
    exported = load_file(tmp_path / "codec" / "model.safetensors")
    averages = {width: make_codec() for width in (0.1, 0.05, None)}
    for width, other in averages.items():
        assert load_average(tmp_path, other, width) == newest(tmp_path)
    assert torch.equal(exported["up.weight"], averages[0.1].up.weight)
    assert not torch.equal(exported["up.weight"], averages[0.05].up.weight)
    assert torch.equal(codec.up.weight, averages[None].up.weight)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    with pytest.raises(BadArgument, match=r"no average of width 0\.2.*one of: 0\.05, 0\.1"):
        load_average(tmp_path, make_codec(), 0.2)


def test_tensorboard_gets_the_same_numbers(tmp_path, monkeypatch):
    scalars = {}

    class Writer:
        def __init__(self, folder, purge_step):
            scalars["folder"] = folder

        def add_scalar(self, name, value, step):
            scalars[name, step] = value

        def close(self):
            scalars["closed"] = True

    class Module:
        SummaryWriter = Writer

    monkeypatch.setattr(trackers, "require", lambda name, extra: Module)
    train(make_codec(), VectorSource(), RunConfig(steps=4, log_every=2, tensorboard=True), tmp_path, device="cpu")
    assert scalars["closed"] and scalars["folder"] == str(tmp_path / "tensorboard")
    for line in read_log(tmp_path):
        assert scalars["loss", line["step"]] == line["loss"]
        assert scalars["terms/error", line["step"]] == line["terms"]["error"]


def test_the_folder_says_what_ran_and_on_what(tmp_path):
    run = RunConfig(steps=1)
    train(make_codec(), VectorSource(seed=5), run, tmp_path, device="cpu")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["codec"]["kind"] == "vector" and config["source"]["seed"] == 5
    assert RunConfig.from_json(config["run"]) == run
    environment = (tmp_path / "environment.txt").read_text()
    assert f"torch: {torch.__version__}" in environment and "command: " in environment


def test_logged_rate_is_the_one_that_the_step_used(tmp_path):
    train(make_codec(), VectorSource(), RunConfig(steps=2, lr=1.0, log_every=1), tmp_path, device="cpu")
    assert [line["lr"] for line in read_log(tmp_path)] == pytest.approx([1.0, 0.5])
