"""How sure a mean over shapes is, and whether two codecs differ: bootstrap intervals and a paired rank test."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from shapecodec.errors import BadArgument
from shapecodec.rng import numpy_rng

LEVEL, RESAMPLES = 0.95, 5_000
EXACT_UP_TO = 50  # pairs for which the rank test counts all sign patterns instead of taking a normal curve
_CHUNK = 1 << 22  # elements of one block of resampling counts: 34 MB


@dataclass(frozen=True)
class Intervals:
    """Means of columns and where the true means lie.

    Args:
        count: (C,) int64 known values of each column.
        mean: (C,) float64, NaN where nothing is known.
        low, high: (C,) float64 ends of the interval, NaN below two values.
    """

    count: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def bootstrap_means(
    values: np.ndarray, *, level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> Intervals:
    """Bias-corrected and accelerated (BCa) bootstrap intervals of the mean of each column.

    Efron, "Better Bootstrap Confidence Intervals", JASA 1987; the acceleration of a mean is its skewness / 6 sqrt(n).
    Shapes are drawn with replacement, the same ones for all columns with the same known values. Of few shapes such intervals are
    too narrow: asked for 95% they cover 84, 90, 93, 95% of the means of 5, 10, 50, 200 normal values, and 73, 81, 90, 93% of
    log-normal ones (2,000 trials each).

    Args:
        values: (n, C) floats, a row a shape; NaN where a shape has no value.
        level: coverage asked for.
        resamples: bootstrap samples.
        seed: of the samples: the same rows and seed give the same interval.

    Raises:
        BadArgument: not a table, a level outside (0, 1), or fewer than 100 resamples.
    """
    if values.ndim != 2 or not 0 < level < 1 or resamples < 100:
        raise BadArgument(
            f"values {values.shape}, level {level}, {resamples} resamples: expected (n, C), (0, 1) and at least 100.",
            where="bootstrap_means",
        )
    known = np.isfinite(values)
    result = Intervals(known.sum(0), *(np.full(values.shape[1], np.nan) for _ in range(3)))
    patterns, member = np.unique(known, axis=1, return_inverse=True)
    for index in range(patterns.shape[1]):
        columns = np.flatnonzero(member.reshape(-1) == index)
        rows = values[patterns[:, index]][:, columns].astype(np.float64)
        if len(rows) == 0:
            continue
        result.mean[columns] = rows.mean(0)
        if len(rows) > 1:
            result.low[columns], result.high[columns] = _bca(rows, level, resamples, seed)
    return result


def _bca(rows: np.ndarray, level: float, resamples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ends (C,), (C,) of the intervals of full columns (n, C), n >= 2."""
    mean = rows.mean(0)
    centred = rows - mean  # resampled deviations: what is added and removed again would cost digits
    spread, cubes = np.sqrt((centred**2).sum(0)), (centred**3).sum(0)
    low, high = mean.copy(), mean.copy()
    varied = np.flatnonzero(spread > 1e-12 * np.abs(rows).max(0))
    for c, means in zip(varied, _resampled_means(centred[:, varied], resamples, seed).T.copy(), strict=True):
        tails = _tails(means, cubes[c] / (6 * spread[c] ** 3), level)
        ends = [_quantile(means, tail) for tail in tails]
        low[c], high[c] = mean[c] + min(ends), mean[c] + max(ends)
    return low, high


def _tails(means: np.ndarray, acceleration: float, level: float) -> list[float]:
    """The shares of resampled deviations (resamples,) at the interval's ends (Efron 1987, eq. 3.9)."""
    normal, count = NormalDist(), len(means)
    below = (np.count_nonzero(means < 0) + np.count_nonzero(means <= 0)) / 2 / count
    bias = normal.inv_cdf(min(max(below, 1 / count), 1 - 1 / count))
    shares = []
    for tail in ((1 - level) / 2, (1 + level) / 2):
        reach = bias + normal.inv_cdf(tail)
        bent = acceleration * reach < 1
        shares.append(normal.cdf(bias + reach / (1 - acceleration * reach)) if bent else tail)
    return shares


def _quantile(values: np.ndarray, share: float) -> float:
    """Interpolated between the two nearest ranks; a partial sort, five times faster than a whole one."""
    place = share * (len(values) - 1)
    rank = min(int(place), len(values) - 2)
    one, two = np.partition(values, (rank, rank + 1))[rank : rank + 2]
    return float(one + (place - rank) * (two - one))


def _resampled_means(rows: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """(resamples, C) means of rows drawn with replacement."""
    generator, n = numpy_rng(seed, purpose="bootstrap"), len(rows)
    step = max(1, _CHUNK // n)
    parts = []
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn = generator.integers(0, n, (count, n)) + np.arange(count)[:, None] * n
        weights = np.bincount(drawn.reshape(-1), minlength=count * n).reshape(count, n)
        parts.append(weights.astype(np.float64) @ rows / n)
    return np.concatenate(parts)


@dataclass(frozen=True)
class SignedRank:
    """Wilcoxon's signed-rank test of paired differences.

    Args:
        pairs: differences that are not zero.
        statistic: the smaller of the rank sums of positive and negative differences.
        p: two-sided probability of a statistic at least as extreme if neither side were better; None without pairs.
        exact: whether all sign patterns were counted.
    """

    pairs: int
    statistic: float
    p: float | None
    exact: bool


def signed_rank(differences: np.ndarray) -> SignedRank:
    """Wilcoxon's two-sided signed-rank test (Biometrics Bulletin 1945) on differences (n,).

    Zeros are left out, ties share their mean rank. Up to `EXACT_UP_TO` pairs the distribution over all 2^n signs is counted, given
    the ties; above, a normal curve with the ties' variance and without correction for continuity.

    Raises:
        BadArgument: differences that are not finite.
    """
    values = np.asarray(differences, np.float64).reshape(-1)
    if not np.isfinite(values).all():
        raise BadArgument("differences must be finite.", where="signed_rank")
    values = values[values != 0]
    n = len(values)
    if n == 0:
        return SignedRank(0, 0.0, None, True)
    twice = _twice_ranks(np.abs(values))  # whole numbers, also where ties share a rank
    positive, total = int(twice[values > 0].sum()), int(twice.sum())
    least = min(positive, total - positive)
    if n <= EXACT_UP_TO:
        p = min(1.0, 2 * _share_at_most(twice, least))
    else:
        deviation = (least - total / 2) / math.sqrt(float((twice.astype(np.float64) ** 2).sum()) / 4)
        p = min(1.0, 2 * NormalDist().cdf(deviation))
    return SignedRank(n, least / 2, p, n <= EXACT_UP_TO)


def _twice_ranks(sizes: np.ndarray) -> np.ndarray:
    """(n,) int64 twice the ranks, 1 for the smallest; equal sizes share their mean rank."""
    _, inverse, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (2 * last - counts + 1)[inverse.reshape(-1)].astype(np.int64)


def _share_at_most(twice: np.ndarray, limit: int) -> float:
    """The share of the 2^n subsets of `twice` whose sum is at most `limit`."""
    shares = np.zeros(int(twice.sum()) + 1)
    shares[0] = 1.0
    for rank in twice:
        shares[rank:] += shares[: len(shares) - rank].copy()
        shares /= 2
    return float(shares[: limit + 1].sum())
