"""Case deletion on hand-made tables, on least squares (where the truth is a formula), and against plain training."""

import inspect
from functools import partial

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from scipy import stats
from torch import nn

import explainlib as xl
from explainlib.datasets import Examples
from explainlib.metrics import (
    DELETION_SHARES,
    clustered_mean,
    curve_intervals,
    deletion_auc,
    deletion_counts,
    deletion_curve,
    deletion_groups,
    paired_difference,
    retrained_changes,
)
from tests.problems import classes, logistic_risk, normal, ridge_risk, targets

SHARES = (0.0, 0.1, 0.2, 0.4)


def lists(groups):
    return [[group.tolist() for group in row] for row in groups]


def bare(function):
    """A person does not have the import hook, which would answer before the check that is tested."""
    return inspect.unwrap(function)


def test_counts_are_the_papers():
    assert DELETION_SHARES == tuple(0.02 * i for i in range(5)) + (0.10,)
    assert deletion_counts(1000) == (0, 20, 40, 60, 80, 100)
    assert deletion_counts(1213) == (0, 24, 49, 73, 97, 121)


def test_groups_on_a_table_done_by_hand():
    scores = torch.tensor([[0.0, -3.0, 5.0, -1.0, 2.0], [1.0, 2.0, 3.0, 4.0, 0.5]])
    shares = (0.0, 0.2, 0.6)
    assert lists(deletion_groups(scores, shares=shares)) == [[[], [1], [1, 3, 0]], [[], [4], [4, 0, 1]]]
    assert lists(deletion_groups(scores, shares=shares, sign="positive")) == [
        [[], [2], [2, 4, 0]],
        [[], [3], [3, 2, 1]],
    ]


def test_the_earlier_of_equal_scores_goes_first():
    scores = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    assert lists(deletion_groups(scores, shares=(0.25, 0.75))) == [[[1], [1, 2, 0]]]
    assert lists(deletion_groups(scores, shares=(0.25, 0.75), sign="positive")) == [[[0], [0, 3, 1]]]
    many = (normal(1, 3000) > 0).double()  # long rows are where a plain sort mixes ties
    zeros = (many[0] == 0).nonzero().flatten()
    assert torch.equal(deletion_groups(many, shares=(0.3,))[0][0], zeros[:900])


def test_area_on_a_table_done_by_hand():
    scores = normal(2, 100)
    changes = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [0.0, -6.0, 0.0, 0.0, 0.0, 0.0]])
    assert deletion_auc(scores, changes).tolist() == [2.5, -1.0]
    assert torch.equal(deletion_curve(scores, changes), changes)


def test_the_truth_is_asked_about_these_groups():
    scores = normal(3, 20)
    asked = []

    def truth(groups):
        asked.append(lists(groups))
        return torch.tensor([[-float(row[g].sum()) for g in range(4)] for row in groups])

    curve = deletion_curve(scores, truth, shares=SHARES, sign="positive")
    want = lists(deletion_groups(scores, shares=SHARES, sign="positive"))
    assert asked == [want]
    assert curve.tolist() == [[-float(sum(group)) for group in row] for row in want]


def without(risk, group, x):
    """The ridge solution on the rest, by its normal equations: 2/m X^T X + l2 I, bias included."""
    rest = [i for i in range(risk.n) if i not in group]
    ones = lambda part: torch.cat([part, torch.ones(len(part), 1).double()], 1)  # noqa: E731
    a, y = ones(risk.train.x[rest]), risk.train.y[rest]
    h = 2 / len(rest) * a.T @ a + risk.l2 * torch.eye(a.shape[1]).double()
    return (ones(x) @ torch.linalg.solve(h, 2 / len(rest) * a.T @ y))[:, 0]


@pytest.fixture(scope="module")
def ridge():
    """Return a least squares risk, ten tests, and each example's exact contribution to each of their outputs."""
    risk, test = ridge_risk(n=60, l2=0.05), targets(10, seed=7)
    now = without(risk, [], test.x)
    return risk, test, torch.stack([now - without(risk, [i], test.x) for i in range(risk.n)], 1)


@pytest.mark.parametrize("sign", ["negative", "positive"])
def test_least_squares_without_the_groups_is_a_formula(ridge, sign):
    risk, test, contribution = ridge
    groups = deletion_groups(contribution, shares=SHARES, sign=sign)
    found = retrained_changes(risk, test, groups, method="newton")
    now = without(risk, [], test.x)
    for i, row in enumerate(lists(groups)):
        for j, group in enumerate(row):
            want = without(risk, group, test.x)[i] - now[i]
            assert abs(found[i, j] - want) < 1e-8
    assert (found[:, 0] == 0).all()


def test_the_true_contributions_beat_a_random_order(ridge):
    risk, test, contribution = ridge
    truth = partial(retrained_changes, risk, test, method="newton")
    best = deletion_auc(contribution, truth, shares=SHARES)
    assert (best > 0).all()
    assert (deletion_auc(contribution, truth, shares=SHARES, sign="positive") < 0).all()
    for seed in range(5):
        chance = deletion_auc(normal(10, risk.n, seed=seed), truth, shares=SHARES)
        assert (best > chance).all()
    assert torch.equal(
        best, deletion_auc(contribution, deletion_curve(contribution, truth, shares=SHARES), shares=SHARES)
    )


