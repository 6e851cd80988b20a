"""Fidelity against scipy, its invariances, its intervals, and verdicts that tell the two pictures apart."""

import copy
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from explainlib.metrics import (
    Estimate,
    ProperOrder,
    average_ranks,
    fidelity,
    linear_datamodeling_score,
    same_spearman_pair,
)
from tests.defaults import number_defaults


def noisy_table(t: int = 6, n: int = 40, *, noise: float = 0.5, seed: int = 0, ties: bool = False):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(t, n, generator=generator, dtype=torch.float64)
    y = 1.7 * x + noise * torch.randn(t, n, generator=generator, dtype=torch.float64) + 0.3
    return ((2 * x).round(), (2 * y).round()) if ties else (x, y)


@pytest.mark.parametrize("ties", [False, True])
def test_numbers_are_scipys(ties):
    x, y = noisy_table(ties=ties)
    result = fidelity(x, y, resamples=10)
    flat_x, flat_y = x.flatten().numpy(), y.flatten().numpy()
    line = stats.linregress(flat_x, flat_y)
    assert result.pearson == pytest.approx(stats.pearsonr(flat_x, flat_y)[0], abs=1e-12)
    assert result.spearman == pytest.approx(stats.spearmanr(flat_x, flat_y)[0], abs=1e-12)
    assert result.slope == pytest.approx(line.slope, abs=1e-12)
    assert result.r2 == pytest.approx(line.rvalue**2, abs=1e-12)
    rows = [stats.spearmanr(a.numpy(), b.numpy())[0] for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(result.per_test.numpy(), rows, atol=1e-12)
    assert (result.tests, result.removed) == (6, 40)


def test_ranks_are_scipys():
    values = torch.tensor([[3.0, 1.0, 3.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0, 1.0]])
    np.testing.assert_array_equal(average_ranks(values).numpy(), stats.rankdata(values.numpy(), axis=1))


def test_what_differs_by_rounding_alone_has_no_order():
    """Ten copies of one prediction, each with its own rounding, beside what exact copies give."""
    true = torch.linspace(0, 1, 13, dtype=torch.float64)[None]
    exact = torch.cat([torch.full((1, 10), 0.7), torch.tensor([[0.1, 0.9, 2.0]])], 1).double()
    last_place = 1 + 2.3e-16 * torch.arange(13).double().remainder(5)
    moved = exact * last_place
    assert moved.unique().numel() > exact.unique().numel()
    assert average_ranks(moved).tolist() == average_ranks(exact).tolist()
    assert fidelity(moved, true).spearman == fidelity(exact, true).spearman
    one_row = torch.cat([0.3 * last_place[None], exact])
    assert fidelity(one_row, true.repeat(2, 1)).per_test.isnan().tolist() == [True, False]


@pytest.mark.parametrize("ties", [False, True])
def test_bootstrap_is_the_loop_over_resampled_columns(ties):
    """The weighted moments and ranks have to give what copying the drawn columns gives."""
    x, y = noisy_table(3, 12, ties=ties)
    result = fidelity(x, y, resamples=60, seed=5)
    draws = torch.randint(12, (60, 12), generator=torch.Generator().manual_seed(5))
    pairs = [(x[:, d].flatten().numpy(), y[:, d].flatten().numpy()) for d in draws]
    loops = {
        "pearson": [stats.pearsonr(*pair)[0] for pair in pairs],
        "spearman": [stats.spearmanr(*pair)[0] for pair in pairs],
        "slope": [stats.linregress(*pair).slope for pair in pairs],
        "r2": [stats.pearsonr(*pair)[0] ** 2 for pair in pairs],
    }
    for name, values in loops.items():
        estimate = getattr(result, name)
        np.testing.assert_allclose([estimate.low, estimate.high], np.quantile(values, [0.025, 0.975]), atol=1e-10)


def test_chunks_change_nothing(monkeypatch):
    x, y = noisy_table()
    whole = fidelity(x, y, resamples=50).spearman
    monkeypatch.setattr("explainlib.metrics.agreement.CHUNK", 500)
    parts = fidelity(x, y, resamples=50).spearman
    assert (whole, whole.low, whole.high) == pytest.approx((parts, parts.low, parts.high), abs=1e-14)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.01, 100), shift=st.floats(-10, 10))
