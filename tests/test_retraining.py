"""The oracle itself: left-out minima against closed forms and against the problem rebuilt from the data that remain."""

import pytest
import torch

import explainlib as xl
from explainlib.training import MinimiseError
from tests.problems import classes, general, logistic_risk, network_risk, ridge_risk

leave_out = xl.retraining.leave_out


@pytest.mark.parametrize("weighting", ["plain", "preserve"])
@pytest.mark.parametrize("o", [1, 2])
def test_ridge_leave_one_out_is_sherman_morrison(weighting, o):
    """H = 2/n X^T X + l2 I, r = X theta - y, c = 2/n. Without i: (A - c x x^T) delta = c x r + s theta, with

    plain:     A = H,             s = 0
    preserve:  A = H - l2/n I,    s = l2/n     (times (n-1)/n the mean over the rest is 1/n, its ridge l2 (n-1)/n)
    """
    risk = ridge_risk(o=o)
    n, c = risk.n, 2 / risk.n
    x = torch.cat([risk.train.x, torch.ones(n, 1).double()], 1)
    theta = risk.head.matrix(risk.theta).T  # [d + 1, o]
    eye = torch.eye(x.shape[1]).double()
    s = 0.0 if weighting == "plain" else risk.l2 / n
    a = c * x.T @ x + (risk.l2 - s) * eye
    residual = x @ theta - risk.train.y
    got = leave_out(risk, [[i] for i in range(n)], weighting=weighting, tolerance=1e-13)
    for i in range(n):
        right = c * torch.outer(x[i], residual[i]) + s * theta
        u, v = torch.linalg.solve(a, x[i]), torch.linalg.solve(a, right)
        delta = v + c * torch.outer(u, x[i] @ v) / (1 - c * x[i] @ u)
        assert (risk.head.matrix(got.theta[i]).T - theta - delta).abs().max() < 1e-10


@pytest.mark.parametrize("make", [logistic_risk, lambda: general(logistic_risk())], ids=["head", "general"])
def test_preserve_is_training_on_what_remains(make):
    risk, group = make(), [0, 5, 11]
    rest = [i for i in range(risk.n) if i not in group]
    alone = xl.training.minimise(risk.subset(rest), tolerance=1e-12)
    got = leave_out(risk, [group], tolerance=1e-12)
    assert torch.allclose(got.theta[0], alone.theta, atol=1e-9)
    plain = leave_out(risk, [group], weighting="plain", tolerance=1e-12)
    lighter = xl.Risk(alone.model, alone.train, l2=risk.l2 * risk.n / len(rest), parameters=list(risk.parameters.names))
    assert torch.allclose(plain.theta[0], xl.training.minimise(lighter, tolerance=1e-12).theta, atol=1e-9)


def test_a_network_starts_where_it_is():
    risk = xl.training.minimise(network_risk(n=40, l2=0.05), tolerance=1e-11)
    got = leave_out(risk, [[0], [1, 2]])
    assert got.gradient_norm.max() <= 1e-10 and got.change.norm(dim=1).max() < 1.0
    assert got.change.norm(dim=1).min() > 0


def test_what_it_carries():
    risk, test = logistic_risk(), classes(5, seed=3)
    got = leave_out(risk, [[0], torch.tensor([1, 2])], weighting="plain")
    assert got.theta.shape == got.change.shape == (2, risk.p) and got.weighting == "plain"
    assert got.status == ("converged", "converged") and got.loss_change(test).shape == (5, 2)
    assert torch.allclose(got.change, got.theta - risk.theta)
    want = torch.stack([risk.at(t).losses(test) - risk.losses(test) for t in got.theta], 1)
    assert torch.allclose(got.loss_change(test), want)


def test_removing_in_another_order_is_the_same_removal():
    risk = logistic_risk()
    got = leave_out(risk, [[3, 1, 2], [1, 2, 3]], tolerance=1e-12)
    assert torch.allclose(got.theta[0], got.theta[1], atol=1e-10)


def test_a_copy_leaves_and_its_twin_stays():
    """Preserve on duplicated data: taking one whole copy away changes nothing at all."""
    base = logistic_risk(20)
    twice = xl.training.minimise(xl.Risk(base.model, base.train[list(range(20)) * 2], l2=base.l2), tolerance=1e-12)
    assert leave_out(twice, [list(range(20))], tolerance=1e-12).change.abs().max() < 1e-9


def test_methods_to_come_and_unknown_ones():
    risk = logistic_risk(12)
    for method in ("finetune", "scratch"):
        with pytest.raises(xl.NotAvailableYet, match="not available yet.*'newton'"):
            leave_out(risk, [[0]], method=method)
    with pytest.raises(ValueError, match="method='magic'"):
        leave_out(risk, [[0]], method="magic")


def test_not_a_minimum_warns_and_strict_raises():
    risk = network_risk(l2=0.1)
    with pytest.warns(xl.NotAtMinimumWarning):
        leave_out(risk, [[0]])
    with pytest.raises(ValueError, match="not at a minimum"):
        leave_out(risk, [[0]], strict=True)


def test_failure_is_raised():
    """No float64 gradient is ever this small."""
    risk = logistic_risk(12)
    with pytest.raises(MinimiseError, match=r"2 of 2 problems did not converge.*\|gradient\| = "):
        leave_out(risk, [[2, 3], [0]], tolerance=1e-40)
    with pytest.warns(xl.training.MinimiseWarning):
        got = leave_out(risk, [[2, 3], [0]], tolerance=1e-40, on_failure="warn")
    assert "converged" not in got.status
