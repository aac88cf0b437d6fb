import itertools
import json

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment  # scikit-image brings it
from solids import cube, moved, sphere

from shapecodec.errors import BadArgument
from shapecodec.evaluate.generation import generation_scores, set_scores, shape_clouds
from shapecodec.evaluate.matching import cloud_distances, earth_movers


def clouds(count: int, points: int, seed: int = 0) -> torch.Tensor:
    """Boxes of random proportions, filled with points."""
    generator = torch.Generator().manual_seed(seed)
    sides = 0.2 + 0.8 * torch.rand(count, 1, 3, generator=generator)
    return sides * (torch.rand(count, points, 3, generator=generator) - 0.5)


def pair_costs(one: torch.Tensor, two: torch.Tensor) -> np.ndarray:
    return (one.double()[:, None] - two.double()[None]).norm(dim=-1).numpy()


@pytest.mark.parametrize(("points", "others"), [(1, 1), (1, 5), (37, 37), (130, 61)])
def test_chamfer_against_all_pairs(points, others):
    one, two = clouds(3, points), clouds(2, others, seed=1)
    found = cloud_distances(one, two)
    assert found.shape == (3, 2)
    for i, j in itertools.product(range(3), range(2)):
        squares = pair_costs(one[i], two[j]) ** 2
        assert float(found[i, j]) == pytest.approx(squares.min(0).mean() + squares.min(1).mean(), rel=1e-5)


@pytest.mark.parametrize("points", [1, 2, 3, 6])
def test_emd_against_every_pairing(points):
    for seed in range(5):
        one, two = clouds(1, points, seed)[0], clouds(1, points, seed + 50)[0]
        costs = pair_costs(one, two)
        best = min(costs[range(points), order].mean() for order in itertools.permutations(range(points)))
        cost, bound = earth_movers(one, two)
        assert bound * (1 - 1e-6) <= best <= cost * (1 + 1e-6) and cost <= 1.0101 * best


@pytest.mark.parametrize("tolerance", [0.1, 0.01, 1e-4])
def test_emd_misses_its_tolerance(tolerance):
    for seed in range(3):
        one, two = clouds(1, 150, seed)[0], clouds(1, 150, seed + 50)[0]
        costs = pair_costs(one, two)
        best = costs[linear_sum_assignment(costs)].mean()
        cost, bound = earth_movers(one, two, tolerance=tolerance)
        assert bound * (1 - 1e-6) <= best <= cost * (1 + 1e-6) and cost - bound <= tolerance * cost
    assert float(cloud_distances(one[None], two[None], "emd", tolerance=tolerance)) == cost


