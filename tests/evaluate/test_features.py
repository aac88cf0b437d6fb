import numpy as np
import pytest
import torch
from solids import cube, sphere
from torch.nn.functional import avg_pool2d

from shapecodec.errors import BadArgument, BadFile
from shapecodec.evaluate import features
from shapecodec.evaluate.features import (
    feature_extractor,
    feature_scores,
    frechet_distance,
    kernel_distance,
    rendered_features,
    rendered_scores,
)
from shapecodec.evaluate.views import Views

FEW = Views(3, 48)


class Patches:
    """Mean colours of a coarse grid: enough to tell shapes apart."""

    name = "patches"

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        assert images.min() >= 0 and images.max() <= 1
        return avg_pool2d(images.mean(1, keepdim=True), 12).flatten(1)


def gaussian(count: int, mean: torch.Tensor, covariance: torch.Tensor, seed: int) -> torch.Tensor:
    """Features (count, D) float64 with exactly this mean and covariance."""
    drawn = torch.randn(count, len(mean), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    drawn = drawn - drawn.mean(0)
    white = drawn @ torch.linalg.inv(torch.linalg.cholesky(drawn.T @ drawn / (count - 1))).T
    return white @ torch.linalg.cholesky(covariance).T + mean


def random_covariance(width: int, seed: int) -> torch.Tensor:
    root = torch.randn(width, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return root @ root.T + 0.1 * torch.eye(width, dtype=torch.float64)


def test_frechet_of_gaussians_with_a_formula():
    """Axis-aligned: the squares of the differences of means and of standard deviations."""
    means = torch.tensor([[0.0, 1, 2], [1, 1, -1]], dtype=torch.float64)
    spreads = torch.tensor([[1.0, 2, 3], [2, 0.5, 3]], dtype=torch.float64)
    one, two = (gaussian(50, means[k], torch.diag(spreads[k] ** 2), k) for k in range(2))
    expected = (means[0] - means[1]).square().sum() + (spreads[0] - spreads[1]).square().sum()
    assert frechet_distance(one, two) == pytest.approx(float(expected), rel=1e-9)
    assert frechet_distance(two, one) == pytest.approx(float(expected), rel=1e-9)


def test_frechet_of_covariances_that_do_not_commute():
    first, second = random_covariance(6, 0), random_covariance(6, 1)
    one, two = gaussian(40, torch.zeros(6).double(), first, 2), gaussian(70, torch.ones(6).double(), second, 3)
    roots = np.sqrt(np.linalg.eigvals((first @ second).numpy()).real).sum()
    expected = 6 + float(first.trace() + second.trace()) - 2 * roots
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-9)


def test_fewer_pictures_than_features_fail():
    generator = torch.Generator().manual_seed(0)
    one, two = torch.randn(7, 50, generator=generator), torch.randn(9, 50, generator=generator) + 0.3
    covariances = [torch.cov(part.double().T).numpy() for part in (one, two)]
    values = np.linalg.eigvals(covariances[0] @ covariances[1])
    shift = float((one.double().mean(0) - two.double().mean(0)).square().sum())
    expected = shift + sum(np.trace(c) for c in covariances) - 2 * np.sqrt(np.maximum(values.real, 0)).sum()
    assert frechet_distance(one, two) == pytest.approx(expected, rel=1e-5)


def test_a_set_differs_from_itself():
    one = torch.randn(30, 20, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(one, one.flip(0)) < 1e-9
    assert frechet_distance(one, one + 0.5) == pytest.approx(20 * 0.25, rel=1e-5)


def test_kernel_distance_against_counting():
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(5, 4)), generator.normal(size=(6, 4)) + 0.5

    def kernel(a, b):
        return (a @ b / 4 + 1) ** 3

    within = [np.mean([kernel(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j]) for s in (x, y)]
    expected = sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y])
    assert kernel_distance(torch.from_numpy(x), torch.from_numpy(y)) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_is_biased():
    draws = torch.randn(60, 2, 10, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = torch.tensor([kernel_distance(*pair) for pair in draws])
    assert abs(float(found.mean())) < 3 * float(found.std()) / 60**0.5 and (found < 0).any()


def test_features_that_do_not_fit():
    for one, two in (
        (torch.zeros(3, 4), torch.zeros(3, 5)),
        (torch.zeros(1, 4), torch.zeros(3, 4)),
        (torch.zeros(4),) * 2,
    ):
        with pytest.raises(BadArgument):
            feature_scores(one, two)


def test_shapes_look_alike():
    round_ones = [sphere(radius, 6) for radius in (0.2, 0.3, 0.4, 0.5)]
    edged = [cube(2, half=half) for half in (0.2, 0.3, 0.4, 0.5)]
    alike = rendered_scores(round_ones, iter(round_ones), Patches(), FEW)
    apart = rendered_scores(edged, round_ones, Patches(), FEW)
    assert alike["frechet"] < 1e-9 and apart["frechet"] > 0.1 and apart["kernel"] > alike["kernel"]
    assert alike["floor"]["frechet"] < 1e-6  # spheres of any size fill the picture
    assert apart["extractor"] == "patches" and apart["views"]["name"] == "fibonacci-3" and apart["generated"] == 4
    assert rendered_scores(edged, round_ones[:3], Patches(), FEW)["floor"] is None
    with pytest.raises(BadArgument):
        rendered_features([], Patches(), FEW)


def test_absent_weights_give_a_distance(tmp_path, monkeypatch):
    monkeypatch.setattr(features, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(
        BadFile, match=r"weights of 'dinov2-base' are not on this machine.*hf download facebook/dinov2-base"
    ):
        feature_extractor("dinov2-base")
    with pytest.raises(BadFile, match=r"config\.json"):
        feature_extractor("dinov2-small", folder=tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(BadFile, match=r"model\.safetensors"):
        feature_extractor("dinov2-small", folder=tmp_path)
    with pytest.raises(BadArgument, match="dinov2-large"):
        feature_extractor("inception")


def test_network_in_a_folder_gives_other_features(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=224)
    model = transformers.Dinov2Model(config).eval()
    model.save_pretrained(tmp_path)
    images = torch.rand(3, 3, 224, 224)
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    extractor = feature_extractor("dinov2-small", folder=tmp_path)
    with torch.no_grad():
        expected = model((images - mean[:, None, None]) / spread[:, None, None]).last_hidden_state[:, 0]
    torch.testing.assert_close(extractor(images), expected)
    assert extractor(torch.rand(2, 3, 90, 90)).shape == (2, 32)
