"""Rows: the risk, the gate, curvature, influence of examples and groups, retraining."""

from __future__ import annotations

import torch

import explainlib as xl
from explainlib import curvature, gate, influence
from explainlib.gate import GRADIENT, HESSIAN
from explainlib.losses import require_loss
from explainlib.params import Parameters
from tests.device.calls.problems import D, normal, risk, test, trajectory
from tests.device.table import call

GROUPS = [[0, 3, 5], [1, 2, 4, 7]]


@call("xl.Risk", "xl.Risk.n", "xl.Risk.p", "xl.Risk.model", "xl.Risk.at", "xl.Risk.value", "xl.Risk.gradient", "xl.Risk.losses", "xl.Risk.outputs", "xl.Risk.loss_gradients", "xl.Risk.features")  # fmt: skip
def risk_at_parameters(device):
    found = []
    for kind in ("softmax", "network", "ridge", "convolution"):
        r = risk(device, kind)
        r = r.at(r.theta + 0.1 * normal(r.p).to(device))
        found += [r.value(), r.gradient(), r.losses(), r.outputs(), r.loss_gradients(), r.model, r.n]
    return found, xl.Risk(
        risk(device).model, test(device), parameters=["0.weight", "0.bias"] if 0 else "last"
    ).features()


@call("xl.Risk.reweighted", "xl.Risk.subset", "xl.Risk.weights_or_ones", "xl.Risk.weighted_value", "xl.Risk.objectives", "xl.Risk.parts", "xl.Risk.require_examples", "xl.Risk.require_derivatives", "xl.Risk.cached", "xl.Risk.cached_or_none")  # fmt: skip
def weighted_risk(device):
    r = risk(device).reweighted(torch.linspace(0, 2, 20, dtype=D).to(device))
    r.require_derivatives(GRADIENT, HESSIAN)
    parts = [(outputs(r.theta), y, w) for outputs, y, w in r.parts()]
    sums = [objective(r.theta) for objective in r.objectives()]
    kept = r.cached("key", lambda: r.theta + 1), r.cached_or_none("key")
    ones = r.weights_or_ones()
    few = r.subset([0, 2, 5]).gradient(), r.require_examples(None).x
    return r.gradient(), parts, sums, kept, ones, few, r.weighted_value(r.theta, ones), risk(device).weights_or_ones()


@call("gate.check_model", "gate.ModelReport", "gate.ModelReport.ok", "gate.ModelReport.require")
def checked_model(device):
    found = []
    for kind in ("softmax", "convolution"):
        r = risk(device, kind)
        for x, y in ((r.train.x, r.train.y), (r.train.x, None)):
            report = xl.check_model(r.model, x, y, order=2)
            found.append((report.require().ok, report.routes, str(report)))
    return found


@call("gate.admit", "gate.admit_objective", "gate.require_derivatives", "gate.require_loss_derivatives")
def admitted(device):
    r = risk(device, "network")
    parameters, loss = Parameters(r.model), require_loss("cross_entropy")
    gate.require_derivatives(parameters, r.train.x, (GRADIENT, HESSIAN, gate.FORWARD, gate.FORWARD_HESSIAN, gate.THIRD))
    gate.require_loss_derivatives(loss, r.outputs, r.train.y, (GRADIENT, HESSIAN), n_outputs=3)
    return gate.admit(parameters, r.train.x), gate.admit_objective(parameters, r.train.x, r.train.y, loss)


@call("curvature.hessian", "curvature.gauss_newton", "curvature.empirical_fisher", "curvature.hessian_product", "curvature.gauss_newton_product", "curvature.top_eigenvalues")  # fmt: skip
def matrices(device):
    found = []
    for kind in ("softmax", "network", "convolution"):
        r = risk(device, kind)
        v = normal(2, r.p).to(device)
        found += [
            curvature.hessian(r),
            curvature.gauss_newton(r),
            curvature.empirical_fisher(r),
            curvature.hessian_product(r, v),
        ]
        found += [
            curvature.gauss_newton_product(r, v),
            curvature.gauss_newton_product(r, v[0]),
            curvature.top_eigenvalues(r, 2),
        ]
    return found


@call("curvature.spectral_density", "curvature.SpectralDensity", "curvature.SpectralDensity.share_below", "curvature.SpectralDensity.moment", "curvature.SpectralDensity.density")  # fmt: skip
def density(device):
    found = curvature.spectral_density(risk(device, "network"), steps=6, probes=2)
    grid = torch.linspace(-1, 1, 5, dtype=D).to(device)
    return found, found.share_below(0.1), found.moment(2), found.density(grid, width=0.2)


@call("curvature.Ekfac", "curvature.Ekfac.product", "curvature.Ekfac.inverse_product", "curvature.Ekfac.matrix", "curvature.Ekfac.eigenvalues")  # fmt: skip
def ekfac(device):
    found = []
    for kind, labels in (("network", "exact"), ("convolution", "sampled"), ("convolution", "data")):
        r = risk(device, kind)
        r = xl.Risk(r.model, r.train, l2=r.l2, parameters=[n for n in r.parameters.names if n[0] != "1"])
        made, v = curvature.Ekfac(r, labels=labels), normal(2, r.p).to(device)
        found += [made.product(v), made.inverse_product(v, damping=0.1), made.matrix(), made.eigenvalues]
    return found


