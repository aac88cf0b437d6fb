"""EDM and rectified flow against what is known in closed form: preconditioning, and tokens that are normally distributed."""

import math

import pytest
import torch

from shapecodec.errors import BadArgument
from shapecodec.generate.edm import Edm
from shapecodec.generate.flow import Flow
from shapecodec.generate.guidance import Guidance
from shapecodec.generate.sets import DenseSets, PackedSets

DENSE = DenseSets()
MEAN, STD = 0.7, 0.4  # of the tokens


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def perfect_edm(edm):
    """The network F whose denoiser is the expectation of N(MEAN, STD^2) tokens."""

    def network(x, label):
        sigma = (4 * label).exp()
        skip, out, scale, _ = (c[:, None, None] for c in edm.coefficients(sigma))
        sigma, x = sigma[:, None, None], x / scale
        return ((STD**2 * x + sigma**2 * MEAN) / (STD**2 + sigma**2) - skip * x) / out

    return network


def perfect_flow(x, times):
    """The velocity of N(MEAN, STD^2) tokens."""
    t = times[:, None, None]
    rest = (x - (1 - t) * MEAN) / ((1 - t) ** 2 * STD**2 + t**2)
    return t * rest - (MEAN + (1 - t) * STD**2 * rest)


@pytest.mark.parametrize("data", [0.5, 1.0, 3.0])
def test_preconditioning_changes_the_variance(data):
    edm = Edm(data=data)
    sigma = torch.tensor([0.002, 0.1, data, 5.0, 80.0], dtype=torch.float64)
    skip, out, scale, label = edm.coefficients(sigma)
    total = sigma**2 + data**2
    assert torch.allclose(scale**2 * total, torch.ones(5, dtype=torch.float64))  # inputs: EDM eq. 117
    target = (
        1 - skip
    ) ** 2 * data**2 + skip**2 * sigma**2  # variance of (clean - c_skip x), which F answers times c_out
    assert torch.allclose(target / out**2, torch.ones(5, dtype=torch.float64))  # eq. 120
    for other in (0.9, 1.1):  # c_skip makes c_out as small as it can be: eq. 125
        assert bool(((1 - other * skip) ** 2 * data**2 + (other * skip) ** 2 * sigma**2 > target).all())
    assert torch.allclose((4 * label).exp(), sigma)


def test_silent_network_has_another_loss_than_one():
    edm = Edm()
    clean, noise = normal(4096, 2, 8), normal(4096, 2, 8, seed=1)
    for sigma in (0.01, 1.0, 30.0):
        loss = edm.loss(lambda x, label: torch.zeros_like(x), clean, noise, torch.full((4096,), sigma), DENSE)
        assert loss.shape == (4096,) and float(loss.mean()) == pytest.approx(1.0, abs=0.02)


def test_loss_is_not_least_at_the_expectation():
    edm, clean = Edm(), MEAN + STD * normal(8192, 1, 4)
    noise, best = normal(8192, 1, 4, seed=1), perfect_edm(Edm())
    for sigma in (0.05, 0.5, 5.0):
        times = torch.full((8192,), sigma)
        here = float(edm.loss(best, clean, noise, times, DENSE).mean())
        expected = STD**2 * sigma**2 / (STD**2 + sigma**2) * (sigma**2 + 1) / sigma**2
        assert here == pytest.approx(expected, rel=0.03)
        for shift in (-0.1, 0.1):
            assert here < float(edm.loss(lambda x, c, s=shift: best(x, c) + s, clean, noise, times, DENSE).mean())


def test_flow_loss_is_not_least_at_the_expectation():
    flow, clean, noise = Flow(), MEAN + STD * normal(8192, 1, 4), normal(8192, 1, 4, seed=1)
    for time in (0.1, 0.5, 0.9):
        times = torch.full((8192,), time)
        here = float(flow.loss(perfect_flow, clean, noise, times, DENSE).mean())
        expected = STD**2 / ((1 - time) ** 2 * STD**2 + time**2)
        assert here == pytest.approx(expected, rel=0.03)
        for shift in (-0.1, 0.1):
            worse = flow.loss(lambda x, c, s=shift: perfect_flow(x, c) + s, clean, noise, times, DENSE)
            assert here < float(worse.mean())


