"""Intervals against scipy, statistics books and their own definitions."""

import numpy as np
import pytest
from scipy import stats

from explainlib.studies.claims import (
    bootstrap_interval,
    exact_interval,
    fisher_interval,
    mean_interval,
    student_interval,
)

VALUES = np.random.default_rng(0).normal(1.0, 0.5, (3, 12))


def test_student_is_scipys():
    mean, low, high = student_interval(VALUES)
    wanted = stats.ttest_1samp(VALUES, 0, axis=-1).confidence_interval(0.95)
    assert np.allclose(low, wanted.low) and np.allclose(high, wanted.high) and np.allclose(mean, VALUES.mean(1))
    mean, low, high = student_interval([1.0, 2.0, 3.0])
    assert mean == 2 and high - mean == pytest.approx(4.302653 / 3**0.5) and mean - low == pytest.approx(high - mean)


def test_the_bootstrap_is_percentile_t_written_out():
    values, draws = VALUES[0], 400
    mean, low, high = bootstrap_interval(values, draws=draws)
    counts = np.random.default_rng(0).multinomial(12, np.full(12, 1 / 12), size=draws)
    pivots = []
    for row in counts:
        drawn = np.repeat(values, row)
        pivots.append((drawn.mean() - values.mean()) / (drawn.std(ddof=1) / 12**0.5))
    error = values.std(ddof=1) / 12**0.5
    lower, upper = np.quantile(pivots, [0.025, 0.975])
    assert mean == pytest.approx(values.mean())
    assert float(low) == pytest.approx(mean - upper * error) and float(high) == pytest.approx(mean - lower * error)


def test_ten_clusters_are_the_border():
    few, many = VALUES[0, :9], VALUES[0, :10]
    assert np.allclose(mean_interval(few), student_interval(few))
    assert np.allclose(mean_interval(many), bootstrap_interval(many))
    assert not np.allclose(mean_interval(many), student_interval(many))


@pytest.mark.parametrize("values", [[1.0], [0.9] * 3, [0.9] * 12, [0.5, np.nan, 0.6], [np.nan] * 12, []])
def test_without_spread_there_is_no_interval(values):
    _, low, high = mean_interval(values)
    assert low == -np.inf and high == np.inf


def test_fisher_is_scipys_with_fiellers_variance():
    generator = np.random.default_rng(0)
    x = generator.normal(size=40)
    y = x + generator.normal(size=40)
    found, low, high = fisher_interval([stats.spearmanr(x, y).statistic], [40])
    pearson = stats.pearsonr(stats.rankdata(x), stats.rankdata(y)).confidence_interval(0.95)
    z = np.arctanh([low, found, high])
    assert z[2] - z[1] == pytest.approx((np.arctanh(pearson.high) - z[1]) * 1.06**0.5)
    assert -1 <= low < found < high <= 1
    _, low, high = fisher_interval([1.0, 1.0], [9, 9])
    assert -1 <= low and high <= 1
    assert fisher_interval([0.5], [3])[1] == -np.inf, "three pairs have no weight"


def test_exact_is_clopper_and_pearsons_where_clusters_are_many_and_alike():
    hits = np.array([9, 10] * 100)
    share, low, high = exact_interval(hits, np.full(200, 10))
    wanted = stats.binomtest(int(hits.sum()), 2000).proportion_ci(0.95, "exact")
    assert share == 0.95 and low == pytest.approx(wanted.low, abs=1e-3) and high == pytest.approx(wanted.high, abs=1e-3)


def test_few_clusters_or_uneven_ones_make_it_wider():
    even, uneven = (exact_interval(hits, [64] * 4)[1] for hits in ((60, 60, 60, 60), (64, 64, 64, 48)))
    two = exact_interval((120, 120), (128, 128))[1]
    assert two < even and uneven < even
    assert exact_interval((0, 0, 0), (10, 10, 10))[1] == 0 and exact_interval((10,) * 3, (10,) * 3)[2] == 1
    assert exact_interval((64,), (64,))[1] == -np.inf