@call("influence.parameter_influence", "influence.loss_influence")
def single_influence(device):
    r, t, found = risk(device), test(device), []
    for solver in ("dense", "cg", "lissa", "neumann", "low_rank", "arnoldi"):
        curvature = "gauss_newton" if solver == "low_rank" else "hessian"
        found.append(influence.loss_influence(r, t, solver=solver, curvature=curvature))
    for curvature in ("gauss_newton", "empirical_fisher", "identity", "ekfac"):
        found.append(influence.loss_influence(r, t, curvature=curvature, damping=0.1))
    for measure in ("output", "margin"):
        found.append(influence.loss_influence(r, t, measure=measure))
    found.append(influence.loss_influence(risk(device, "fitted"), t, keep=5))
    return found, influence.parameter_influence(r), influence.parameter_influence(r, [1, 4], keep="positive")


@call("influence.proximal_derivative", "influence.proximal_response")
def proximal(device):
    r = risk(device, "network")
    return influence.proximal_derivative(r, [0, 1], damping=0.1), influence.proximal_response(r, [0, 1], damping=0.1)


@call("influence.choose_method", "xl.explain", "xl.Explanation", "xl.Explanation.top", "xl.Explanation.bottom", "xl.Explanation.frame", "xl.Explanation.plot")  # fmt: skip
def explained(device):
    r = risk(device)
    found = xl.explain(r, test(device))
    assert found._repr_html_() and found.plot()
    return found.values, found.top(3), found.bottom(3), found.frame(), found.status, str(influence.choose_method(r))


@call("influence.removal_effect", "influence.Removal", "influence.Removal.change", "influence.Removal.loss_change", "influence.Removal.losses", "influence.Removal.outputs", "influence.Removal.model")  # fmt: skip
def removed_groups(device):
    r, t, found = risk(device), test(device), []
    for options in ({}, {"order": 2}, {"order": 2, "third_derivative": True}, {"order": "newton"}, {"weighting": "plain"}, {"order": "newton", "solver": "cg"}):  # fmt: skip
        made = influence.removal_effect(r, GROUPS, **options)
        found += [made.theta, made.change, made.loss_change(t), made.loss_change(t, evaluate=False), made.losses(t)]
        found += [made.outputs(t), made.model(0), made.status]
    network = influence.removal_effect(risk(device, "fitted"), GROUPS, order="newton")
    return found, network.theta, influence.removal_effect(r, [torch.tensor([0, 1]).to(device)]).theta


@call("influence.series_trust", "influence.Trust", "influence.Trust.trusted", "influence.second_order_influence")
def trust(device):
    r = risk(device)
    found = influence.series_trust(influence.removal_effect(r, GROUPS, order=2))
    plain = influence.series_trust(influence.removal_effect(r, GROUPS, weighting="plain"))
    return found, found.trusted, plain, influence.second_order_influence(r, test(device), GROUPS)


@call("influence.influential_group", "influence.printed_weights")
def selected(device):
    r, t = risk(device), test(device)
    methods = ("relaxed", "printed", "greedy", "refit", "swap", "random")
    found = [influence.influential_group(r, t, 3, method=m) for m in methods], influence.printed_weights(r, t, 3)
    network, how = risk(device, "fitted"), {"curvature": "gauss_newton", "damping": 0.1}
    found += tuple(influence.influential_group(network, t, 3, method=m, **how) for m in ("greedy", "relaxed"))
    return *found, influence.second_order_influence(network, t, GROUPS, **how)


@call("influence.tracin", "influence.trak")
def baselines(device):
    t, path = test(device), trajectory(device)
    r = risk(device, "network")
    found = [influence.tracin(path, r.train, t, parameters=p) for p in ("all", "last")]
    found.append(influence.tracin(path, r.train, t, measure="margin"))
    for projection in ("rademacher", "gaussian"):
        found.append(influence.trak([r, r], t, features=6, projection=projection, damping=0.1))
    return found, influence.trak(r, t, features=None, damping=0.1)


@call("retraining.leave_out", "retraining.Retrained", "retraining.Retrained.losses", "retraining.Retrained.loss_change", "retraining.Retrained.loss_change_by_seed")  # fmt: skip
def retrained(device):
    r, t = risk(device), test(device)
    newton = xl.retraining.leave_out(r, GROUPS)
    tuned = xl.retraining.leave_out(r, GROUPS, method="finetune", epochs=3, weighting="plain")
    fresh = xl.retraining.leave_out(r, GROUPS, method="scratch", epochs=3, seeds=(0, 1), lr=0.01)
    many = newton.theta, newton.losses(t), newton.loss_change(t), newton.gradient_norm
    return many, tuned.theta, tuned.loss_change(t, evaluate=False), fresh.theta, fresh.loss_change_by_seed(t)
