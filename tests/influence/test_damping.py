"""Damped influence against the problem it belongs to: the minimum of R(., eps) + damping/2 |. - theta|^2, in both dtypes.

The oracle is float64 autograd and Newton on that objective, solved again around eps = 0; float32 is compared with it.
"""

import copy

import pytest
import torch

import explainlib as xl
from explainlib.datasets import Examples
from explainlib.influence.groups.quadratic import GroupQuadratic
from tests.problems import (
    classes,
    derivatives,
    general,
    group_weights,
    logistic_risk,
    normal,
    relative_error,
    ridge_risk,
)

removal_effect = xl.influence.removal_effect
GROUP = [0, 3, 4, 9, 12, 20, 21, 33]
DAMPING = 0.1  # of the order of the middle eigenvalues
WEIGHTINGS = ("preserve", "plain")
DTYPES = {torch.float64: 1e-5, torch.float32: 1e-3}


def in_dtype(risk, dtype):
    """Return the same risk at the same parameters, in another dtype."""
    if dtype == torch.float64:
        return risk
    train = Examples(
        risk.train.x.to(dtype), risk.train.y if risk.loss.name == "cross_entropy" else risk.train.y.to(dtype)
    )
    names = risk.parameters.names
    other = xl.Risk(copy.deepcopy(risk.model).to(dtype), train, loss=risk.loss, l2=risk.l2, parameters=names)
    return other.at(risk.theta.to(dtype))


def damped_minimum(risk, weights, damping):
    """Return argmin R_w(x) + damping/2 |x - theta|^2, by Newton."""

    def objective(x):
        return risk.weighted_value(x, weights) + damping / 2 * (x - risk.theta).square().sum()

    x = risk.theta.clone()
    for _ in range(30):
        gradient = torch.func.grad(objective)(x)
        if gradient.norm() < 1e-14:
            break
        x = x - torch.linalg.solve(torch.func.hessian(objective)(x), gradient)
    return x


def wanted(risk, group, weighting, damping=DAMPING):
    return derivatives(lambda eps: damped_minimum(risk, group_weights(risk, group, eps, weighting), damping))


