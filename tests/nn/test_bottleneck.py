"""KL bottleneck: closed form, sampling and start."""

import torch
from torch.distributions import Normal, kl_divergence

from shapecodec.nn.bottleneck import Gaussian, KLBottleneck
from shapecodec.nn.norm import LayerNorm32
from shapecodec.rng import rng


def test_kl_differs_from_the_closed_form():
    mean, logvar = torch.randn(50, 4, dtype=torch.float64), torch.randn(50, 4, dtype=torch.float64)
    expected = kl_divergence(Normal(mean, (0.5 * logvar).exp()), Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(Gaussian(mean, logvar).kl(), expected)


def test_kl_of_no_tokens_is_nan():
    assert float(Gaussian(torch.zeros(0, 4), torch.zeros(0, 4)).kl()) == 0


def test_samples_have_another_spread_or_are_not_repeatable():
    gaussian = Gaussian(torch.full((20_000, 2), 3.0), torch.full((20_000, 2), -6.0))
    sample = gaussian.sample(rng(1))
    assert torch.equal(sample, gaussian.sample(rng(1)))
    assert not torch.equal(sample, gaussian.sample(rng(2)))
    assert abs(float(sample.mean()) - 3) < 2e-3
    assert abs(float(sample.std()) - 0.0498) < 2e-3


def test_start_hides_the_mean_in_noise():
    gaussian = KLBottleneck(64, 16)(torch.randn(500, 64))
    assert gaussian.mean.shape == gaussian.logvar.shape == (500, 16)
    assert abs(float(gaussian.logvar.detach().mean()) + 6) < 0.3


def test_autocast_rounds_the_latents():
    with torch.autocast("cpu", torch.bfloat16):
        gaussian = KLBottleneck(64, 16)(torch.randn(5, 64).bfloat16())
    assert gaussian.mean.dtype == gaussian.logvar.dtype == torch.float32


def test_huge_logvar_overflows():
    module = KLBottleneck(8, 2)
    torch.nn.init.constant_(module.project.bias, 1e6)
    assert bool(module(torch.randn(3, 8)).kl().isfinite())


def test_norm_of_half_inputs_is_taken_in_half():
    x = (torch.randn(10, 64) + 100).bfloat16()
    norm = LayerNorm32(64)
    assert norm(x).dtype == torch.bfloat16
    torch.testing.assert_close(norm(x), norm(x.float()).bfloat16())
