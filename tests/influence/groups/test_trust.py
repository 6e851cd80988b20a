"""The trust diagnosis against a dense oracle, and the acceptance case of least squares."""

from __future__ import annotations

import pytest
import torch

import explainlib as xl
from explainlib.influence.groups.trust import _diagnosis
from tests.problems import relative_error


@pytest.fixture(scope="module")
def softmax():
    train = xl.datasets.load("iris").train.double()
    return xl.training.minimise(xl.Risk(xl.models.logistic(4, 3).double(), train, l2=1e-2))


@pytest.fixture(scope="module")
def squares():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(200, 10, generator=generator, dtype=torch.float64)
    y = x @ torch.randn(10, 1, generator=generator, dtype=torch.float64)
    y = y + torch.randn(200, 1, generator=generator, dtype=torch.float64)
    model = torch.nn.Linear(10, 1).double()
    return xl.training.minimise(xl.Risk(model, xl.datasets.Examples(x, y), loss="squared_error", l2=1e-2))


def random_groups(n, fraction, count, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(n, generator=generator)[: round(fraction * n)] for _ in range(count)]


@pytest.mark.parametrize("weighting", ["preserve", "plain"])
def test_the_ratio_is_the_spectral_radius(softmax, weighting):
    groups = [*random_groups(softmax.n, 0.3, 2, 1), (softmax.train.y == 1).nonzero()[:, 0][:30]]
    trust = xl.influence.series_trust(xl.influence.removal_effect(softmax, groups, order=2, weighting=weighting))
    hessian, unit = xl.curvature.hessian(softmax), torch.eye(softmax.p, dtype=torch.float64)
    for ratio, group in zip(trust.ratio, groups, strict=True):
        f = len(group) / softmax.n
        mine = xl.curvature.hessian(softmax.subset(group)) - softmax.l2 * unit  # H_U, without ridge
        if weighting == "plain":
            matrix = f * torch.linalg.solve(hessian, mine)
        else:
            matrix = f / (1 - f) * (unit - torch.linalg.solve(hessian, mine + softmax.l2 * unit))
        assert float(ratio) == pytest.approx(torch.linalg.eigvals(matrix).abs().max().item(), rel=2e-2)


def test_below_one_the_series_of_a_quadratic_converges_and_above_it_does_not(squares):
    """theta1 times powers of the matrix, summed, reaches the retrained minimum when the ratio is below 1."""
    mild, wild = random_groups(squares.n, 0.3, 1, 2)[0], squares.train.x[:, 0].abs().argsort()[:120]
    for group, converges in ((mild, True), (wild, False)):
        removal = xl.influence.removal_effect(squares, [group], order=1, weighting="preserve")
        ratio = float(xl.influence.series_trust(removal).ratio)
        assert (ratio < 1) == converges
        f = len(group) / squares.n
        hessian, unit = xl.curvature.hessian(squares), torch.eye(squares.p, dtype=torch.float64)
        matrix = f / (1 - f) * (unit - torch.linalg.solve(hessian, xl.curvature.hessian(squares.subset(group))))
        term, movement = removal.theta1[0], torch.zeros(squares.p, dtype=torch.float64)
        for k in range(1, 200):
            movement = movement + (-1) ** k * term  # eps = -1
            term = matrix @ term
        truth = xl.retraining.leave_out(squares, [group], weighting="preserve").change[0]
        assert (relative_error(movement, truth) < 1e-6) == converges


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.2, 0.3, 0.4])
def test_in_least_squares_second_order_is_several_times_closer_and_newton_exact(squares, fraction):
    groups = random_groups(squares.n, fraction, 50, seed=round(100 * fraction))
    truth = xl.retraining.leave_out(squares, groups, tolerance=1e-12).theta
    error = {}
    for order in (1, 2, "newton"):
        error[order] = (xl.influence.removal_effect(squares, groups, order=order).theta - truth).norm(dim=1)
    assert float((error[1] / error[2]).median()) >= 3.5
    assert float(error["newton"].max()) < 1e-10


def test_words_follow_the_numbers(softmax):
    assert _diagnosis(0.1, 0.1).startswith("trusted") and _diagnosis(0.1, float("nan")).startswith("trusted")
    assert _diagnosis(0.4, 0.1).startswith("slow") and _diagnosis(0.1, 0.3).startswith("slow")
    assert _diagnosis(0.4, 0.9).startswith("doubtful") and _diagnosis(0.7, float("nan")).startswith("doubtful")
    assert _diagnosis(1.2, 0.1).startswith("not trusted") and _diagnosis(0.3, 1.1).startswith("not trusted")
    newton = xl.influence.removal_effect(softmax, [[0]], order="newton")
    with pytest.raises(ValueError, match="not a term of a series"):
        xl.influence.series_trust(newton)


def test_a_large_second_term_warns_at_once(softmax):
    weak = xl.training.minimise(xl.Risk(softmax.model, softmax.train, l2=1e-4))
    everyone_of_one_class = [(softmax.train.y == 1).nonzero()[:, 0].tolist()]
    with pytest.warns(xl.influence.SeriesWarning, match="second term"):
        removal = xl.influence.removal_effect(weak, everyone_of_one_class, order=2)
    assert not xl.influence.series_trust(removal).trusted[0]
