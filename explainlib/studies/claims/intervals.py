"""Intervals over clusters (networks, seeds, splits); each cluster gives one number, the mean of its tests.

    student      fewer than ten clusters: Student's t
    bootstrap    ten or more: percentile-t, the clusters drawn with replacement (Efron and Tibshirani 1993, 12.5)
    fisher       correlations: Fisher's z with Fieller's variance for ranks, 1.06/(n - 3), pooled over strata
    exact        shares: Clopper and Pearson's with the effective number of tests of Korn and Graubard 1998

Percentile-t and not BCa: at the boundary of the null BCa's lower end is passed half as often again with ten or twenty
normal clusters, and with ten skewed ones in 103 of 1,000 tables (``data/results/judge-simulation.csv``).
The exact interval is right where the tests of a network are correlated by up to .1; networks that fail as a whole are
not seen among three or four.

All take the clusters in the last dimension and broadcast over the others. What has no spread between clusters, a
missing number, or one cluster only, has no interval: its ends are infinite.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import stats

FEW = 10  # clusters below which nothing is drawn with replacement
DRAWS = 9999
Values = np.ndarray | Sequence[float | int]
Numbers = np.ndarray | float  # of numpy too
Interval = tuple[Numbers, Numbers, Numbers]


def student_interval(values: Values, confidence: float = 0.95) -> Interval:
    """Return (mean, low, high) by Student's t over the clusters.

    Args:
        values: [..., cluster].
        confidence: of both sides.
    """
    values = np.asarray(values, dtype=float)
    mean, error = _mean_and_error(values)
    known = np.isfinite(error)
    half = stats.t.ppf(0.5 + confidence / 2, max(values.shape[-1] - 1, 1)) * np.where(known, error, 0.0)
    return mean, np.where(known, mean - half, -np.inf), np.where(known, mean + half, np.inf)


def bootstrap_interval(values: Values, confidence: float = 0.95, draws: int = DRAWS) -> Interval:
    """Return (mean, low, high) by the percentile-t bootstrap of the clusters, always with the same draws.

    Args:
        values: [..., cluster].
        confidence: of both sides.
        draws: of all clusters with replacement.
    """
    values = np.asarray(values, dtype=float)
    mean, error = _mean_and_error(values)
    known = np.isfinite(error)
    shares = _shares(values.shape[-1], draws)
    centred = np.where(np.expand_dims(known, -1), values - np.expand_dims(mean, -1), 0.0)
    means = centred @ shares.T
    squares = (centred**2) @ shares.T - means**2  # with divisor n, as everywhere below
    errors = np.sqrt(np.maximum(squares, 0) / (values.shape[-1] - 1))
    least = 1e-9 * np.expand_dims(np.where(known, error, 1.0), -1)  # one cluster drawn n times
    pivots = means / np.maximum(errors, least)
    ends = np.quantile(pivots, [0.5 - confidence / 2, 0.5 + confidence / 2], axis=-1)
    error = np.where(known, error, 0.0)
    low, high = mean - ends[1] * error, mean - ends[0] * error
    return mean, np.where(known, low, -np.inf), np.where(known, high, np.inf)


def mean_interval(values: Values, confidence: float = 0.95, draws: int = DRAWS) -> Interval:
    """Return (mean, low, high): Student's below ten clusters, the bootstrap from ten on.

    Args:
        values: [..., cluster].
        confidence: of both sides.
        draws: of the bootstrap.
    """
    values = np.asarray(values, dtype=float)
    few = values.shape[-1] < FEW
    return student_interval(values, confidence) if few else bootstrap_interval(values, confidence, draws)


def fisher_interval(correlations: Values, counts: Values, confidence: float = 0.95) -> Interval:
    """Return (correlation, low, high) of rank correlations pooled over strata, within [-1, 1].

    Args:
        correlations: [..., stratum].
        counts: [..., stratum], pairs behind each; strata of three and fewer have no weight.
        confidence: of both sides.
    """
    correlations = np.asarray(correlations, dtype=float)
    weights = np.maximum(np.asarray(counts, dtype=float) - 3, 0)
    total = weights.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (np.arctanh(np.clip(correlations, -1 + 1e-12, 1 - 1e-12)) * weights).sum(-1) / total
        half = stats.norm.ppf(0.5 + confidence / 2) * np.sqrt(1.06 / total)
    known = np.isfinite(z)
    return np.tanh(z), np.where(known, np.tanh(z - half), -np.inf), np.where(known, np.tanh(z + half), np.inf)


def exact_interval(successes: Values, trials: Values, confidence: float = 0.95) -> Interval:
    """Return (share, low, high) of a share whose tests are clustered.

    The number of tests is divided by the design effect (the variance between clusters over the binomial one, at least
    1) and by the squared ratio of Student's quantiles, so that few clusters count for little. Unlike Korn and Graubard
    the second also where every test succeeds, which few clusters alike may do by chance.

    Args:
        successes: [..., cluster].
        trials: [..., cluster].
        confidence: of both sides.
    """
    successes, trials = (np.asarray(counts, dtype=float) for counts in (successes, trials))
    clusters, total, hit = successes.shape[-1], trials.sum(-1), successes.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = hit / total
        binomial = share * (1 - share) / total
        excess = successes - np.expand_dims(share, -1) * trials
        between = clusters / max(clusters - 1, 1) * (excess**2).sum(-1) / total**2
        effect = np.where(binomial > 0, np.maximum(between / binomial, 1.0), 1.0)
    tail = 0.5 + confidence / 2
    quantiles = stats.t.ppf(tail, np.maximum(total - 1, 1)) / stats.t.ppf(tail, max(clusters - 1, 1))
    tests = total / effect * quantiles**2
    known = np.isfinite(share) & (clusters > 1)
    hits, misses = share * tests, (1 - share) * tests
    low = np.where(hits > 0, stats.beta.ppf(1 - tail, np.maximum(hits, 1e-9), misses + 1), 0.0)
    high = np.where(misses > 0, stats.beta.ppf(tail, hits + 1, np.maximum(misses, 1e-9)), 1.0)
    return share, np.where(known, low, -np.inf), np.where(known, high, np.inf)


def _mean_and_error(values: np.ndarray) -> tuple[Numbers, Numbers]:
    """Return the mean over the clusters and its standard error, infinite where there is none."""
    n = values.shape[-1]
    if n == 0:
        return np.full(values.shape[:-1], np.nan), np.full(values.shape[:-1], np.inf)
    mean = values.mean(-1)
    spread = values.std(-1, ddof=1) if n > 1 else np.zeros_like(mean)
    none = ~(spread > 1e-12 * np.maximum(np.abs(mean), 1e-12))  # also nan
    return mean, np.where(none, np.inf, spread / np.sqrt(n))


@lru_cache(maxsize=16)
def _shares(clusters: int, draws: int) -> np.ndarray:
    """Return [draw, cluster]: the share of each cluster in each draw, from a fixed seed."""
    drawn = np.random.default_rng(0).multinomial(clusters, np.full(clusters, 1 / clusters), size=draws)
    return drawn / clusters