PROBLEMS = {"head": logistic_risk, "general": lambda: general(logistic_risk()), "squares": ridge_risk}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_damped_group_terms_are_those_of_the_damped_problem(name, weighting, dtype):
    risk = PROBLEMS[name]()
    group = [i for i in GROUP if i < risk.n]
    theta1, theta2 = wanted(risk, group, weighting)
    options = {"order": 2, "weighting": weighting, "third_derivative": True, "damping": DAMPING}
    got = removal_effect(in_dtype(risk, dtype), [group], **options)
    assert relative_error(got.theta1[0].double(), theta1) < DTYPES[dtype]
    assert relative_error(got.theta2[0].double(), theta2) < 10 * DTYPES[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("solver", ["dense", "cg", "low_rank", "arnoldi"])
def test_every_solver_takes_the_damping_alike(solver, dtype):
    risk = logistic_risk()
    theta1, theta2 = wanted(risk, GROUP, "preserve")
    options = {"order": 2, "third_derivative": True, "damping": DAMPING, "solver": solver}
    got = removal_effect(in_dtype(risk, dtype), [GROUP], **options)
    assert relative_error(got.theta1[0].double(), theta1) < 10 * DTYPES[dtype]
    assert relative_error(got.theta2[0].double(), theta2) < 10 * DTYPES[dtype]


def twofold(noise=1.0):
    """Least squares in which two thirds of the examples are the group, with the inputs of the rest, twice over."""
    x = normal(15, 4, seed=2)
    y = x @ normal(4, 1, seed=3) + noise * normal(15, 1, seed=4)
    other = y + normal(15, 1, seed=5)
    train = Examples(torch.cat([x, x, x]), torch.cat([y, other, -other]))
    model = torch.nn.Linear(4, 1, dtype=torch.float64)
    risk = xl.training.minimise(xl.Risk(model, train, loss="squared_error", l2=0.05), tolerance=1e-13)
    return risk, list(range(30))


@pytest.mark.parametrize("dtype", DTYPES)
def test_slip_15_one_curvature_has_no_second_order(dtype):
    """Eq. (15) read literally, f/(1-f) [theta1 - H_d^-1 (H_U + l2 I) theta1], is 0.27 to 1.6 of theta1 here."""
    risk, group = twofold()
    for damping in (0.0, 0.1, 1.0):
        got = removal_effect(in_dtype(risk, dtype), [group], order=2, damping=damping)
        size = float(got.theta1.norm())
        assert float(got.theta2.norm()) < 1e2 * torch.finfo(dtype).eps * size
        f, unit = len(group) / risk.n, torch.eye(risk.p, dtype=torch.float64)
        damped = xl.curvature.hessian(risk) + damping * unit
        own = xl.curvature.hessian(risk.subset(group))  # H_U + l2 I
        theta1 = got.theta1[0].double()
        printed = f / (1 - f) * (theta1 - torch.linalg.solve(damped, own @ theta1))
        assert damping == 0 or printed.norm() > 0.05 * size
        trust = xl.influence.series_trust(got, damping=damping)
        assert float(trust.ratio) < 1e3 * torch.finfo(dtype).eps and trust.trusted[0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_damped_newton_step_is_the_damped_problems(weighting, dtype):
    """For least squares one step is the minimum."""
    risk, group = ridge_risk(), [0, 3, 4, 9, 12]
    want = damped_minimum(risk, group_weights(risk, group, -1.0, weighting), DAMPING) - risk.theta
    got = removal_effect(in_dtype(risk, dtype), [group], order="newton", weighting=weighting, damping=DAMPING)
    assert relative_error(got.change[0].double(), want) < DTYPES[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
def test_damped_single_influence_is_the_damped_problems(dtype):
    risk, test = logistic_risk(), classes(5, seed=3)

    def moved(eps):
        weights = torch.ones(risk.n, dtype=torch.float64)
        weights[7] += risk.n * eps
        return damped_minimum(risk, weights, DAMPING)

    want = derivatives(moved, step=1e-3)[0]
    here = in_dtype(risk, dtype)
    got = xl.influence.parameter_influence(here, [7], damping=DAMPING)[0].double()
    assert relative_error(got, want) < DTYPES[dtype]
    tests = Examples(test.x.to(dtype), test.y)
    losses = xl.influence.loss_influence(here, tests, damping=DAMPING)[:, 7].double()
    assert relative_error(losses, risk.loss_gradients(test) @ want) < DTYPES[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["head", "general"])
def test_damped_selection_is_the_linearised_damped_removal(name, dtype):
    """q, its stored factors and its products, with the second-order terms found by differences (without R''')."""
    risk, test = PROBLEMS[name](), classes(5, seed=3)
    here, tests = in_dtype(risk, dtype), Examples(test.x.to(dtype), test.y)
    theta1 = wanted(risk, GROUP, "preserve")[0]
    f, unit = len(GROUP) / risk.n, torch.eye(risk.p, dtype=torch.float64)
    hessian, own = xl.curvature.hessian(risk), xl.curvature.hessian(risk.subset(GROUP))
    theta2 = f / (1 - f) * torch.linalg.solve(hessian + DAMPING * unit, (hessian - own) @ theta1)
    want = risk.loss_gradients(test).mean(0) @ (theta2 - theta1)
    got = xl.influence.second_order_influence(here, tests, [GROUP], damping=DAMPING)
    assert float((got.double() - want).abs()) < 10 * DTYPES[dtype] * float(want.abs())
    quadratic = GroupQuadratic(here, tests, damping=DAMPING)
    w = here.theta.new_zeros(1, risk.n)
    w[0, GROUP] = 1
    curved, solved = (side.double() for side in quadratic.factors())
    c1, c2 = quadratic.coefficients(len(GROUP))
    stored = c1 * quadratic.a[GROUP].double().sum() + c2 * curved[GROUP].sum(0) @ solved[GROUP].sum(0)
    assert float((stored - want).abs()) < 10 * DTYPES[dtype] * float(want.abs())
    b = curved @ solved.T
    assert relative_error(quadratic.product(w)[0].double(), (b + b.T) @ w[0].double()) < DTYPES[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_damped_trust_ratio_is_that_of_the_damped_series(weighting, dtype):
    """The terms of a quadratic risk are powers of one matrix; summed they reach the damped minimum."""
    risk, group = ridge_risk(l2=0.02), [0, 3, 4, 9, 12, 13, 14, 15]
    f, unit = len(group) / risk.n, torch.eye(risk.p, dtype=torch.float64)
    hessian, own = xl.curvature.hessian(risk), xl.curvature.hessian(risk.subset(group))
    damped = hessian + DAMPING * unit
    rest = f / (1 - f) * (hessian - own) if weighting == "preserve" else -f * (own - risk.l2 * unit)
    matrix = torch.linalg.solve(damped, rest)
    here = in_dtype(risk, dtype)
    removal = removal_effect(here, [group], order=2, weighting=weighting, damping=DAMPING)
    ratio = float(xl.influence.series_trust(removal, damping=DAMPING).ratio)
    assert ratio == pytest.approx(float(torch.linalg.eigvals(matrix).abs().max()), rel=2e-2)
    term = removal.theta1[0].double()
    assert relative_error(removal.theta2[0].double(), matrix @ term) < 10 * DTYPES[dtype]
    movement = torch.zeros_like(term)
    for k in range(1, 300):
        movement, term = movement + (-1) ** k * term, matrix @ term
    want = damped_minimum(risk, group_weights(risk, group, -1.0, weighting), DAMPING) - risk.theta
    assert ratio < 1 and relative_error(movement, want) < DTYPES[dtype]
