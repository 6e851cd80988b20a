"""The linear datamodeling score: scipy's Spearman, a loop of resamples, and least squares networks of subsets."""

import inspect

import numpy as np
import pytest
import torch
from scipy import stats

import explainlib as xl
from explainlib.metrics import linear_datamodeling_score
from tests.problems import generator, normal, ridge_risk, targets


def random_subsets(n: int, m: int, size: int, *, seed: int = 0):
    draw = generator(seed)
    return [torch.randperm(n, generator=draw)[:size].tolist() for _ in range(m)]


def problem(t=4, n=20, m=15, *, ties=False):
    scores, subsets = normal(t, n), random_subsets(n, m, n // 2)
    sums = torch.stack([scores[:, subset].sum(1) for subset in subsets])  # [m, t]
    outputs = sums + 2 * normal(m, t, seed=3)
    return scores, subsets, sums, outputs.round() if ties else outputs


@pytest.mark.parametrize("ties", [False, True])
def test_value_and_interval_are_the_loop_over_tests_and_resamples(ties):
    scores, subsets, sums, outputs = problem(ties=ties)
    got = linear_datamodeling_score(scores, subsets, outputs, resamples=50, seed=5)
    each = [stats.spearmanr(sums[:, t], outputs[:, t])[0] for t in range(4)]
    assert got == pytest.approx(np.mean(each), abs=1e-12) and 0.2 < got < 0.95
    draws = torch.randint(15, (50, 15), generator=generator(5))
    loop = [np.mean([stats.spearmanr(sums[d, t], outputs[d, t])[0] for t in range(4)]) for d in draws]
    np.testing.assert_allclose([got.low, got.high], np.quantile(loop, [0.025, 0.975]), atol=1e-10)


def test_chunks_change_nothing(monkeypatch):
    scores, subsets, _, outputs = problem()
    whole = linear_datamodeling_score(scores, subsets, outputs, resamples=50)
    monkeypatch.setattr("explainlib.metrics.datamodels.CHUNK", 200)
    parts = linear_datamodeling_score(scores, subsets, outputs, resamples=50)
    assert (whole, whole.low, whole.high) == pytest.approx((parts, parts.low, parts.high), abs=1e-14)


def test_order_only_and_the_sign():
    scores, subsets, sums, _ = problem()
    assert linear_datamodeling_score(scores, subsets, (sums / 3).exp()) == pytest.approx(1.0)
    assert linear_datamodeling_score(-scores, subsets, sums) == pytest.approx(-1.0)
    left_out = [[i for i in range(20) if i not in subset] for subset in subsets]
    assert linear_datamodeling_score(scores, left_out, sums) == pytest.approx(
        -1.0
    )  # all sums are the total minus these


def test_influence_beats_noise_on_least_squares():
    """Outputs of ridge solutions on halves of the data; influence on the output is the natural linear datamodel."""
    risk, test = ridge_risk(n=60, l2=0.05), targets(6, seed=7)
    subsets = random_subsets(60, 40, 45)
    groups = [[i for i in range(60) if i not in subset] for subset in subsets]
    outputs = xl.retraining.leave_out(risk, groups).outputs(test)[:, :, 0]
    single = xl.retraining.leave_out(risk, [[i] for i in range(60)]).outputs(test)[:, :, 0].T  # [t, n]
    contribution = risk.outputs(test) - single
    good = linear_datamodeling_score(contribution, subsets, outputs)
    noise = linear_datamodeling_score(normal(6, 60, seed=2), subsets, outputs)
    assert good > 0.9 and good.low > noise.high and abs(noise) < 0.4
    losses = xl.retraining.leave_out(risk, groups).losses(test).T
    influence = xl.influence.loss_influence(risk, test)
    assert linear_datamodeling_score(influence, subsets, losses) > 0.4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_that_are_equal_up_to_rounding_are_ties(dtype):
    """Tenths: 0.1 + 0.2 is not 0.3 in either dtype, and which is larger is chance; exact fractions are the oracle."""
    tenths = [[1, 2, 3, -4, 7, 5, 6, -3, 2, 4]]
    scores = torch.tensor(tenths, dtype=dtype) / 10
    subsets = [[0, 1], [2], [4, 3], [6, 7], [5, 3, 1], [8, 0], [9], [5], [9, 0], [2, 1], [6], [7, 3, 4, 2, 2 + 4]]
    exact = [sum(tenths[0][i] for i in subset) for subset in subsets]
    outputs = normal(len(subsets), 1, seed=4).to(dtype)
    want = stats.spearmanr(exact, outputs[:, 0].tolist())[0]
    got = linear_datamodeling_score(scores, subsets, outputs)
    assert got == pytest.approx(want, abs=1e-12)
    sums = [float(scores[0, subset].double().sum()) for subset in subsets]
    assert abs(stats.spearmanr(sums, outputs[:, 0].tolist())[0] - want) > 1e-3  # what rounding alone would say
    flat = torch.full((1, 10), 0.1, dtype=dtype)
    with pytest.raises(ValueError, match="same for every subset"):
        linear_datamodeling_score(flat, [[i, (i + 3) % 10] for i in range(10)], outputs[:10])


def test_few_subsets_have_no_interval():
    scores, subsets, _, outputs = problem()
    assert np.isnan(linear_datamodeling_score(scores, subsets[:4], outputs[:4]).low)
    assert not np.isnan(linear_datamodeling_score(scores, subsets[:5], outputs[:5]).low)


def test_three_subsets_are_enough():
    scores, subsets, sums, _ = problem()
    assert linear_datamodeling_score(scores, subsets[:3], sums[:3]) == pytest.approx(1.0)


def test_bad_input():
    scores, subsets, _, outputs = problem()
    score = inspect.unwrap(linear_datamodeling_score)  # the import hook would answer before the checks
    with pytest.raises(ValueError, match="at least 3"):
        score(scores, subsets[:2], outputs[:2])
    with pytest.raises(ValueError, match=r"\[4, 15\], expected \[15, 4\]"):
        score(scores, subsets, outputs.T)
    with pytest.raises(ValueError, match=r"subsets\[1\] is outside the 20"):
        score(scores, [subsets[0], [3, 20], subsets[2]], outputs[:3])
    with pytest.raises(ValueError, match="stands twice"):
        score(scores, [subsets[0], [3, 3], subsets[2]], outputs[:3])
    with pytest.raises(ValueError, match=r"subsets\[1\] is empty"):
        score(scores, [subsets[0], [], subsets[2]], outputs[:3])
    with pytest.raises(ValueError, match="outputs holds 1 NaN"):
        score(
            scores, subsets, outputs.index_put((torch.tensor(0), torch.tensor(0)), torch.tensor(float("nan")).double())
        )
    with pytest.raises(ValueError, match="summed scores of test 2 are the same"):
        score(scores.index_fill(0, torch.tensor([2]), 0.1), subsets, outputs)  # 0.1 + 0.1 + ... in any order
    with pytest.raises(ValueError, match="outputs of test 1 are the same"):
        score(scores, subsets, outputs.index_fill(1, torch.tensor([1]), 0.0))
    with pytest.raises(TypeError, match="double"):
        score(scores.long(), subsets, outputs)
    with pytest.raises(ValueError, match="resamples=0"):
        score(scores, subsets, outputs, resamples=0)
