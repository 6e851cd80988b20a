"""Mislabel detection: the area against scikit-learn's, the curve against inspecting one by one."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

import explainlib as xl
from explainlib.metrics import detection_curve, mislabel_auc
from tests.problems import classes, generator, normal


def problem(n=40, wrong=9, *, ties=False, seed=0):
    mask = torch.zeros(n, dtype=torch.bool)
    mask[torch.randperm(n, generator=generator(seed))[:wrong]] = True
    scores = normal(n, seed=seed + 1) + mask
    return scores.round() if ties else scores, mask


@given(seed=st.integers(0, 10_000), wrong=st.integers(1, 39), ties=st.booleans())
def test_area_is_scikit_learns(seed, wrong, ties):
    scores, mask = problem(wrong=wrong, ties=ties, seed=seed)
    assert mislabel_auc(scores, mask) == pytest.approx(roc_auc_score(mask.numpy(), scores.numpy()), abs=1e-12)
    assert mislabel_auc(-scores, mask) == pytest.approx(1 - mislabel_auc(scores, mask), abs=1e-12)


@given(seed=st.integers(0, 10_000), wrong=st.integers(1, 39), ties=st.booleans())
def test_area_under_the_detection_curve_is_that_of_the_ranks(seed, wrong, ties):
    """With q = wrong/n the checked share is q TPR + (1 - q) FPR, so the area is q/2 + (1 - q) AUC."""
    scores, mask = problem(wrong=wrong, ties=ties, seed=seed)
    curve, q = detection_curve(scores, mask).numpy(), wrong / 40
    assert np.trapezoid(curve, dx=1 / 40) == pytest.approx(q / 2 + (1 - q) * mislabel_auc(scores, mask), abs=1e-12)
    assert curve[0] == 0 and curve[-1] == pytest.approx(1) and (np.diff(curve) >= 0).all()


def test_curve_without_ties_is_inspecting_one_by_one():
    scores, mask = problem()
    order = sorted(range(40), key=lambda i: -scores[i])
    want = [0.0] + [sum(bool(mask[i]) for i in order[:k]) / 9 for k in range(1, 41)]
    np.testing.assert_allclose(detection_curve(scores, mask).numpy(), want, atol=1e-12)


def test_all_equal_is_chance():
    _, mask = problem()
    assert mislabel_auc(torch.zeros(40), mask) == 0.5
    np.testing.assert_allclose(detection_curve(torch.zeros(40), mask).numpy(), np.arange(41) / 40, atol=1e-12)


def test_equal_up_to_rounding_is_chance_too():
    """Scores that rise with the labels' places, by one unit in the last place: no order at all."""
    _, mask = problem()
    scores = 0.3 * (1 + 2.3e-16 * mask.double())
    assert scores[mask].min() > scores[~mask].max()
    assert mislabel_auc(scores, mask) == 0.5
    np.testing.assert_allclose(detection_curve(scores, mask).numpy(), np.arange(41) / 40, atol=1e-12)


def test_wrong_labels_owe_their_fit_to_themselves():
    """Self-influence is negative (training on an example lowers its own loss), hence the minus."""
    train = classes(90, C=2, seed=3)
    wrong = torch.zeros(90, dtype=torch.bool)
    wrong[::9] = True
    train = xl.datasets.Examples(train.x, torch.where(wrong, 1 - train.y, train.y))
    risk = xl.training.minimise(xl.Risk(xl.models.logistic(3, 2, dtype=torch.float64), train, l2=0.01))
    own = xl.influence.loss_influence(risk, train).diagonal()
    assert (own < 0).all()
    assert mislabel_auc(-own, wrong) > 0.8


def test_bad_input():
    scores, mask = problem()
    auc, curve = inspect.unwrap(mislabel_auc), inspect.unwrap(detection_curve)
    for function in (auc, curve):
        with pytest.raises(ValueError, match="one kind only"):
            function(scores, torch.ones(40, dtype=torch.bool))
        with pytest.raises(ValueError, match="one kind only"):
            function(scores, torch.zeros(40, dtype=torch.bool))
        with pytest.raises(ValueError, match="1 NaN"):
            function(scores.index_fill(0, torch.tensor([3]), float("nan")), mask)
        with pytest.raises(ValueError, match="one per score"):
            function(scores, mask[1:])
        with pytest.raises(ValueError, match="one per training example"):
            function(scores[None], mask)
        with pytest.raises(TypeError, match="mask"):
            function(scores, mask.long())
        with pytest.raises(TypeError, match="double"):
            function(scores.long(), mask)
        with pytest.raises(TypeError, match="not a tensor"):
            function(scores.tolist(), mask)
