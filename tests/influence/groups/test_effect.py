"""Group influence against derivatives in eps of re-solved problems, closed forms of least squares, and the slips."""

import pytest
import torch

import explainlib as xl
from tests.problems import (
    classes,
    derivatives,
    general,
    group_weights,
    logistic_risk,
    network_risk,
    normal,
    relative_error,
    resolved,
    ridge_risk,
    targets,
)

removal_effect = xl.influence.removal_effect
GROUP = [0, 3, 4, 9, 12, 20, 21, 33]
WEIGHTINGS = ("preserve", "plain")


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("make", [logistic_risk, lambda: general(logistic_risk())], ids=["head", "general"])
def test_terms_match_the_resolved_problem(make, weighting):
    """The oracle is the problem itself, solved again around eps = 0: smaller steps drown in the solver."""
    risk = make()
    want1, want2 = derivatives(lambda eps: resolved(risk, group_weights(risk, GROUP, eps, weighting)))
    got = removal_effect(risk, [GROUP], order=2, weighting=weighting, third_derivative=True)
    assert relative_error(got.theta1[0], want1) < 1e-6
    assert relative_error(got.theta2[0], want2) < 1e-5
    assert torch.allclose(got.theta, risk.theta - got.theta1 + got.theta2)
    printed = removal_effect(risk, [GROUP], order=2, weighting=weighting)
    assert relative_error(printed.theta2[0], want2) > 1e-2  # the paper drops R''', and it is not small


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_terms_of_a_network_match_the_resolved_problem(weighting):
    risk = xl.training.minimise(network_risk("tanh", n=40, l2=0.05), tolerance=1e-12)
    want1, want2 = derivatives(lambda eps: resolved(risk, group_weights(risk, GROUP, eps, weighting)))
    got = removal_effect(risk, [GROUP], order=2, weighting=weighting, third_derivative=True)
    assert relative_error(got.theta1[0], want1) < 1e-5
    assert relative_error(got.theta2[0], want2) < 1e-4


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("make", [ridge_risk, lambda: general(ridge_risk())], ids=["head", "general"])
def test_least_squares_terms_match_and_the_third_derivative_is_nothing(make, weighting):
    risk, group = make(), [0, 3, 4, 9, 12]
    want1, want2 = derivatives(lambda eps: resolved(risk, group_weights(risk, group, eps, weighting)))
    without, with_it = (
        removal_effect(risk, [group], order=2, weighting=weighting, third_derivative=third) for third in (False, True)
    )
    assert torch.allclose(without.theta2, with_it.theta2, atol=1e-12)
    assert relative_error(without.theta1[0], want1) < 1e-7
    assert relative_error(without.theta2[0], want2) < 1e-5


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("outputs", [1, 2])
def test_newton_is_exact_in_least_squares(weighting, outputs):
    risk, groups = ridge_risk(o=outputs), [[0], [1, 2, 3], list(range(12))]
    step = removal_effect(risk, groups, order="newton", weighting=weighting)
    truth = xl.retraining.leave_out(risk, groups, weighting=weighting, tolerance=1e-13)
    for got, want in zip(step.change, truth.change, strict=True):
        assert relative_error(got, want) < 1e-9
    x = torch.cat([risk.train.x, torch.ones(risk.n, 1, dtype=torch.float64)], 1)
    for g, group in enumerate(groups):
        rest = [i for i in range(risk.n) if i not in group]
        c = 2 / (len(rest) if weighting == "preserve" else risk.n)
        normal_matrix = c * x[rest].T @ x[rest] + risk.l2 * torch.eye(x.shape[1], dtype=torch.float64)
        exact = torch.linalg.solve(normal_matrix, c * x[rest].T @ risk.train.y[rest]).T  # [o, d + 1]
        assert (risk.head.matrix(step.theta[g]) - exact).abs().max() < 1e-10


def test_newton_step_is_one_newton_step_of_the_remaining_problem():
    risk = general(logistic_risk())
    got = removal_effect(risk, [GROUP], order="newton", weighting="plain").change[0]
    rest = risk.reweighted(group_weights(risk, GROUP, -1.0, "plain"))
    assert relative_error(got, -torch.linalg.solve(xl.curvature.hessian(rest), rest.gradient())) < 1e-8
    damped = removal_effect(risk, [GROUP], order="newton", weighting="plain", damping=0.3).change[0]
    matrix = xl.curvature.hessian(rest) + 0.3 * torch.eye(risk.p, dtype=torch.float64)
    assert relative_error(damped, -torch.linalg.solve(matrix, rest.gradient())) < 1e-8


def test_slip_1_printed_sign_adds_the_terms_and_is_upweighting():
    """Basu eqs (9), (16) print theta1 + theta2: that is eps = +1, the group counted twice, not removed."""
    risk = logistic_risk(n=60, l2=0.1)
    got = removal_effect(risk, [GROUP], order=2, weighting="plain", third_derivative=True)
    removed = xl.retraining.leave_out(risk, [GROUP], weighting="plain").change[0]
    doubled = resolved(risk, group_weights(risk, GROUP, +1.0, "plain")) - risk.theta
    printed, corrected = (got.theta1 + got.theta2)[0], (got.theta2 - got.theta1)[0]
    assert relative_error(corrected, removed) < 0.15 < 1.0 < relative_error(printed, removed)
    assert relative_error(printed, doubled) < 0.15
    assert torch.allclose(got.change[0], corrected)


