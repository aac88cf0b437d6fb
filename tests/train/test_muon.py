"""Muon: its iteration against the singular value decomposition, its parts against torch's own, and steps that do not count."""

import pytest
import torch
from vector_codec import VectorCodec, VectorConfig, VectorSource, newest, read_log

from shapecodec.train.config import RunConfig
from shapecodec.train.loop import make_optimizer, train
from shapecodec.train.muon import MATCH_ADAMW, Muon, orthogonalised


@pytest.mark.parametrize("shape", [(3, 64, 64), (2, 40, 96), (2, 96, 40)])
def test_singular_values_that_stay_apart(shape):
    left, _, right = torch.linalg.svd(
        torch.randn(shape, generator=torch.Generator().manual_seed(0)), full_matrices=False
    )
    matrices = left * torch.logspace(0.5, -1, left.shape[-1]) @ right  # a spectrum over a factor of 30
    made = orthogonalised(matrices).float()
    values = torch.linalg.svdvals(made)
    assert values.min() > 0.6 and values.max() < 1.3
    along = torch.einsum("krs,krc,ksc->ks", left, made, right)  # the singular vectors are those of the input
    assert (along - 1).abs().max() < 0.4


def test_vectors_that_take_another_step_than_adamw():
    ours, theirs = (torch.nn.Sequential(torch.nn.Linear(8, 5), torch.nn.LayerNorm(5)) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    one = Muon(ours.parameters(), 1e-2, weight_decay=0.1)
    decayed = [p for p in theirs.parameters() if p.ndim >= 2]
    plain = [p for p in theirs.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    two = torch.optim.AdamW(groups, lr=1e-2)
    for step in range(5):
        x = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
        for model, optimizer in ((ours, one), (theirs, two)):
            optimizer.zero_grad()
            model(x).square().sum(1).sin().mean().backward()
            optimizer.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4)


def test_a_matrix_step_of_another_length_than_adamws():
    weight = torch.nn.Parameter(torch.zeros(64, 128))
    optimizer = Muon([weight], 1e-3, weight_decay=0.0)
    weight.grad = torch.randn(64, 128, generator=torch.Generator().manual_seed(1))
    optimizer.step()
    # full rank: 64 singular values of about one over 64 x 128 entries, times 0.2 sqrt(128)
    assert float(weight.detach().square().mean().sqrt()) == pytest.approx(1e-3 * MATCH_ADAMW, rel=0.2)


def test_a_nan_gradient_that_reaches_the_moments():
    weight, bias = torch.nn.Parameter(torch.randn(64, 64)), torch.nn.Parameter(torch.randn(64))
    optimizer = Muon([weight, bias], 1e-2)
    for bad in (0.0, 1.0, 0.0):
        before = [weight.detach().clone(), bias.detach().clone()]
        for p in (weight, bias):
            p.grad = torch.full_like(p, float("nan")) if bad else torch.randn_like(p)
        optimizer.found_inf = torch.tensor(bad)
        optimizer.step()
        for old, new in zip(before, (weight, bias), strict=True):
            assert torch.equal(old, new) == bool(bad)
    assert all(value.isfinite().all() for state in optimizer.state.values() for value in state.values())
    assert float(optimizer.state[bias]["step"]) == 2


def make():
    torch.manual_seed(3)
    return VectorCodec(VectorConfig(width=80, hidden=64, noise=0.1))


def test_a_resumed_run_that_differs(tmp_path):
    run = RunConfig(steps=12, lr=1e-2, optimizer="muon", checkpoint_every_steps=4, log_every=3)
    source = VectorSource(width=80)
    train(make(), source, run, tmp_path / "whole", device="cpu")
    train(make(), source, run, tmp_path / "parts", device="cpu", stop_after_s=0.0)
    train(make(), source, run, tmp_path / "parts", device="cpu", resume=True)
    ends = [(newest(tmp_path / name) / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert ends[0] == ends[1]
    losses = [line["loss"] for line in read_log(tmp_path / "whole")]
    assert losses[-1] < losses[0]


def test_every_parameter_belongs_to_one_group():
    codec = make()
    optimizer = make_optimizer(codec, RunConfig(steps=1, optimizer="muon"))
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in codec.parameters())
    assert {group["kind"] for group in optimizer.param_groups} == {"muon", "adamw"}
