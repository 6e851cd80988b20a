"""Weights everywhere: with n fixed, weight 2 is the example twice and weight 0 is never; or the weights are refused."""

import pytest
import torch

import explainlib as xl
from explainlib.influence.proximal import proximal_response
from tests.problems import classes, network_risk, relative_error

N, TWICE, NEVER = 24, 3, 7
KEPT = [i for i in range(N) if i not in (TWICE, NEVER)]
D = torch.float64


def pair(kind):
    """Return (reweighted, listed): one objective, written with weights and with a list of as many examples."""
    train = classes(N)
    weights = torch.ones(N, dtype=D)
    weights[TWICE], weights[NEVER] = 2, 0
    listed = train[[NEVER - 4 if i == NEVER else i for i in range(N)]]  # its place is taken by the other's copy
    assert NEVER - 4 == TWICE
    if kind == "head":
        model, options = xl.models.logistic(3, 3, dtype=D), {"l2": 0.05}
    else:
        model, options = network_risk().model, {"l2": 0.2}
    plain = xl.training.minimise(xl.Risk(model, listed, **options), tolerance=1e-12)
    return xl.Risk(plain.model, train, **options).reweighted(weights), plain


_pairs = {}


@pytest.fixture(params=["head", "network"])
def both(request):
    if request.param not in _pairs:
        _pairs[request.param] = pair(request.param)
    return _pairs[request.param]


TEST = classes(5, seed=3)
CURVED = {
    "hessian": {},
    "cg": {"solver": "cg"},
    "lissa": {"solver": "lissa"},
    "neumann": {"solver": "neumann"},
    "gauss_newton": {"curvature": "gauss_newton"},
    "gauss_newton, low rank": {"curvature": "gauss_newton", "solver": "low_rank"},
    "empirical_fisher": {"curvature": "empirical_fisher", "damping": 0.1},
    "empirical_fisher, low rank": {"curvature": "empirical_fisher", "damping": 0.1, "solver": "low_rank"},
    "identity": {"curvature": "identity"},
    "ekfac": {"curvature": "ekfac"},
}
WHOLE = {  # the same number on both sides
    "value": lambda r: r.value(),
    "gradient": lambda r: r.at(r.theta + 0.1).gradient(),
    "hessian": xl.curvature.hessian,
    "gauss_newton": xl.curvature.gauss_newton,
    "empirical_fisher": xl.curvature.empirical_fisher,
    "hessian_product": lambda r: xl.curvature.hessian_product(r, r.theta),
    "gauss_newton_product": lambda r: xl.curvature.gauss_newton_product(r, r.theta),
    "top_eigenvalues": lambda r: xl.curvature.top_eigenvalues(r, 3),
    "minimise": lambda r: xl.training.minimise(r.at(r.theta + 0.01), tolerance=1e-12).theta,
    "influence kernel": lambda r: xl.representers.kernel(r.model, TEST.x, TEST.x, kind="influence", risk=r),
}
COLUMNS = {f"loss_influence, {name}": (lambda r, o=o: xl.influence.loss_influence(r, TEST, **o)) for name, o in CURVED.items()}  # fmt: skip
COLUMNS |= {
    "parameter_influence": lambda r: xl.influence.parameter_influence(r).T,
    "explain": lambda r: xl.explain(r, TEST).values,
    "trak": lambda r: xl.influence.trak(r, TEST, features=None, damping=1e-2),
    "gradient_cosine": lambda r: xl.representers.gradient_cosine(r, TEST),
    "proximal_response": lambda r: proximal_response(r, damping=0.1, eps=0.01).T,
}
SUMS = {  # the weighted example gives what its two copies give together
    "target_importance": lambda r: xl.representers.target_importance(r).T,
    "representer_points": lambda r: xl.representers.representer_points(r, TEST, output=1),
}
REMOVALS = {
    "first order": lambda r, g: xl.influence.removal_effect(r, g, weighting="plain"),
    "second order": lambda r, g: xl.influence.removal_effect(r, g, weighting="plain", order=2, third_derivative=True),
    "Newton step": lambda r, g: xl.influence.removal_effect(r, g, weighting="plain", order="newton"),
    "leave_out": lambda r, g: xl.retraining.leave_out(r, g, weighting="plain"),
    "finetune": lambda r, g: xl.retraining.leave_out(r, g, weighting="plain", method="finetune", epochs=4),
    "scratch": lambda r, g: xl.retraining.leave_out(r, g, weighting="plain", method="scratch", epochs=4),
}


