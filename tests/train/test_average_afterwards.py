"""Averages chosen after the run against those that were kept through it."""

import numpy as np
import pytest
import torch
from vector_codec import VectorSource, make_codec

from shapecodec.errors import BadArgument
from shapecodec.train.afterwards import average_afterwards, combination, load_afterwards, profile_products
from shapecodec.train.checkpoint import _manifest
from shapecodec.train.config import RunConfig
from shapecodec.train.ema import power_exponent
from shapecodec.train.export import load_average
from shapecodec.train.loop import train


def test_products_differ_from_integrals():
    exponents, steps = np.array([16.97, 6.94, 6.94]), np.array([40.0, 100.0, 100.0])
    times = (np.arange(200_000) + 0.5) / 200_000 * 100

    def profile(step, exponent):
        return np.where(times <= step, (exponent + 1) * times**exponent / step ** (exponent + 1), 0.0)

    for step, exponent in ((100.0, 3.0), (60.0, 9.0)):
        found = profile_products(steps, exponents, step, exponent)
        for value, at, power in zip(found, steps, exponents, strict=True):
            assert value == pytest.approx((profile(at, power) * profile(step, exponent)).mean() * 100, rel=1e-3)


def test_combination_of_one_is_another():
    held = [(step, width) for step in range(10, 101, 10) for width in (0.05, 0.1)]
    for index, (step, width) in enumerate(held[-4:], len(held) - 4):
        factors = combination(held, step, width)
        assert np.allclose(factors, np.eye(len(held))[index], atol=1e-6)
    factors, times = combination(held, 100, 0.15), (np.arange(100_000) + 0.5) / 1000
    total = np.zeros_like(times)
    for factor, (step, width) in zip(factors, held, strict=True):
        power = power_exponent(width)
        total += factor * np.where(times <= step, (power + 1) * times**power / step ** (power + 1), 0)
    power = power_exponent(0.15)
    wanted = (power + 1) * times**power / 100 ** (power + 1)
    assert np.linalg.norm(total - wanted) < 0.03 * np.linalg.norm(wanted)


def test_average_differs_from_the_one_kept_in_the_run(tmp_path):
    run = RunConfig(steps=160, lr=0.02, ema_widths=(0.05, 0.1, 0.15), checkpoint_every_steps=16, keep=20)
    train(make_codec(), VectorSource(), run, tmp_path / "run", device="cpu")
    kept, made = make_codec(seed=1), make_codec(seed=2)
    load_average(tmp_path / "run", kept, 0.15)
    for path in (tmp_path / "run" / "checkpoints").glob("step-*"):  # what is to be found again must not be given
        (path / "ema-0.15.safetensors").unlink()
        (path / "manifest.json").write_bytes(_manifest(path))
    load_afterwards(tmp_path / "run", made, 0.15)
    other = make_codec(seed=3)
    load_average(tmp_path / "run", other, 0.05)
    here, there = (
        sum(float((a - b).detach().square().sum()) for a, b in zip(kept.parameters(), each.parameters(), strict=True))
        ** 0.5
        for each in (made, other)
    )
    assert here < 0.25 * there


def test_run_without_averages(tmp_path):
    train(make_codec(), VectorSource(), RunConfig(steps=2, ema_widths=()), tmp_path / "run", device="cpu")
    with pytest.raises(BadArgument, match="no checkpoint holds an average"):
        average_afterwards(tmp_path / "run", 0.1)
    with pytest.raises(BadArgument, match="no averages"):
        combination([], 10, 0.1)
    assert torch.isfinite(make_codec().up.weight).all()