def test_minus_eps_follows_the_series_for_small_steps():
    """theta(-s) - theta = -s theta1 + s^2 theta2 + O(s^3): halving s divides the rest by eight."""
    risk = logistic_risk()
    got = removal_effect(risk, [GROUP], order=2, third_derivative=True)

    def rest(s):
        truth = resolved(risk, group_weights(risk, GROUP, -s, "preserve")) - risk.theta
        return float((truth + s * got.theta1[0] - s * s * got.theta2[0]).norm())

    assert 6.5 < rest(0.1) / rest(0.05) < 9.5


def test_first_order_is_additive_and_second_order_is_not():
    risk, test, singles = logistic_risk(), classes(5, seed=3), [[i] for i in GROUP]
    one = removal_effect(risk, singles, weighting="plain")
    together = removal_effect(risk, [GROUP], weighting="plain")
    assert torch.allclose(one.change.sum(0), together.change[0], atol=1e-12)
    linear = removal_effect(risk, singles, weighting="plain").loss_change(test, evaluate=False)
    assert torch.allclose(linear.sum(1), together.loss_change(test, evaluate=False)[:, 0], atol=1e-12)
    second = [removal_effect(risk, g, order=2, weighting="plain").theta2 for g in (singles, [GROUP])]
    assert relative_error(second[0].sum(0), second[1][0]) > 0.1


def test_first_order_plain_is_minus_one_nth_of_single_influence():
    risk, test = logistic_risk(), classes(5, seed=3)
    effect = removal_effect(risk, [[i] for i in range(risk.n)], weighting="plain")
    table = xl.influence.loss_influence(risk, test)
    assert torch.allclose(effect.loss_change(test, evaluate=False), -table / risk.n, atol=1e-12)
    assert torch.allclose(effect.change, -xl.influence.parameter_influence(risk) / risk.n, atol=1e-12)