def test_clouds_that_coincide_are_apart():
    cloud = clouds(1, 60)
    shuffled = cloud[:, torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    doubled = cloud[:, :30].repeat(1, 2, 1)
    for one, two in ((cloud, shuffled), (doubled, doubled.flip(1)), (torch.ones(1, 5, 3), torch.ones(1, 5, 3))):
        assert float(cloud_distances(one, two)) == 0.0
        assert float(cloud_distances(one, two, "emd")) < 1e-6


def test_a_shift_costs_another_distance():
    cloud, shift = clouds(1, 80), torch.tensor([0.3, 0.4, 0.0])
    assert float(cloud_distances(cloud, cloud + 10 * shift, "emd")) == pytest.approx(5.0, rel=0.0101)


@pytest.mark.parametrize("metric", ["chamfer", "emd"])
def test_half_of_the_pairs_gives_other_distances(metric):
    one = clouds(4, 40)
    torch.testing.assert_close(
        cloud_distances(one, one, metric), cloud_distances(one, one.clone(), metric), rtol=0.01, atol=0
    )


def test_clouds_that_cannot_be_compared():
    good = clouds(2, 10)
    for one, two, metric in (
        (good, good, "hausdorff"),
        (good, clouds(2, 11), "emd"),
        (good, good[0], "chamfer"),
        (good, good[:, :0], "chamfer"),
        (good, good / 0, "chamfer"),
    ):
        with pytest.raises(BadArgument):
            cloud_distances(one, two, metric)
    with pytest.raises(BadArgument):
        cloud_distances(good, good, "emd", tolerance=0.0)
    with pytest.raises(BadArgument):
        earth_movers(good[0], good[0, :4])
    with pytest.raises(BadArgument):
        generation_scores(good[:1], good)


@pytest.mark.parametrize("metric", ["chamfer", "emd"])
def test_the_real_shapes_themselves_are_not_perfect(metric):
    real = clouds(8, 50)
    result = generation_scores(real.clone(), real, metric)
    assert result["mmd"] < 1e-9 and result["coverage"] == 1.0
    assert result["nearest_neighbour"] == {"all": 0.0, "generated": 0.0, "reference": 0.0}  # copies: each has its twin
    assert json.loads(json.dumps(result)) == result


def test_other_shapes_pass_for_real():
    real, far = clouds(8, 50), clouds(6, 50, seed=1) + 5.0
    result = generation_scores(far, real)
    assert result["nearest_neighbour"]["all"] == 1.0
    assert result["mmd"] > 50 and 1 / 8 <= result["coverage"] <= 6 / 8


def test_one_shape_covers_all():
    real, one = clouds(10, 50), clouds(1, 50, seed=1)
    repeated = one.repeat(10, 1, 1) + 1e-4 * torch.randn(10, 50, 3, generator=torch.Generator().manual_seed(0))
    assert generation_scores(repeated, real)["coverage"] <= 0.2


def test_shapes_of_one_source_are_told_apart():
    generated, real = clouds(60, 64, seed=1), clouds(60, 64, seed=2)
    result = generation_scores(generated, real)
    assert 0.35 < result["nearest_neighbour"]["all"] < 0.65
    assert result["floor"]["mmd"] > result["mmd"] * 0.7 and 0.3 < result["floor"]["nearest_neighbour"]["all"] < 0.7


def test_scores_against_counting():
    generator = np.random.default_rng(0)
    points = generator.random((9, 2))
    distances = np.linalg.norm(points[:, None] - points[None], axis=-1)
    cross, own, real = distances[:4, 4:], distances[:4, :4], distances[4:, 4:]
    right = {"generated": 0, "reference": 0}
    for i in range(9):
        nearest = min((j for j in range(9) if j != i), key=lambda j: distances[i, j])
        right["generated" if i < 4 else "reference"] += (i < 4) == (nearest < 4)
    found = set_scores(*(torch.from_numpy(part) for part in (cross, own, real)))
    assert found["nearest_neighbour"]["all"] == pytest.approx(sum(right.values()) / 9)
    assert found["nearest_neighbour"]["generated"] == pytest.approx(right["generated"] / 4)
    assert found["coverage"] == len({int(row.argmin()) for row in cross}) / 5
    assert found["mmd"] == pytest.approx(cross.min(0).mean())
    halves = set_scores(*(torch.from_numpy(part) for part in (real[::2, 1::2], real[::2, ::2], real[1::2, 1::2])))
    assert {key: found["floor"][key] for key in ("mmd", "coverage", "nearest_neighbour")} == {
        key: halves[key] for key in ("mmd", "coverage", "nearest_neighbour")
    }
    assert halves["floor"] is None


def test_all_shapes_alike_is_a_verdict():
    same = torch.zeros(3, 3)
    assert set_scores(same, same, same)["nearest_neighbour"]["all"] == 0.5
    with pytest.raises(BadArgument):
        set_scores(same, same[:2], same)


def test_clouds_depend_on_scale_or_on_what_follows():
    shapes = [cube(2), sphere(steps=4), moved(sphere(steps=4), 9.0, 9.0, 9.0, scale=8.0)]
    found = shape_clouds(shapes, 300, seed=1)
    assert found.shape == (3, 300, 3) and float(found.abs().max()) <= 0.5 + 1e-6
    assert torch.equal(shape_clouds(shapes[:2], 300, seed=1), found[:2])
    assert not torch.equal(shape_clouds(shapes[:2], 300, seed=2), found[:2])
    np.testing.assert_allclose(found[1:].norm(dim=-1), 0.5, atol=0.03)
    with pytest.raises(BadArgument):
        shape_clouds([], 10)