def test_laws(seed, scale, shift):
    x, y = noisy_table(3, 15, seed=seed)
    base = fidelity(x, y, resamples=1)
    order = torch.randperm(15, generator=torch.Generator().manual_seed(seed))
    moved = fidelity(x[:, order], y[:, order], resamples=1)
    scaled = fidelity(scale * x + shift, y, resamples=1)
    for name in ("pearson", "spearman", "slope", "r2"):
        assert getattr(moved, name) == pytest.approx(getattr(base, name), abs=1e-9)
    assert scaled.slope == pytest.approx(base.slope / scale, rel=1e-6)
    assert scaled.pearson == pytest.approx(base.pearson, abs=1e-8)
    assert fidelity(x.exp(), y, resamples=1).spearman == pytest.approx(base.spearman, abs=1e-12)
    assert base.r2 == pytest.approx(base.pearson**2, abs=1e-12)


def test_intervals_cover_the_true_correlation():
    """Columns that share noise: drawing single entries would give intervals far too short."""
    generator = torch.Generator().manual_seed(1)
    rho, hits = 0.6, 0
    for trial in range(120):
        column = torch.randn(2, 40, generator=generator, dtype=torch.float64)
        own = 0.1 * torch.randn(2, 8, 40, generator=generator, dtype=torch.float64)
        x = column[0] + own[0]
        y = rho * column[0] + math.sqrt(1 - rho**2) * column[1] + own[1]
        pearson = fidelity(x, y, resamples=200, seed=trial).pearson
        hits += pearson.low <= rho / 1.01 <= pearson.high
    assert 0.86 <= hits / 120 <= 1.0


def test_two_pictures_share_their_order_and_nothing_else():
    line, curve = (fidelity(*pair) for pair in same_spearman_pair())
    assert line.spearman == curve.spearman == pytest.approx(0.923, abs=5e-4)
    assert line.r2 == pytest.approx(0.83, abs=5e-3)
    assert curve.r2 == pytest.approx(0.18, abs=5e-3)
    assert line.verdict == "right order and right size"
    assert curve.verdict == "right order, but the sizes do not follow a line (R2 0.18)"


def test_the_two_pictures_fill_the_unit_square():
    for predicted, true in same_spearman_pair():
        torch.testing.assert_close(predicted, torch.arange(100).double() / 99)
        assert float(true.min()) == 0 and float(true.max()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("slope", "words"),
    [(0.85, "off by a factor 0.85"), (0.95, "and right size"), (1.05, "and right size"), (1.15, "1.15")],
)
def test_a_size_is_right_within_a_tenth(slope, words):
    x, _ = noisy_table(1, 60)
    assert words in fidelity(x, slope * x, resamples=50).verdict


@pytest.mark.parametrize(
    ("noise", "words"), [(0.2, "right order"), (1.5, "roughly the right order"), (3.5, "weak agreement in order")]
)
def test_the_order_has_three_grades(noise, words):
    x, y = noisy_table(1, 200, noise=noise)
    found = fidelity(x, y, resamples=50)
    least, most = {"right order": (0.9, 1), "roughly the right order": (0.6, 0.9)}.get(words, (0, 0.6))
    assert least <= found.spearman < most and found.verdict.startswith(f"{words},")


def test_verdicts():
    x, y = noisy_table(1, 60, noise=0.05)
    assert "factor 1.7" in fidelity(x, y).verdict
    assert "reversed" in fidelity(x, -y).verdict
    assert "beyond chance" in fidelity(x, y[:, torch.randperm(60, generator=torch.Generator().manual_seed(0))]).verdict
    assert "too few" in fidelity(x[:, :3], y[:, :3]).verdict
    assert math.isnan(fidelity(x[:, :3], y[:, :3]).pearson.low)


def test_shifts_between_tests_are_named():
    """A shift of each test row leaves the order within rows and ruins the whole."""
    x, y = noisy_table(noise=0.05)
    result = fidelity(x, y + 5 * torch.arange(6.0)[:, None])
    assert result.spearman < 0.5
    assert result.per_test.min() > 0.98
    assert "same weighting" in result.verdict


def test_rows_that_differ_only_between_tests_are_named():
    x, y = noisy_table(noise=20.0)
    level = 200 * torch.arange(6.0)[:, None]
    assert "between test examples" in fidelity(x + level, y + level).verdict


def test_constant_tables_are_a_verdict():
    x, y = noisy_table()
    for pair, words in (((x * 0 + 0.1, y), "predictions"), ((x, y * 0), "truths"), ((x * 0, y * 0), "and truths")):
        result = fidelity(*pair)
        assert math.isnan(result.pearson) and math.isnan(result.slope)
        assert words in result.verdict and "no correlation is defined" in result.verdict
        assert "undefined" in repr(result)


def test_one_constant_row_is_nan_there_only():
    x, y = noisy_table()
    x[2] = 1.0
    result = fidelity(x, y)
    assert result.per_test.isnan().tolist() == [False, False, True, False, False, False]
    assert not math.isnan(result.spearman)