def test_second_order_beats_first_on_a_correlated_group():
    """Forty copies of one direction: the group's curvature is far from everyone's, the first order cannot see it."""
    x = torch.randn(100, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x[:30] = x[:1] + 0.1 * x[:30]
    y = x @ torch.tensor([[1.0], [-1.0], [0.5]], dtype=torch.float64) + 0.3 * x[:, :1].sin() + 0.1 * x[:, 1:2] ** 2
    y[:30] += 0.5
    train = xl.datasets.Examples(x, y)
    model = torch.nn.Linear(3, 1, dtype=torch.float64)
    risk = xl.training.minimise(xl.Risk(model, train, loss="squared_error", l2=0.05))
    group = [list(range(30))]
    truth = xl.retraining.leave_out(risk, group, weighting="plain").change[0]
    errors = [relative_error(removal_effect(risk, group, order=o, weighting="plain").change[0], truth) for o in (1, 2)]
    assert errors[1] < 0.8 * errors[0]


@pytest.mark.parametrize("order", [1, 2, "newton"])
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_batches_of_groups_equal_one_by_one(monkeypatch, order, weighting):
    risk, groups = logistic_risk(), [[0], [1, 2], GROUP]
    whole = removal_effect(risk, groups, order=order, weighting=weighting).change
    monkeypatch.setattr("explainlib.influence.groups.effect.ENTRIES", 1)
    pieces = removal_effect(risk, groups, order=order, weighting=weighting).change
    alone = torch.cat([removal_effect(risk, [g], order=order, weighting=weighting).change for g in groups])
    assert torch.allclose(whole, pieces, rtol=1e-8, atol=1e-11) and torch.allclose(whole, alone, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize(
    "solver", ["cg", "low_rank", xl.solvers.Lissa(tolerance=1e-9)], ids=["cg", "low_rank", "lissa"]
)
def test_solvers_agree_on_groups(solver):
    risk = logistic_risk()
    want = removal_effect(risk, [GROUP], order=2).change
    assert relative_error(removal_effect(risk, [GROUP], order=2, solver=solver).change, want) < 1e-6


@pytest.mark.parametrize("order", ["1", "2", 3, 0, "third"])
def test_an_order_by_another_name_is_refused(order):
    """A string "1" once fell through to the second order under the name of the first."""
    with pytest.raises(ValueError, match="order"):
        removal_effect(logistic_risk(), [GROUP], order=order)


def test_loss_change_is_the_evaluated_or_the_linearised_loss():
    for risk, test in [
        (logistic_risk(), classes(5, seed=3)), (general(logistic_risk()), classes(5, seed=3)),
        (ridge_risk(), targets(5, seed=3)),
    ]:  # fmt: skip
        effect = removal_effect(risk, [[0, 1], [2]])
        want = torch.stack([risk.at(theta).losses(test) - risk.losses(test) for theta in effect.theta], 1)
        assert torch.allclose(effect.loss_change(test), want, atol=1e-12)
        assert torch.allclose(effect.loss_change(test, evaluate=False), risk.loss_gradients(test) @ effect.change.T)
        assert torch.allclose(effect.outputs(test)[1], risk.at(effect.theta[1]).outputs(test), atol=1e-12)
        assert torch.allclose(effect.model(1)(test.x), effect.outputs(test)[1], atol=1e-12)


def test_the_renormalisation_trap():
    """Predictions for "plain" against a truth for "preserve": one shift for all, so the overall order suffers alone."""
    risk, test = logistic_risk(n=60, d=4, l2=0.05), classes(12, d=4, seed=7)
    singles = [[i] for i in range(60)]
    predicted = removal_effect(risk, singles, weighting="plain").loss_change(test, evaluate=False)
    truths = {w: xl.retraining.leave_out(risk, singles, weighting=w).loss_change(test) for w in WEIGHTINGS}

    def spearman(a, b):
        ranks = [v.flatten().argsort().argsort().double() for v in (a, b)]
        return float(torch.corrcoef(torch.stack(ranks))[0, 1])

    def per_test(truth):
        return sum(spearman(a, b) for a, b in zip(predicted, truth, strict=True)) / len(test)

    assert spearman(predicted, truths["plain"]) > 0.99
    assert spearman(predicted, truths["preserve"]) < spearman(predicted, truths["plain"]) - 0.03
    assert per_test(truths["preserve"]) > per_test(truths["plain"]) - 0.01
    shift = torch.linalg.solve(xl.curvature.hessian(risk), risk.l2 * risk.theta) / (risk.n - 1)
    seen = (truths["preserve"] - truths["plain"]).mean(1)
    assert relative_error(seen, risk.loss_gradients(test) @ shift) < 0.2


def test_preserve_needs_an_unweighted_risk_and_plain_keeps_its_weights():
    base = logistic_risk()
    weights = torch.ones(base.n, dtype=torch.float64)
    weights[5] = 0.0
    weights[6] = 2.0
    risk = xl.training.minimise(base, weights=weights, tolerance=1e-12)
    with pytest.raises(ValueError, match="plain"):
        removal_effect(risk, [[1]])
    truth = xl.retraining.leave_out(risk, [[6, 7]], weighting="plain").change[0]
    rest = weights.clone()
    rest[[6, 7]] = 0
    assert torch.allclose(truth, resolved(base, rest) - risk.theta, atol=1e-8)
    got = removal_effect(risk, [[6, 7]], order=2, weighting="plain", third_derivative=True).change[0]
    assert relative_error(got, truth) < 0.1


def indefinite_group(strength=1.0):
    """Return a least-squares risk, and groups of which one leaves a remaining problem of negative curvature."""
    x = normal(12, 2, seed=1)
    x[:4, 1] = 3.0
    x[4:, 1] *= 0.1
    y = x @ normal(2, 1, seed=2) + 0.1 * normal(12, 1, seed=3)
    model = torch.nn.Linear(2, 1, bias=False, dtype=torch.float64)
    weights = torch.ones(12, dtype=torch.float64)
    weights[8:] = -0.5 * strength  # extrapolated weights: without the first four, some curvature is below zero
    risk = xl.Risk(model, xl.datasets.Examples(x, y), loss="squared_error", l2=1e-3).reweighted(weights)
    return risk.at(torch.linalg.solve(xl.curvature.hessian(risk), -risk.gradient()) + risk.theta)


@pytest.mark.parametrize("batch", [2**23, 1])
def test_the_status_is_each_groups_own(monkeypatch, batch):
    """One group whose remaining problem is indefinite was once everyone's status, or the other way about."""
    monkeypatch.setattr("explainlib.influence.groups.effect.ENTRIES", batch)
    risk, groups = indefinite_group(), [[0], [4, 5, 6, 7], [1, 2]]
    lowest = [
        float(torch.linalg.eigvalsh(xl.curvature.hessian(risk.reweighted(rest)))[0])
        for rest in xl.influence.groups.removal_weights(risk, [torch.tensor(g) for g in groups], "plain")
    ]
    assert [value < 0 for value in lowest] == [False, True, False]
    with pytest.warns(xl.solvers.SolverWarning, match="not_positive_definite"):
        got = removal_effect(risk, groups, order="newton", weighting="plain", on_failure="warn")
    assert [status.split(",")[0] for status in got.status] == ["converged", "not_positive_definite", "converged"]
    with pytest.raises(xl.solvers.SolverError, match=r"not_positive_definite.*groups 1\)"):
        removal_effect(risk, groups, order="newton", weighting="plain")


def test_the_status_names_the_term_that_failed():
    risk = logistic_risk()
    solver = xl.solvers.CG(tolerance=1e-13, max_steps=1)
    with pytest.warns(xl.solvers.SolverWarning, match="max_steps"):
        got = removal_effect(risk, [GROUP, [1]], order=2, solver=solver, on_failure="warn")
    assert all(status.startswith("max_steps (theta1), |gradient|") for status in got.status)
    assert all(status.startswith("converged, ") for status in removal_effect(risk, [GROUP, [1]], order=2).status)
