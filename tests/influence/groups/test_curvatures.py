"""Selection and second order with other curvatures than the Hessian, against dense matrices, one example at a time."""

import warnings

import pytest
import torch

import explainlib as xl
from explainlib.influence.groups.quadratic import GroupQuadratic, indicators
from explainlib.influence.groups.selection import METHODS
from explainlib.influence.groups.swaps import Swaps
from tests.problems import (
    classes,
    convolution,
    dense_gauss_newton,
    general,
    images,
    logistic_risk,
    loop_gradients,
    network_risk,
    normal,
    relative_error,
)

influential_group = xl.influence.influential_group
second_order_influence = xl.influence.second_order_influence
CURVATURES = ("gauss_newton", "empirical_fisher", "identity", "ekfac", "fitted")
GROUPS = [[0], [3, 1, 7], list(range(10)), list(range(5, 25))]
DAMPING = 0.1
PROBLEMS = {
    "head": logistic_risk,
    "head as a network": lambda: general(logistic_risk()),
    "tanh": lambda: network_risk("tanh", n=30, l2=0.05),
    "relu": lambda: network_risk("relu", n=30, l2=0.05),
}
problems = pytest.mark.parametrize("make", PROBLEMS.values(), ids=list(PROBLEMS))


def five_tests(risk):
    return classes(5, d=risk.train.x.shape[1], seed=9)


def dense(risk, curvature):
    """Return the damped matrix."""
    eye = torch.eye(risk.p, dtype=torch.float64)
    return (
        DAMPING * eye
        + {
            "gauss_newton": lambda: dense_gauss_newton(risk),
            "empirical_fisher": lambda: xl.curvature.empirical_fisher(risk),
            "identity": lambda: eye,
            "ekfac": lambda: xl.curvature.Ekfac(risk).matrix(),
        }[curvature]()
    )


def stored(risk, test):
    """Return a and B with the Gauss-Newton matrix of every example formed alone."""
    eye = torch.eye(risk.p, dtype=torch.float64)
    own = torch.stack([dense_gauss_newton(risk.subset(torch.tensor([i]))) for i in range(risk.n)])
    inverse = torch.linalg.inv(own.mean(0) + DAMPING * eye)  # the ridge is in each of them
    v = inverse @ loop_gradients(risk, test).mean(0)
    gradients = loop_gradients(risk, risk.train) + risk.l2 * risk.theta
    return gradients @ v, (own + DAMPING * eye) @ v @ inverse @ gradients.T


def series(risk, test, group):
    """Return grad l_t . (theta2 - theta1) of "preserve" with Gauss-Newton matrices in the place of Hessians."""
    f, l2, eye = len(group) / risk.n, risk.l2, torch.eye(risk.p, dtype=torch.float64)
    G, own = dense_gauss_newton(risk), dense_gauss_newton(risk.subset(torch.tensor(group))) - l2 * eye
    inverse = torch.linalg.inv(G + DAMPING * eye)
    g = loop_gradients(risk, risk.train)[group].sum(0) / risk.n
    theta1 = -inverse @ (g + f * l2 * risk.theta) / (1 - f)
    theta2 = f / (1 - f) * inverse @ (G - l2 * eye - own) @ theta1
    return loop_gradients(risk, test).mean(0) @ (theta2 - theta1)


# greedy


@pytest.mark.parametrize("curvature", CURVATURES)
@problems
def test_greedy_is_the_dense_formula(make, curvature):
    risk = make()
    test = five_tests(risk)
    name = "ekfac" if curvature == "fitted" else curvature
    v = torch.linalg.solve(dense(risk, name), loop_gradients(risk, test).mean(0))
    want = (loop_gradients(risk, risk.train) @ v).argsort(descending=True)[:8].tolist()
    passed = xl.curvature.Ekfac(risk) if curvature == "fitted" else curvature
    with warnings.catch_warnings():
        warnings.simplefilter("error", xl.NotAtMinimumWarning)  # no minimum is needed
        got = influential_group(risk, test, 8, method="greedy", curvature=passed, damping=DAMPING)
    assert got.tolist() == want


def test_curvatures_choose_differently():
    risk = PROBLEMS["tanh"]()
    how = {"method": "greedy", "damping": 0.01}
    found = [influential_group(risk, five_tests(risk), 8, curvature=c, **how).tolist() for c in CURVATURES[:3]]
    assert found[0] != found[1] != found[2] != found[0]


def test_greedy_is_the_order_of_removals_of_one():
    """The group of k is made of the k examples whose own removal raises the mean test loss most."""
    risk = xl.Risk(convolution(), images(12), l2=0.1)
    how = {"curvature": "ekfac", "damping": DAMPING}
    alone = xl.influence.removal_loss_change(risk, [[i] for i in range(12)], images(3, seed=4), **how).mean(0)
    got = influential_group(risk, images(3, seed=4), 5, method="greedy", **how)
    assert got.tolist() == alone.argsort(descending=True)[:5].tolist()


