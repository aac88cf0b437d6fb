"""Intervals that miss the truth too often, and a rank test that sees what is not there."""

from itertools import product

import numpy as np
import pytest

from shapecodec.errors import BadArgument
from shapecodec.evaluate.statistics import EXACT_UP_TO, bootstrap_means, signed_rank


@pytest.mark.parametrize(
    ("shapes", "draw", "truth", "least"),
    [
        (50, lambda generator, size: generator.normal(3.0, 2.0, size), 3.0, 0.91),
        (200, lambda generator, size: generator.exponential(1.0, size), 1.0, 0.92),
    ],
)
def test_interval_misses_the_mean_too_often(shapes, draw, truth, least):
    trials = draw(np.random.default_rng(5), (shapes, 1500))
    found = bootstrap_means(trials, resamples=1000)
    covered = ((found.low <= truth) & (truth <= found.high)).mean()
    assert least <= covered <= 0.97  # an interval that always covers says nothing
    width = (found.high - found.low).mean()
    assert width == pytest.approx(2 * 1.96 * trials.std(0).mean() / np.sqrt(shapes), rel=0.08)


def test_interval_differs_from_a_known_library():
    scipy_stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).lognormal(size=30)
    found = bootstrap_means(values[:, None], resamples=20_000)
    known = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="BCa", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.low[0] == pytest.approx(known.low, rel=0.02)
    assert found.high[0] == pytest.approx(known.high, rel=0.02)


def test_interval_changes_with_scale_place_order_or_run():
    values = np.random.default_rng(3).exponential(size=(12, 1))
    one = bootstrap_means(values, seed=1)
    again, other = bootstrap_means(values, seed=1), bootstrap_means(values, seed=2)
    moved = bootstrap_means(values * 10 - 7, seed=1)
    assert (one.low, one.high) == (again.low, again.high)
    assert one.low != other.low
    assert moved.low == pytest.approx(one.low * 10 - 7) and moved.high == pytest.approx(one.high * 10 - 7)


def test_missing_values_count_as_zero():
    values = np.array([[1.0, np.nan, 2.0, np.nan], [3.0, 5.0, 2.0, np.nan], [8.0, 6.0, 2.0, np.nan]])
    found = bootstrap_means(values)
    np.testing.assert_array_equal(found.count, [3, 2, 3, 0])
    np.testing.assert_array_equal(found.mean, [4.0, 5.5, 2.0, np.nan])
    assert 1.0 <= found.low[0] < 4.0 < found.high[0] <= 8.0
    assert 5.0 <= found.low[1] <= 5.5 <= found.high[1] <= 6.0
    assert found.low[2] == found.high[2] == 2.0
    assert np.isnan(found.low[3]) and np.isnan(found.high[3])


def test_single_shape_gets_an_interval():
    found = bootstrap_means(np.array([[4.0]]))
    assert found.mean[0] == 4.0 and np.isnan(found.low[0]) and np.isnan(found.high[0])


@pytest.mark.parametrize("arguments", [{"level": 1.0}, {"resamples": 10}])
def test_interval_without_meaning(arguments):
    with pytest.raises(BadArgument, match="bootstrap_means"):
        bootstrap_means(np.ones((3, 1)), **arguments)


@pytest.mark.parametrize("sizes", [(1, 2, 3, 4, 5, 6), (1, 1, 2, 2, 2, 7), (3, 3, 3, 3)])
def test_rank_test_disagrees_with_counting_all_signs(sizes):
    sizes = np.array(sizes, float)
    order = np.array([((sizes < s).sum() + (sizes <= s).sum() + 1) / 2 for s in sizes])
    sums = [float((order * signs).sum()) for signs in product((0, 1), repeat=len(sizes))]
    for signs in product((-1, 1), repeat=len(sizes)):
        found = signed_rank(sizes * signs)
        least = min((order * (np.array(signs) > 0)).sum(), (order * (np.array(signs) < 0)).sum())
        expected = min(1.0, 2 * np.mean([total <= least for total in sums]))
        assert found.statistic == least
        assert found.p == pytest.approx(expected, abs=1e-12) and found.exact


@pytest.mark.parametrize(("pairs", "method"), [(9, "exact"), (EXACT_UP_TO, "exact"), (EXACT_UP_TO + 30, "asymptotic")])
def test_rank_test_disagrees_with_a_known_library(pairs, method):
    scipy_stats = pytest.importorskip("scipy.stats")
    for seed in range(5):
        values = np.random.default_rng(seed).normal(0.2, 1.0, pairs)
        known = scipy_stats.wilcoxon(values, method=method, correction=False)
        found = signed_rank(values)
        assert found.statistic == pytest.approx(known.statistic)
        assert found.p == pytest.approx(known.pvalue, rel=1e-9)
        assert found.exact == (method == "exact")


def test_rank_test_of_many_ties_disagrees_with_a_known_library():
    scipy_stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(1).integers(-3, 5, 120).astype(float)
    known = scipy_stats.wilcoxon(values, method="asymptotic", correction=False, zero_method="wilcox")
    found = signed_rank(values)
    assert found.pairs == np.count_nonzero(values)
    assert found.p == pytest.approx(known.pvalue, rel=1e-9)


def test_rank_test_finds_what_is_not_there():
    generator = np.random.default_rng(7)
    chances = np.array([signed_rank(generator.normal(size=20)).p for _ in range(1000)])
    assert 0.03 < (chances < 0.05).mean() < 0.07
    assert signed_rank(np.zeros(4)).p is None
    assert signed_rank(np.arange(1.0, 11)).p == 2 / 2**10
    with pytest.raises(BadArgument, match="finite"):
        signed_rank(np.array([1.0, np.nan]))