@pytest.mark.parametrize("name", list(WHOLE))
def test_what_speaks_of_the_whole_risk(both, name):
    weighted, listed = (WHOLE[name](risk) for risk in both)
    assert relative_error(weighted, listed) < 1e-8


@pytest.mark.parametrize("name", list(COLUMNS))
def test_what_speaks_of_one_more_unit_of_weight(both, name):
    weighted, listed = (COLUMNS[name](risk) for risk in both)
    at = [*KEPT, TWICE, TWICE]
    assert relative_error(weighted[:, at], listed[:, [*KEPT, TWICE, NEVER]]) < 1e-5  # the copy stands at NEVER


@pytest.mark.parametrize("name", list(SUMS))
def test_what_speaks_of_the_example_as_it_counts(both, name):
    weighted, listed = (SUMS[name](risk) for risk in both)
    assert relative_error(weighted[:, KEPT], listed[:, KEPT]) < 1e-9
    assert relative_error(weighted[:, TWICE], listed[:, TWICE] + listed[:, NEVER]) < 1e-9
    assert weighted[:, NEVER].abs().max() == 0


@pytest.mark.parametrize("name", list(REMOVALS))
def test_removing_it_removes_all_of_its_weight(both, name):
    weighted, listed = both
    one, two = (
        REMOVALS[name](weighted, [[TWICE], [0, TWICE]]),
        REMOVALS[name](listed, [[TWICE, NEVER], [0, TWICE, NEVER]]),
    )
    assert relative_error(one.change, two.change) < 1e-6
    assert relative_error(one.loss_change(TEST), two.loss_change(TEST)) < 1e-6
    if name in ("first order", "second order"):
        ratios = [xl.influence.series_trust(each).ratio for each in (one, two)]
        assert relative_error(*ratios) < 1e-2


def test_weighted_representer_points_still_add_up():
    weighted, _ = pair("head")
    total = xl.representers.representer_points(weighted, TEST, output=2).sum(1)
    assert relative_error(total, weighted.outputs(TEST)[:, 2]) < 1e-8


def test_what_has_no_meaning_under_weights_is_refused(both):
    weighted, _ = both
    group = [[0, 1]]
    for call in (
        lambda: xl.influence.removal_effect(weighted, group),
        lambda: xl.retraining.leave_out(weighted, group),
        lambda: xl.metrics.retrained_changes(weighted, TEST[[0]], [[[0, 1]]], method="newton"),
        lambda: xl.influence.second_order_influence(weighted, TEST, group),
        *(
            lambda m=m: xl.influence.influential_group(weighted, TEST, 3, method=m)
            for m in ("relaxed", "refit", "random")
        ),
    ):
        with pytest.raises(ValueError, match="weighting='plain'|unweighted risk"):
            call()


def test_a_bound_has_a_divergence_that_the_series_does_not_know():
    """Orders 1 and 2 would take the divergence for a part of the group: ten times too far from solving again."""
    model = xl.models.bayesian_mlp([3, 4, 3], "tanh", seed=1, dtype=D)
    risk = xl.training.ElboRisk(model, classes(N))
    start = xl.training.fit_variational_ensemble(risk, starts=risk.theta[None], epochs=1000, lr=0.02).theta[0]
    risk = xl.training.minimise(risk.at(start))
    for order in (1, 2):
        with pytest.raises(ValueError, match="order='newton'"):
            xl.influence.removal_effect(risk, [[0]], order=order)
    for weighting in ("plain", "preserve"):
        step = xl.influence.removal_effect(risk, [[0]], order="newton", weighting=weighting)
        assert relative_error(step.change, xl.retraining.leave_out(risk, [[0]], weighting=weighting).change) < 0.15