def test_greedy_forms_no_gradient_an_example(monkeypatch):
    risk, test = PROBLEMS["tanh"](), classes(5, d=3, seed=9)
    how = {"method": "greedy", "curvature": xl.curvature.Ekfac(risk), "damping": DAMPING}
    want = influential_group(risk, test, 8, **how)

    def refuse(*_, **__):
        raise AssertionError("[n, p] was formed")

    monkeypatch.setattr(xl.Risk, "loss_gradients", refuse)
    assert torch.equal(influential_group(risk, test, 8, **how), want)


# refit


@pytest.mark.parametrize("curvature", ["gauss_newton", "empirical_fisher", "identity", "ekfac"])
def test_refit_takes_the_curvature_of_each_remaining_problem(curvature):
    risk, test = general(logistic_risk(l2=0.3)), classes(5, seed=3)
    chosen = []
    while len(chosen) < 20:
        rest = risk
        if chosen:
            weights = torch.full((risk.n,), risk.n / (risk.n - len(chosen))).double()
            weights[chosen] = 0
            rest = xl.training.minimise(risk, weights=weights, tolerance=1e-12)
        v = torch.linalg.solve(dense(rest, curvature), loop_gradients(rest, test).mean(0))
        first_order = loop_gradients(rest, risk.train) @ v
        first_order[chosen] = -torch.inf
        chosen += first_order.argsort(descending=True)[:2].tolist()
    how = {"method": "refit", "curvature": curvature, "damping": DAMPING}
    assert influential_group(risk, test, 20, **how).tolist() == chosen


# the quadratic


@problems
def test_the_quadratic_is_the_stored_one(make):
    risk = make()
    test, how = five_tests(risk), {"curvature": "gauss_newton", "damping": DAMPING}
    a, b = stored(risk, test)
    quadratic, w = GroupQuadratic(risk, test, **how), normal(3, risk.n, seed=5)
    assert relative_error(quadratic.a, a) < 1e-9
    assert relative_error(quadratic.product(w), w @ (b + b.T)) < 1e-9
    left, right = quadratic.factors()
    assert relative_error(left @ right.T, b) < 1e-9
    c1, c2 = quadratic.coefficients(7)
    assert relative_error(quadratic.value(w, 7), c1 * w @ a + c2 * ((w @ b) * w).sum(1)) < 1e-9


@problems
def test_the_second_order_is_the_series_in_the_parameters(make):
    risk = make()
    test = five_tests(risk)
    want = torch.stack([series(risk, test, group) for group in GROUPS])
    with warnings.catch_warnings():
        warnings.simplefilter("error", xl.NotAtMinimumWarning)
        got = second_order_influence(risk, test, GROUPS, curvature="gauss_newton", damping=DAMPING)
    assert relative_error(got, want) < 1e-9


def test_for_a_linear_model_it_is_the_hessians():
    for risk in (logistic_risk(), general(logistic_risk())):
        test = classes(5, seed=3)
        pair = [second_order_influence(risk, test, GROUPS, curvature=c) for c in ("hessian", "gauss_newton")]
        assert relative_error(*pair) < 1e-9
        chosen = [influential_group(risk, test, 6, curvature=c) for c in ("hessian", "gauss_newton")]
        assert torch.equal(*chosen)


def test_for_a_network_it_is_not():
    risk = xl.training.minimise(PROBLEMS["tanh"](), tolerance=1e-10)
    pair = [second_order_influence(risk, five_tests(risk), GROUPS, curvature=c) for c in ("hessian", "gauss_newton")]
    assert relative_error(*pair) > 1e-3


def test_parts_of_the_training_set_change_nothing(monkeypatch):
    risk, how = PROBLEMS["tanh"](), {"curvature": "gauss_newton", "damping": DAMPING}
    test = five_tests(risk)
    whole = second_order_influence(risk, test, GROUPS, **how), influential_group(risk, test, 6, **how)
    monkeypatch.setattr("explainlib.risk.PART", 7)
    monkeypatch.setattr("explainlib.influence.products.PART", 2)
    assert relative_error(second_order_influence(risk, test, GROUPS, **how), whole[0]) < 1e-12
    assert torch.equal(influential_group(risk, test, 6, **how), whole[1])