def test_estimate_is_a_float_that_copies():
    estimate = Estimate(0.5, 0.25, 0.75)
    assert estimate > 0.4 and estimate + 1 == 1.5
    assert repr(estimate) == "0.500 [0.250, 0.750]"
    for twin in (copy.copy(estimate), copy.deepcopy(estimate)):
        assert (twin, twin.low, twin.high) == (0.5, 0.25, 0.75)


def test_display():
    result = fidelity(*noisy_table())
    assert repr(result).splitlines()[0] == f"Fidelity over 6 test x 40 removed: {result.verdict}"
    assert f"slope    {result.slope!r}" in repr(result)
    assert repr(result.pearson) in result._repr_html_()


def test_seed_and_callers_generator():
    x, y = noisy_table()
    before = torch.get_rng_state()
    first, second, other = (fidelity(x, y, resamples=50, seed=s).pearson for s in (1, 1, 2))
    assert torch.equal(before, torch.get_rng_state())
    assert (first.low, first.high) == (second.low, second.high) != (other.low, other.high)


def test_defaults():
    assert number_defaults(fidelity) == {"resamples": 1000, "seed": 0}
    assert number_defaults(linear_datamodeling_score) == {"resamples": 1000, "seed": 0}
    assert number_defaults(ProperOrder) == {"ties": 0}


def test_fewer_than_five_columns_have_no_interval():
    x, y = noisy_table(3, 5)
    assert not math.isnan(fidelity(x, y, resamples=50).pearson.low)
    assert math.isnan(fidelity(x[:, :4], y[:, :4], resamples=50).pearson.low)


def test_no_correlation_is_above_one():
    """Lines without noise, whose quotients of sums round to either side of 1."""
    found = []
    for seed in range(40):
        x, _ = noisy_table(1, 7, seed=seed)
        for y in (3 * x + 0.1, -3 * x + 0.1):
            line = fidelity(x, y, resamples=5)
            found += [f for e in (line.pearson, line.spearman) for f in (float(e), e.low, e.high)]
    assert max(found) <= 1 and min(found) >= -1


def removal(table, *, weighting="plain", groups=((0, 1), (2,), (3, 4))):
    return SimpleNamespace(
        loss_change=lambda test: table[: len(test)], weighting=weighting, groups=[list(group) for group in groups]
    )


def test_removals_are_compared_on_the_tests():
    x, y = noisy_table(6, 3)
    result = fidelity(removal(x), removal(y), test=range(4))
    assert result.tests == 4
    assert result.pearson == fidelity(x[:4], y[:4]).pearson
    assert fidelity(removal(x), y, test=range(6)).pearson == fidelity(x, y).pearson


def test_unlike_removals_are_refused():
    x, y = noisy_table(6, 3)
    with pytest.raises(ValueError, match="same weighting"):
        fidelity(removal(x), removal(y, weighting="preserve"), test=range(4))
    with pytest.raises(ValueError, match="difference is group 1"):
        fidelity(removal(x), removal(y, groups=((1, 0), (4,), (3, 4))), test=range(4))
    with pytest.raises(ValueError, match="difference is group 2"):
        fidelity(removal(x), removal(y, groups=((1, 0), (2,))), test=range(4))
    with pytest.raises(ValueError, match="pass test="):
        fidelity(removal(x), removal(y))
    with pytest.raises(ValueError, match="leave test out"):
        fidelity(x, y, test=range(4))


def test_bad_tables():
    x, y = noisy_table()
    with pytest.raises(ValueError, match="same removals"):
        fidelity(x, y[:, 1:])
    with pytest.raises(ValueError, match="at least 3"):
        fidelity(x[0, :2], y[0, :2])
    with pytest.raises(ValueError, match="NaN"):
        fidelity(x, y.index_fill(1, torch.tensor([3]), math.nan))
    with pytest.raises(ValueError, match=r"\[test, removed\]"):
        fidelity(x[None], y[None])
    with pytest.raises(TypeError, match="double"):
        fidelity(x.long(), y)
    with pytest.raises(TypeError):
        fidelity(x.numpy(), y)
    with pytest.raises(ValueError, match="resamples=0"):
        fidelity(x, y, resamples=0)


def test_a_chain_of_ties_is_constant():
    """Each differs from the next by rounding, the last from the first by more: all share one rank, and none is defined."""
    eps = torch.finfo(torch.float64).eps
    chain = 1 + 6 * eps * torch.arange(9, dtype=torch.float64)
    found = fidelity(chain, torch.arange(9, dtype=torch.float64))
    assert "predictions are all equal" in found.verdict and found.spearman != found.spearman
    assert (found.per_test != found.per_test).all()