def test_levels_of_edm():
    levels = Edm().levels(18)
    assert (
        len(levels) == 19 and levels[0] == pytest.approx(80) and levels[-2] == pytest.approx(0.002) and levels[-1] == 0
    )
    middle = (80 ** (1 / 7) + 9 / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert levels[9] == pytest.approx(middle)
    assert Edm().levels(1) == [80.0, 0.0]


def test_shifted_times():
    assert Flow(shift=3.0).levels(4) == pytest.approx([1.0, 0.9, 0.75, 0.5, 0.0])
    assert Flow().levels(2) == [1.0, 0.5, 0.0]


def test_training_times_have_another_distribution():
    draws = normal(100_000)
    log = Edm(mean=-0.4, std=1.4).times(draws).log()
    logit = torch.logit(Flow(mean=1.0, std=0.5).times(draws).double())
    assert (float(log.mean()), float(log.std())) == pytest.approx((-0.4, 1.4), abs=0.02)
    assert (float(logit.mean()), float(logit.std())) == pytest.approx((1.0, 0.5), abs=0.02)


@pytest.mark.parametrize("process", [Edm(), Flow(solver="heun"), Flow(), Flow(shift=3.0, solver="heun")])
def test_sampler_misses_mean_or_variance(process):
    network = perfect_edm(process) if isinstance(process, Edm) else perfect_flow
    made = process.sample(network, normal(2000, 4, 4), DENSE, steps=64)
    assert made.dtype == torch.float32
    assert (float(made.mean()), float(made.std())) == pytest.approx((MEAN, STD), abs=0.012)


def test_heun_is_of_first_order():
    noise, errors = normal(64, 4, 4), {}
    edm = Edm(most=20.0)
    exact = MEAN + STD * (20 * noise.double() - MEAN) / math.hypot(STD, 20)  # where the line through the noise ends
    for steps in (32, 64):
        errors[steps] = float((edm.sample(perfect_edm(edm), noise, DENSE, steps=steps) - exact).abs().mean())
    assert errors[64] < errors[32] / 3
    flow = {}
    for solver, steps in (("euler", 64), ("heun", 32), ("heun", 64)):
        made = Flow(solver=solver).sample(perfect_flow, noise, DENSE, steps=steps)
        flow[solver, steps] = float((made - MEAN - STD * noise).abs().mean())
    assert flow["heun", 64] < flow["heun", 32] / 3 and flow["heun", 64] < flow["euler", 64] / 5


def test_guidance_of_one_is_not_none():
    asked = []

    def without(x, label):
        asked.append(float(label[0]))
        return perfect_flow(x, label) + 0.5

    noise = normal(2, 3, 4)

    def run(guidance):
        asked.clear()
        return Flow().sample(perfect_flow, noise, DENSE, steps=8, guidance=guidance, without=without)

    plain = Flow().sample(perfect_flow, noise, DENSE, steps=8)
    assert torch.equal(run(Guidance(1.0)), plain) and asked == []
    assert not torch.equal(run(Guidance(2.0)), plain) and len(asked) == 8
    # v_u + 2 (v_c - v_u) = v_c - 0.5 in every step, and the flow is affine
    run(Guidance(2.0, (0.4, 0.8)))
    assert asked == pytest.approx([0.75, 0.625, 0.5])


def test_guided_edm_differs_from_the_sum_of_its_parts():
    edm, noise = Edm(), normal(2, 3, 4)
    network = perfect_edm(edm)
    doubled = edm.sample(lambda x, c: 3 * network(x, c) - 2 * torch.tanh(x), noise, DENSE, steps=6)
    guided = edm.sample(network, noise, DENSE, steps=6, guidance=Guidance(3.0), without=lambda x, c: torch.tanh(x))
    assert torch.allclose(doubled, guided, atol=1e-5)


def test_progress_is_not_what_was_promised():
    for process in (Edm(), Flow(), Flow(solver="heun")):
        for steps in (1, 5):
            calls = []
            network = perfect_edm(process) if isinstance(process, Edm) else perfect_flow
            process.sample(network, normal(1, 2, 4), DENSE, steps=steps, progress=lambda c=calls: c.append(1))
            assert len(calls) == process.evaluations(steps)


def test_packed_sets_are_sampled_otherwise_than_dense_ones():
    noise = normal(3, 5, 4)
    packed = PackedSets(torch.tensor([0, 5, 10, 15]), "cpu")

    def rows(x, label):
        return torch.tanh(x) * packed.spread(label)

    for process in (Edm(), Flow()):
        dense = process.sample(lambda x, label: torch.tanh(x) * label[:, None, None], noise, DENSE, steps=4)
        flat = process.sample(rows, noise.flatten(0, 1), packed, steps=4)
        assert torch.allclose(flat.view(3, 5, 4), dense, atol=1e-6)
        times = torch.tensor([0.2, 0.5, 0.9])
        clean = normal(3, 5, 4, seed=2)
        one = process.loss(lambda x, label: torch.tanh(x), clean, noise, times, DENSE)
        two = process.loss(lambda x, label: torch.tanh(x), clean.flatten(0, 1), noise.flatten(0, 1), times, packed)
        assert torch.allclose(one, two, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Edm(least=1.0, most=0.5),
        lambda: Edm(std=0.0),
        lambda: Flow(shift=0.0),
        lambda: Flow(solver="rk4"),
        lambda: Guidance(-1.0),
        lambda: Guidance(2.0, (1.0, 0.0)),
        lambda: Edm().levels(0),
        lambda: Flow().levels(0),
        lambda: PackedSets(torch.tensor([0, 3, 3]), "cpu"),
    ],
)
def test_nonsense_is_taken(make):
    with pytest.raises(BadArgument):
        make()