def test_each_test_is_explained_by_its_own_output():
    risk, test = logistic_risk(), classes(4, seed=9)
    groups = [[[0, 3], [1, 5, 7]], [[0, 3], [2]], [[4], [5, 1, 7]], [[6], [9]]]  # some of them shared
    by_label, third = (retrained_changes(risk, test, groups, method="newton", output=output) for output in (None, 2))
    mixed = retrained_changes(risk, test, groups, method="newton", output=[2, 1, 0, 2])
    for i, row in enumerate(groups):
        for j, group in enumerate(row):
            rest = [k for k in range(risk.n) if k not in group]
            alone = xl.training.minimise(risk.subset(rest), tolerance=1e-12)
            change = (alone.outputs(test) - risk.outputs(test))[i]
            assert torch.allclose(by_label[i, j], change[test.y[i]], atol=1e-8)
            assert torch.allclose(third[i, j], change[2], atol=1e-8)
            assert torch.allclose(mixed[i, j], change[[2, 1, 0, 2][i]], atol=1e-8)


def test_shared_groups_are_retrained_once(monkeypatch):
    risk, test, asked = logistic_risk(), classes(2, seed=9), []

    def counted(risk, groups, **options):
        asked.extend(groups)
        return xl.retraining.leave_out(risk, groups, **options)

    monkeypatch.setattr("explainlib.metrics.deletion.leave_out", counted)
    retrained_changes(risk, test, [[[], [1, 2]], [[2, 1], [3]]], method="newton")
    assert sorted(asked) == [[1, 2], [3]]


def test_scratch_is_training_on_the_rest_from_the_same_seed():
    """The engine's networks against ``training.fit`` in full batches on the examples that remain."""
    train, test = classes(24, seed=4), classes(3, seed=5)
    model = xl.models.mlp([3, 4, 3], "tanh", seed=11, dtype=torch.float64)
    groups = [[[], [0, 1]], [[], [5]], [[], [7, 20, 3]]]
    options = {"epochs": 30, "lr": 0.2, "optimizer": "sgd"}
    found = retrained_changes(xl.Risk(model, train), test, groups, seed=11, **options)
    whole = xl.training.fit(model, train, **options).model
    for i, (_, group) in enumerate(groups):
        rest = [k for k in range(24) if k not in group]
        net = xl.training.fit(model, train[rest], **options).model
        with torch.no_grad():
            change = (net(test.x) - whole(test.x))[i, test.y[i]]
        assert abs(change) > 1e-5 and torch.allclose(found[i, 1], change, atol=1e-9)
        assert found[i, 0] == 0


def test_finetuning_trains_on_from_where_the_risk_is(ridge):
    risk, test, contribution = ridge
    groups = deletion_groups(contribution, shares=(0.1, 0.2))
    exact = retrained_changes(risk, test, groups, method="newton")
    near = retrained_changes(risk, test, groups, method="finetune", epochs=400, lr=0.1, optimizer="sgd")
    assert torch.allclose(near, exact, atol=1e-5) and exact.abs().min() > 1e-3


def test_intervals_count_seeds():
    values = normal(6, 9) + 3 * normal(6, 1, seed=1)
    got, means = clustered_mean(values), values.mean(1).numpy()
    want = stats.ttest_1samp(means, 0).confidence_interval(0.95)
    assert (got, got.low, got.high) == pytest.approx((means.mean(), want.low, want.high), abs=1e-12)
    flat = stats.ttest_1samp(values.flatten().numpy(), 0).confidence_interval(0.95)
    assert got.high - got.low > 2 * (flat.high - flat.low)
    assert np.isnan(clustered_mean(values[:1]).low) and clustered_mean(values[:1]) == pytest.approx(means[0])


def test_pairs_share_their_seeds_noise():
    noise = 10 * normal(8, 5)
    a, b = noise + 1 + 0.1 * normal(8, 5, seed=1), noise + 0.1 * normal(8, 5, seed=2)
    got = paired_difference(a, b)
    want = stats.ttest_rel(a.mean(1).numpy(), b.mean(1).numpy()).confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=1e-10)
    assert got.low > 0.8 and got.high < 1.2
    back = paired_difference(b, a)
    assert (back, back.low, back.high) == pytest.approx((-got, -got.high, -got.low), abs=1e-12)


def test_curve_intervals_are_those_of_each_share():
    changes = normal(4, 3, 6)
    curve = curve_intervals(changes)
    assert len(curve) == 6
    assert (curve[2], curve[2].high) == (clustered_mean(changes[:, :, 2]), clustered_mean(changes[:, :, 2]).high)


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ((), "at least one"),
        ((0.0, 1.0), "below 1"),
        ((-0.1, 0.5), "below 1"),
        ((0.0, float("nan")), "below 1"),
        ((0.5, 0.1), "have to rise"),
        ((0.1, 0.1), "have to rise"),
        ((0.0, 0.01), "coarser"),
        ((0.0,), "coarser"),
        ((0.1, 0.12), "coarser"),
        ((0.0, 0.99), "leave at least one"),
    ],
)
def test_bad_shares(shares, words):
    with pytest.raises(ValueError, match=words):
        deletion_groups(normal(2, 10), shares=shares)