def test_swaps_climb_the_quadratic_of_gauss_newton():
    risk, how = PROBLEMS["tanh"](), {"curvature": "gauss_newton", "damping": DAMPING}
    test = five_tests(risk)
    values = {
        method: float(
            second_order_influence(risk, test, [influential_group(risk, test, 6, method=method, **how)], **how)
        )
        for method in ("greedy", "swap", "relaxed", "printed")
    }
    assert values["swap"] >= values["greedy"] and values["relaxed"] >= values["greedy"]
    group = influential_group(risk, test, 6, method="swap", **how).tolist()
    rest = [j for j in range(risk.n) if j not in group]
    swapped = [[j, *(g for g in group if g != i)] for i in group for j in rest]
    found = second_order_influence(risk, test, [group, *swapped], **how)
    assert float((found[1:] - found[0]).max()) < 1e-11
    swaps = Swaps(GroupQuadratic(risk, test, **how), 6)
    assert swaps.value(indicators(risk, [torch.tensor(group)])[0]) == pytest.approx(float(found[0]), rel=1e-9)


def test_the_published_relaxation_climbs_it_too():
    risk, how = PROBLEMS["tanh"](), {"curvature": "gauss_newton", "damping": DAMPING}
    test = five_tests(risk)
    a, b = stored(risk, test)
    w = xl.influence.printed_weights(risk, test, 4, **how)
    greedy = indicators(risk, [influential_group(risk, test, 4, method="greedy", **how)])[0]
    c1, c2 = GroupQuadratic(risk, test, **how).coefficients(4)
    values = [float(c1 * u @ a + c2 * u @ b @ u) for u in (w, greedy)]
    assert float(w.abs().sum()) <= 4 + 1e-6 and values[0] > values[1]


# float32


def in_single(examples):
    return xl.datasets.Examples(examples.x.float(), examples.y)


@pytest.mark.parametrize("curvature", ["gauss_newton", "ekfac", "empirical_fisher", "identity"])
def test_single_precision_is_close(curvature):
    double = PROBLEMS["tanh"]()
    single = xl.Risk(double.model.float(), in_single(double.train), l2=double.l2)
    assert single.theta.dtype == torch.float32
    test, how = five_tests(double), {"curvature": curvature, "damping": DAMPING}
    greedy = [
        influential_group(r, t, 8, method="greedy", **how) for r, t in ((double, test), (single, in_single(test)))
    ]
    assert set(greedy[0].tolist()) == set(greedy[1].tolist())
    if curvature == "gauss_newton":
        found = second_order_influence(single, in_single(test), GROUPS, **how)
        assert found.dtype == torch.float32
        assert relative_error(found.double(), second_order_influence(double, test, GROUPS, **how)) < 1e-4


# refusals


@pytest.mark.parametrize("curvature", ["ekfac", "empirical_fisher", "identity", "fitted"])
@pytest.mark.parametrize("method", ["relaxed", "swap", "printed"])
def test_what_needs_interactions_names_the_curvature_that_has_none(method, curvature):
    risk = PROBLEMS["tanh"]()
    name = "a fitted Ekfac has none" if curvature == "fitted" else f"curvature='{curvature}' has none"
    passed = xl.curvature.Ekfac(risk) if curvature == "fitted" else curvature
    said = f"method='{method}' needs a curvature of each example, and {name}; pass .*, or method='greedy'"
    with pytest.raises(ValueError, match=said):
        influential_group(risk, five_tests(risk), 3, method=method, curvature=passed)
    with pytest.raises(ValueError, match="or xl.influence.removal_loss_change for the first order"):
        second_order_influence(risk, five_tests(risk), GROUPS, curvature=passed)
    with pytest.raises(ValueError, match="xl.influence.influential_group\\(method='greedy'\\)"):
        xl.influence.printed_weights(risk, five_tests(risk), 3, curvature=passed)


def test_a_fitted_ekfac_is_not_refitted():
    risk = logistic_risk()
    how = {"method": "refit", "damping": DAMPING}
    with pytest.raises(ValueError, match="fitted Ekfac is of the whole problem.*curvature='ekfac', or method='greedy'"):
        influential_group(risk, five_tests(risk), 3, curvature=xl.curvature.Ekfac(risk), **how)
    assert len(influential_group(risk, five_tests(risk), 3, curvature="ekfac", **how)) == 3


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_curvature_is_refused(method):
    risk = logistic_risk()
    with pytest.raises(ValueError, match="curvature='fisher' is unknown"):
        influential_group(risk, five_tests(risk), 3, method=method, curvature="fisher")
    with pytest.raises(ValueError, match="curvature='fisher' is unknown"):
        second_order_influence(risk, five_tests(risk), GROUPS, curvature="fisher")


@pytest.mark.parametrize("curvature", ["gauss_newton", "ekfac"])
def test_refit_needs_a_minimum_with_any_curvature(curvature):
    risk = logistic_risk()
    elsewhere = risk.at(risk.theta + 0.1)
    with pytest.raises(ValueError, match="not at a minimum"):
        how = {"curvature": curvature, "damping": DAMPING, "strict": True}
        influential_group(elsewhere, five_tests(risk), 3, method="refit", **how)
