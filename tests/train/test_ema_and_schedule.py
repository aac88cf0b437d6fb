"""Averages against their closed form, learning rates against values worked out by hand, settings against nonsense."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from shapecodec.errors import BadArgument
from shapecodec.train.config import RunConfig, to_json
from shapecodec.train.ema import Ema, power_exponent
from shapecodec.train.schedule import learning_rate, run_progress


@pytest.mark.parametrize(("width", "exponent"), [(0.05, 16.97), (0.10, 6.94), (0.25, 0.72)])
def test_exponent_of_a_width(width, exponent):
    """The first two are printed in arXiv 2312.02696, section 3.2; all are checked by integrating the profile."""
    g = power_exponent(width)
    assert g == pytest.approx(exponent, abs=0.01)
    times = (np.arange(100_000) + 0.5) / 100_000
    weights = times**g / (times**g).sum()
    mean = (weights * times).sum()
    assert np.sqrt((weights * (times - mean) ** 2).sum()) == pytest.approx(width, rel=1e-3)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.3, float("nan")])
def test_impossible_widths(width):
    with pytest.raises(BadArgument, match="outside"):
        power_exponent(width)


def test_average_equals_its_closed_form():
    module, generator = nn.Linear(3, 2), torch.Generator().manual_seed(0)
    ema, history, steps = Ema(module, (0.05, 0.2)), [], 200
    for step in range(1, steps + 1):
        with torch.no_grad():
            module.weight.add_(torch.randn(2, 3, generator=generator) * 0.1)
        history.append(module.weight.detach().double().clone())
        ema.update(step)
    for width in (0.05, 0.2):
        power = power_exponent(width) + 1
        edges = (torch.arange(steps + 1, dtype=torch.float64) / steps) ** power
        expected = (edges.diff()[:, None, None] * torch.stack(history)).sum(0)
        assert torch.allclose(ema.state_dict(width)["weight"].double(), expected, atol=1e-5)


def test_swapping_gives_the_average_and_then_the_very_same_weights_back():
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    module[0].bias.requires_grad_(False)
    ema = Ema(module, (0.1, 0.05))
    ema.update(1)
    average = {k: v.clone() for k, v in ema.state_dict(0.1).items()}
    with torch.no_grad():
        module[0].weight.add_(1)
        module[0].bias.add_(1)
    own = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(InterruptedError), ema.swapped():
        assert torch.equal(module[0].weight, average["0.weight"])
        assert torch.equal(module[0].bias, own["0.bias"])  # frozen: not averaged
        raise InterruptedError
    assert all(torch.equal(v, own[k]) for k, v in module.state_dict().items())
    assert torch.equal(ema.state_dict(0.1)["0.weight"], average["0.weight"])
    assert ema.state_dict(0.1).keys() == own.keys()


def test_cosine_over_steps():
    run = RunConfig(steps=100, lr=2.0, final_factor=0.1)
    at = {step: learning_rate(run, step, run_progress(run, step, 1e9)) for step in (0, 25, 50, 100)}
    assert at == pytest.approx({0: 2.0, 25: 2 * (0.1 + 0.9 * (1 + 0.5**0.5) / 2), 50: 2 * 0.55, 100: 0.2})


def test_warm_up_begins_above_zero_and_ends_at_the_full_rate():
    run = RunConfig(steps=1000, lr=1.0, warmup_steps=4, schedule="constant")
    assert [learning_rate(run, step, 0.0) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_progress_follows_the_clock_the_steps_or_the_further_of_both():
    assert run_progress(RunConfig(time_budget_s=10), 10**9, 2.5) == 0.25
    assert run_progress(RunConfig(steps=10), 4, 1e9) == 0.4
    assert run_progress(RunConfig(steps=10, time_budget_s=10), 4, 2.5) == 0.4
    assert run_progress(RunConfig(steps=10, time_budget_s=10), 4, 25) == 1.0


def test_settings_survive_json():
    run = RunConfig(steps=3, betas=(0.8, 0.9), ema_widths=(0.1, 0.05), clip_norm=None, schedule="constant")
    assert RunConfig.from_json(to_json(run)) == run
    with pytest.raises(BadArgument, match="unknown settings: learning_rate"):
        RunConfig.from_json({"steps": 3, "learning_rate": 1.0})


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"steps": 0},
        {"steps": 1, "lr": -1.0},
        {"steps": 1, "lr": float("nan")},
        {"time_budget_s": 0.0},
        {"steps": 1, "accumulation": 0},
        {"steps": 1, "final_factor": 1.5},
        {"steps": 1, "schedule": "linear"},
        {"steps": 1, "precision": "fp16"},
        {"steps": 1, "keep": 0},
    ],
)
def test_settings_out_of_range(bad):
    with pytest.raises(BadArgument):
        RunConfig(**bad)


def test_what_json_cannot_hold_is_refused():
    @dataclasses.dataclass
    class Config:
        module: object

    with pytest.raises(BadArgument, match="Linear cannot be written"):
        to_json({"a": [Config(nn.Linear(1, 1))]})