def test_bad_scores_and_truths():
    scores, groups, curve = normal(3, 100), bare(deletion_groups), bare(deletion_curve)
    with pytest.raises(ValueError, match="NaN"):
        groups(scores.index_fill(1, torch.tensor([2]), float("nan")))
    with pytest.raises(ValueError, match="test 1 are all equal"):
        groups(scores.index_fill(0, torch.tensor([1]), 0.5))
    rounding = 0.3 * (1 + 2.3e-16 * torch.arange(100).double().remainder(3))[None]
    assert rounding.unique().numel() > 1
    with pytest.raises(ValueError, match="test 0 are all equal"):
        groups(rounding)
    with pytest.raises(ValueError, match="sign='down'"):
        groups(scores, sign="down")
    with pytest.raises((ValueError, TypeCheckError)):
        groups(scores[0])
    with pytest.raises(ValueError, match="holds nothing"):
        groups(scores[:0])
    with pytest.raises(TypeError, match="double"):
        groups(scores.long())
    with pytest.raises(ValueError, match=r"\[3, 5\], expected \[3, 6\]"):
        curve(scores, torch.zeros(3, 5))
    with pytest.raises(ValueError, match=r"expected \[3, 6\]"):
        curve(scores, lambda groups: torch.zeros(6, 3))
    with pytest.raises(ValueError, match="the changes holds 18 NaN"):
        curve(scores, torch.full((3, 6), float("nan")))


def test_bad_pairs():
    with pytest.raises(ValueError, match="same seeds"):
        bare(paired_difference)(normal(3, 2), normal(4, 2))
    with pytest.raises(ValueError, match="NaN"):
        clustered_mean(torch.full((2, 2), float("nan")))
    with pytest.raises(ValueError, match="holds nothing"):
        clustered_mean(torch.zeros(0, 3))
    with pytest.raises(ValueError, match="seed, test, share"):
        bare(curve_intervals)(normal(3, 2))


def test_bad_retrainings():
    risk, test = logistic_risk(), classes(2, seed=9)
    good = [[[0]], [[1]]]
    with pytest.raises(ValueError, match="groups are for 1 tests"):
        retrained_changes(risk, test, good[:1], method="newton")
    with pytest.raises(ValueError, match="test 1 has 2 groups"):
        retrained_changes(risk, test, [[[0]], [[1], [2]]], method="newton")
    with pytest.raises(ValueError, match="test 0 has 0 groups"):
        retrained_changes(risk, test, [[], []], method="newton")
    for output in (-1, True, [0, -1]):
        with pytest.raises((ValueError, TypeCheckError), match="whole numbers from 0 to 2|output"):
            bare(retrained_changes)(risk, test, good, method="newton", output=output)
    with pytest.raises(ValueError, match="every group is empty"):
        retrained_changes(risk, test, [[[]], [[]]], method="newton")
    with pytest.raises(ValueError, match="0 to 2"):
        retrained_changes(risk, test, good, method="newton", output=3)
    with pytest.raises(ValueError, match="whole numbers"):
        bare(retrained_changes)(risk, test, good, method="newton", output=[0.5, 1.0])
    with pytest.raises(ValueError, match="one per test"):
        retrained_changes(risk, test, good, method="newton", output=[0, 1, 2])
    with pytest.raises(ValueError, match="outside the 40 training examples"):
        retrained_changes(risk, test, [[[0]], [[99]]], method="newton")
    with pytest.raises(ValueError, match="needs epochs"):
        retrained_changes(risk, test, good)
    with pytest.raises(ValueError, match="takes no seed;"):
        retrained_changes(risk, test, good, method="newton", seed=3)
    with pytest.raises(TypeError, match="groups of test 0"):
        bare(retrained_changes)(risk, test, [[0, 1], [2, 3]], method="newton")


def test_regression_with_several_outputs_has_to_be_told_which():
    risk, test = ridge_risk(o=2), targets(2, o=2, seed=1)
    with pytest.raises(ValueError, match="pass output="):
        retrained_changes(risk, test, [[[0]], [[1]]], method="newton")
    found = retrained_changes(risk, test, [[[0]], [[1]]], method="newton", output=1)
    after = xl.retraining.leave_out(risk, [[0], [1]])
    want = after.outputs(test)[[0, 1], [0, 1], 1] - risk.outputs(test)[[0, 1], 1]
    assert torch.allclose(found[:, 0], want, atol=1e-9)
    single = Examples(test.x, torch.zeros(2, 1).double())
    one = xl.training.minimise(xl.Risk(nn.Linear(4, 1).double(), targets(), loss="squared_error", l2=0.1))
    assert retrained_changes(one, single, [[[0]], [[1]]], method="newton").shape == (2, 1)
