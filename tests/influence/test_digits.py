"""The acceptance on real digits: predictions against 200 retrained problems, and the solvers against each other."""

import pytest
import torch

import explainlib as xl

REMOVED, TESTS = 200, 20


def digits_risk(l2):
    split = xl.datasets.load("digits", split_seed=0)
    model = xl.models.logistic(64, 10, dtype=torch.float64)
    risk = xl.training.minimise(xl.Risk(model, split.train.double(), l2=l2), tolerance=1e-10)
    return risk, split.test.double()[:TESTS]


def agreement(predicted, truth):
    """Pearson, and the slope of truth on prediction."""
    a, b = predicted.flatten() - predicted.mean(), truth.flatten() - truth.mean()
    return float(a @ b / (a.norm() * b.norm())), float(a @ b / (a @ a))


@pytest.fixture(scope="module", params=[1e-2, 1e-3], ids=["l2=1e-2", "l2=1e-3"])
def removals(request):
    risk, test = digits_risk(request.param)
    order = torch.randperm(risk.n, generator=torch.Generator().manual_seed(0))[:REMOVED]
    singles = [[int(i)] for i in order]
    truth = xl.retraining.leave_out(risk, singles, weighting="plain")
    return request.param, risk, test, singles, truth


def test_the_minimum_is_one(removals):
    _, risk, _, _, truth = removals
    assert risk.gradient().norm() < 1e-10 and truth.gradient_norm.max() < 1e-10 and set(truth.status) == {"converged"}


def test_linear_prediction(removals):
    l2, risk, test, singles, truth = removals
    predicted = xl.influence.removal_effect(risk, singles, weighting="plain").loss_change(test, evaluate=False)
    pearson, slope = agreement(predicted, truth.loss_change(test))
    if l2 == 1e-2:
        assert pearson >= 0.999 and 1.0 <= slope <= 1.1
    else:
        assert pearson >= 0.985 and 1.05 <= slope <= 1.3  # first order is too small, and more so the smaller the ridge


def test_one_newton_step(removals):
    _, risk, test, singles, truth = removals
    step = xl.influence.removal_effect(risk, singles, order="newton", weighting="plain")
    pearson, slope = agreement(step.loss_change(test), truth.loss_change(test))
    assert pearson >= 0.999 and abs(slope - 1) <= 0.02


def test_solvers_agree():
    risk, test = digits_risk(1e-3)
    few = xl.Risk(risk.model, risk.train[:150], l2=0.0)  # n C = 1,500 rows; low_rank's Gram side needs n C < p
    top = float(xl.curvature.top_eigenvalues(risk, 1))
    for damping in (1e-2 * top, 1e-3 * top):
        want = xl.influence.loss_influence(risk, test, damping=damping)
        for solver in ("cg", "low_rank"):
            got = xl.influence.loss_influence(risk, test, damping=damping, solver=solver)
            assert (got - want).norm() < 1e-6 * want.norm(), solver
        if damping == 1e-2 * top:
            got = xl.influence.loss_influence(risk, test[:2], damping=damping, solver="lissa")
            assert (got - want[:2]).norm() < 1e-4 * want[:2].norm()
    tiny = few.subset(list(range(60)))  # 600 rows < 650 parameters: the Gram side
    want = xl.influence.loss_influence(tiny, test, curvature="gauss_newton", damping=1e-3 * top)
    got = xl.influence.loss_influence(tiny, test, curvature="gauss_newton", damping=1e-3 * top, solver="low_rank")
    assert (got - want).norm() < 1e-6 * want.norm()
