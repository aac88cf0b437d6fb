"""However a global batch is cut - accumulation, processes - the same items are seen and the same weights come out."""

import socket

import pytest
import torch
from run_vectors import TroubledSource
from safetensors.torch import load_file
from vector_codec import VectorConfig, VectorSource, make_codec, newest, read_log, tensor_bytes

from shapecodec.train.config import RunConfig
from shapecodec.train.loop import adamw, train

# The order in which float32 gradients are added differs; 30 steps of Adam keep that below
TOLERANCE = 2e-5
SETTINGS = {"steps": 30, "lr": 1e-2, "log_every": 10, "checkpoint_every_s": None}


def weights(folder):
    return torch.cat([value.flatten() for value in load_file(newest(folder) / "model.safetensors").values()])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_two_processes_equal_one_even_where_one_of_them_sees_a_nan(tmp_path, launch, outcome, accumulation):
    TroubledSource.nan_step = 12
    train(make_codec(), TroubledSource(), RunConfig(**SETTINGS), tmp_path / "one", device="cpu")
    TroubledSource.nan_step = -1
    folder, settings = tmp_path / "two", {**SETTINGS, "accumulation": accumulation, "_nan_step": 12}
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    common |= {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"}
    processes = [launch(folder, settings, RANK=str(r), LOCAL_RANK=str(r), **common) for r in (0, 1)]
    ends = [outcome(process, folder, rank) for rank, process in enumerate(processes)]
    assert ends[0] == ends[1] and ends[0]["finished"]  # every weight, to the last bit
    assert torch.allclose(weights(folder), weights(tmp_path / "one"), atol=TOLERANCE, rtol=0)
    for two, one in zip(read_log(folder), read_log(tmp_path / "one"), strict=True):
        assert two["step"] == one["step"] and two["skipped"] == one["skipped"] == (two["step"] > 10)
        assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)


@pytest.mark.parametrize("accumulation", [2, 8])
def test_accumulation_equals_the_large_batch(tmp_path, accumulation):
    train(make_codec(), VectorSource(), RunConfig(**SETTINGS), tmp_path / "one", device="cpu")
    run = RunConfig(**SETTINGS, accumulation=accumulation)
    train(make_codec(), VectorSource(), run, tmp_path / "many", device="cpu")
    assert torch.allclose(weights(tmp_path / "many"), weights(tmp_path / "one"), atol=TOLERANCE, rtol=0)
    for many, one in zip(read_log(tmp_path / "many"), read_log(tmp_path / "one"), strict=True):
        assert many["loss"] == pytest.approx(one["loss"], rel=1e-4)
        assert many["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
        assert many["terms"] == pytest.approx(one["terms"], rel=1e-4)


@pytest.mark.parametrize("accumulation", [1, 2, 4])
def test_the_same_items_are_seen_in_the_same_order(tmp_path, accumulation):
    seen = []

    class Watched(VectorSource):
        def batch(self, step, rank, world, device):
            seen.extend(self.indices(step, rank, world))
            return super().batch(step, rank, world, device)

    train(make_codec(), Watched(), RunConfig(steps=3, accumulation=accumulation), tmp_path, device="cpu")
    assert seen == list(range(24))


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(hash(name))  # the global state from before must not matter
        codec = make_codec(VectorConfig(noise=0.2))
        torch.randn(len(name) * 7)
        train(codec, VectorSource(), RunConfig(seed=seed, steps=5), tmp_path / name, device="cpu")
    assert tensor_bytes(tmp_path / "a") == tensor_bytes(tmp_path / "b") != tensor_bytes(tmp_path / "c")


def test_weight_decay_leaves_norms_and_biases_alone():
    codec = make_codec()
    decay = {
        id(p): group["weight_decay"] for group in adamw(codec, RunConfig(steps=1)).param_groups for p in group["params"]
    }
    assert {name: decay[id(p)] for name, p in codec.named_parameters()} == {
        "down.weight": 0.01,
        "down.bias": 0.0,
        "norm.weight": 0.0,
        "norm.bias": 0.0,
        "up.weight": 0.01,
        "up.bias": 0.0,
    }
