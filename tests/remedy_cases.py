"""Calls that fail, and the same calls after doing what the message says. Run as a program: what happened, as JSON.

As in ``error_cases``, a person does not have the tests' import hook, so ``test_remedies`` runs this in a fresh
interpreter. Several remedies of one message are several cases.
"""

# ruff: noqa: E501 - one case a line reads as a table
from __future__ import annotations

import json
import warnings

import torch
from torch import nn

import explainlib as xl
from explainlib.datasets import Examples, Tasks
from tests.problems import classes, general, logistic_risk, network_risk, normal

D = torch.float64
I, R, M, S, T = xl.influence, xl.representers, xl.meta, xl.solvers, xl.training
loss, single, removal, group = I.loss_influence, I.parameter_influence, I.removal_effect, I.influential_group
minimise, leave, kernel, trak, proximal = T.minimise, xl.retraining.leave_out, R.kernel, I.trak, I.proximal_response
Of, Between, Bilevel, Maml, Proto = I.TaskInfluence, I.BilevelInfluence, M.Bilevel, M.Maml, M.ProtoNet


def flat(l2=0.0, where=None):
    """Softmax regression: without a ridge the shift of all outputs is free, so H is singular."""
    made = xl.Risk(xl.models.logistic(3, 3, dtype=D), classes(), l2=l2)
    return made if where is None else made.at(where)


def wide(l2=0.0, dtype=D):
    """More parameters than rows of a Gauss-Newton factor."""
    return xl.Risk(xl.models.mlp([3, 8, 3], "tanh", dtype=dtype), classes(6).to(dtype), l2=l2)


def separable(l2=0.0):
    """Data that a plane separates: no minimum without a ridge."""
    x = torch.tensor([[-2.0], [-1.0], [1.0], [2.0]], dtype=D)
    return xl.Risk(xl.models.logistic(1, 2, dtype=D), Examples(x, torch.tensor([0, 0, 1, 1])), l2=l2)


def concave(f, y):
    """A loss that is not convex in the outputs."""
    return -f.square().sum(-1) / 10 + f.logsumexp(-1) - f.gather(-1, y[:, None])[:, 0]


def odd(**options):
    return xl.Risk(xl.models.mlp([3, 8, 3], "tanh", dtype=D), classes(6), loss=concave, l2=2.0, **options)


def spread(values):
    """A symmetric matrix with these eigenvalues."""
    basis = torch.linalg.qr(normal(len(values), len(values)))[0]
    return basis @ torch.diag(values.double()) @ basis.T


def product_of(matrix):
    return lambda v: v @ matrix


class Bare(nn.Module):
    """No Linear layer."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(normal(3, 3))

    def forward(self, x):
        return x @ self.w


def few_shot(m=3):
    y = torch.arange(2).repeat_interleave(3).expand(m, -1)
    x = [normal(m, 6, 3, seed=s) + y[..., None] for s in (0, 1)]
    return Tasks(x[0], y, x[1], y)


def net(outputs=2, kind="tanh"):
    return xl.models.mlp([3, 2, outputs], kind, dtype=D)


class Slopes(nn.Module):
    """Bare parameters, which EK-FAC does not cover."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor([0.7, 1.3]))

    def forward(self, x):
        return x * self.slope


def with_slopes():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 2), Slopes(), nn.Tanh(), nn.Linear(2, 2)).double()


def bilevel(l2=0.05, strength=1.0, model=None, **options):
    return Bilevel(model or net(), strength=strength, l2=l2, **options)


def between(learner, lam=None, **options):
    return Between(learner, learner.lam0 if lam is None else lam, TASKS, **options)


def direct(**options):
    """S of the plain direct influence: l2 I alone for the proximal problem."""
    made = between(bilevel(**options))
    with warnings.catch_warnings():
        warnings.simplefilter("error", S.SolverWarning)
        return made.direct_tasks()


def strict(act):
    """Do it, a warning of a solver or of a search that did not end counting as its failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", xl.NotAtMinimumWarning)
        return act()


TASKS, TEST, GROUPS = few_shot(), classes(4, seed=8), [[0, 1], [2]]
NET = network_risk(l2=0.0)  # not at a minimum: its Hessian has negative and zero eigenvalues
BENT = network_risk(l2=0.01)  # negative, and no zero
SHIFT = 0.1 - float(torch.linalg.eigvalsh(xl.curvature.hessian(NET))[0])
FIT, PLAIN, FLAT = logistic_risk(), general(logistic_risk()), flat()
SOFTMAX = bilevel(model=xl.models.logistic(3, 2, dtype=D))
MAML, FAR = Maml(net(), inner_lr=0.1), 3 * normal(14, seed=5)
BOUND = T.ElboRisk(xl.models.bayesian_mlp([3, 2, 3]).double(), classes(12))
ILL, ROWS = spread(torch.logspace(-8, 0, 40)), normal(2, 40)
X, Z = TEST.x, classes().x
REWEIGHTED = FIT.reweighted(torch.where(torch.arange(40) == 0, -1.0, 1.0).double())
CONVEX = {"kind": "influence", "curvature": "gauss_newton"}

# name: (the function a person called, the call that fails, the call with the remedy, words of the message that ask for it)
CASES = {
    # singular curvature
    "singular: damping": (loss, lambda: loss(FLAT, TEST), lambda: loss(FLAT, TEST, damping=0.1), ["damping"]),
    "singular: l2": (loss, lambda: loss(FLAT, TEST), lambda: loss(flat(0.1), TEST), ["Risk with a larger l2"]),
    "singular: keep": (loss, lambda: loss(FLAT, TEST), lambda: loss(FLAT, TEST, keep=1e-9), ["keep=1e-9"]),
    "explained": (xl.explain, lambda: xl.explain(FLAT, TEST), lambda: xl.explain(FLAT, TEST, keep=1e-9), ["keep=1e-9"]),
    "parameters": (single, lambda: single(FLAT), lambda: single(FLAT, damping=0.1), ["damping"]),
    "Fisher: damping": (loss, lambda: loss(NET, TEST, curvature="empirical_fisher"), lambda: loss(NET, TEST, curvature="empirical_fisher", damping=0.1), ["damping"]),
    "Fisher: keep": (loss, lambda: loss(NET, TEST, curvature="empirical_fisher"), lambda: loss(NET, TEST, curvature="empirical_fisher", keep=1e-9), ["keep=1e-9"]),
    "ekfac": (loss, lambda: loss(NET, TEST, curvature="ekfac"), lambda: loss(NET, TEST, curvature="ekfac", damping=0.1), ["damping"]),
    "removal: damping": (removal, lambda: removal(FLAT, GROUPS), lambda: removal(FLAT, GROUPS, damping=0.1), ["damping"]),
    "removal: l2": (removal, lambda: removal(FLAT, GROUPS, order=2), lambda: removal(flat(0.1), GROUPS, order=2), ["larger l2"]),
    "group": (group, lambda: group(FLAT, TEST, 3), lambda: group(FLAT, TEST, 3, damping=0.1), ["damping"]),
    "refit": (group, lambda: group(FLAT, TEST, 3, method="refit"), lambda: group(flat(0.1), TEST, 3, method="refit"), ["larger l2"]),
    "printed": (I.printed_weights, lambda: I.printed_weights(FLAT, TEST, 3), lambda: I.printed_weights(FLAT, TEST, 3, damping=0.1), ["damping"]),
    "second order": (I.second_order_influence, lambda: I.second_order_influence(FLAT, TEST, GROUPS), lambda: I.second_order_influence(FLAT, TEST, GROUPS, damping=0.1), ["damping"]),
    "trust": (I.series_trust, lambda: I.series_trust(removal(FLAT, GROUPS, damping=0.1)), lambda: I.series_trust(removal(FLAT, GROUPS, damping=0.1), damping=0.1), ["damping"]),
    "kernel: damping": (kernel, lambda: kernel(FLAT.model, X, Z, risk=FLAT, **CONVEX), lambda: kernel(FLAT.model, X, Z, risk=FLAT, damping=0.1, **CONVEX), ["damping"]),
    "kernel: l2": (kernel, lambda: kernel(FLAT.model, X, Z, risk=FLAT, **CONVEX), lambda: kernel(FLAT.model, X, Z, risk=flat(0.1), **CONVEX), ["larger l2"]),
    "wide kernel": (kernel, lambda: kernel(wide().model, X, Z, risk=wide(), **CONVEX), lambda: kernel(wide().model, X, Z, risk=wide(), damping=0.1, **CONVEX), ["damping"]),
    "trak: damping": (trak, lambda: trak(FIT, TEST, features=12, damping=0.0), lambda: trak(FIT, TEST, features=12, damping=0.1), ["damping"]),
    "trak: features": (trak, lambda: trak(FIT, TEST, features=12, damping=0.0), lambda: trak(FIT, TEST, features=8), ["number of features"]),
    "bound": (loss, lambda: loss(BOUND, TEST, curvature="empirical_fisher"), lambda: loss(BOUND, TEST, curvature="empirical_fisher", damping=0.1), ["damping"]),
    "tasks: keep": (Of, lambda: Of(MAML, MAML.w0, TASKS, keep=None), lambda: Of(MAML, MAML.w0, TASKS, keep=1e-9), ["keep=1e-9"]),
    "tasks: damping": (Of, lambda: Of(Proto(net()), MAML.w0, TASKS, keep=None), lambda: Of(Proto(net()), MAML.w0, TASKS, keep=None, damping=0.1), ["damping=..."]),
    "pruned again": (Of.pruned, lambda: Of(MAML, MAML.w0, TASKS).pruned(None), lambda: Of(MAML, MAML.w0, TASKS).pruned(1e-9), ["keep=1e-9"]),
    "keep more than there are": (Of, lambda: strict(lambda: Of(MAML, MAML.w0, TASKS, keep=14)), lambda: strict(lambda: Of(MAML, MAML.w0, TASKS, keep=9)), ["Pass keep=9 or fewer"]),
    "between tasks": (Between.tasks, lambda: between(bilevel(l2=0.0)).tasks(), lambda: between(bilevel(l2=10.0)).tasks(), ["Bilevel with a larger l2"]),
    "directly": (Between.direct_tasks, lambda: direct(l2=0.0, inner="head"), lambda: direct(l2=10.0, inner="head"), ["Bilevel with a larger l2"]),
    # negative curvature
    "negative: damping": (removal, lambda: removal(NET, GROUPS, solver="cg"), lambda: removal(NET, GROUPS, solver="cg", damping=SHIFT), ["damping"]),
    "negative: dense": (removal, lambda: removal(BENT, GROUPS, solver="cg"), lambda: removal(BENT, GROUPS, solver="dense"), ["solver='dense'"]),
    "negative: curvature": (loss, lambda: loss(BENT, TEST, solver="cg"), lambda: loss(BENT, TEST, solver="cg", curvature="gauss_newton"), ["curvature='gauss_newton'"]),
    "negative: keep": (loss, lambda: loss(NET, TEST, solver="cg"), lambda: loss(NET, TEST, solver="dense", keep="positive"), ["keep='positive' with solver='dense'"]),
    "interactions: greedy": (group, lambda: group(NET, TEST, 3, curvature="ekfac", damping=0.1), lambda: group(NET, TEST, 3, curvature="ekfac", damping=0.1, method="greedy"), ["method='greedy'"]),
    "interactions: Gauss-Newton": (group, lambda: group(NET, TEST, 3, curvature="identity", method="swap"), lambda: group(NET, TEST, 3, curvature="gauss_newton", method="swap", damping=0.1), ["curvature='gauss_newton'"]),
    "second order of the Fisher": (I.second_order_influence, lambda: I.second_order_influence(NET, TEST, GROUPS, curvature="empirical_fisher", damping=0.1), lambda: I.second_order_influence(NET, TEST, GROUPS, curvature="gauss_newton", damping=0.1), ["curvature='gauss_newton'"]),
    "published of EK-FAC": (I.printed_weights, lambda: I.printed_weights(NET, TEST, 3, curvature="ekfac"), lambda: group(NET, TEST, 3, curvature="ekfac", damping=0.1, method="greedy"), ["method='greedy'"]),
    "refit of a fitted Ekfac": (group, lambda: group(FLAT, TEST, 3, curvature=xl.curvature.Ekfac(FLAT), method="refit", damping=0.1), lambda: group(flat(0.1), TEST, 3, curvature="ekfac", method="refit", damping=0.1), ["curvature='ekfac'"]),
    "negative group: curvature": (group, lambda: group(BENT, TEST, 3, solver="cg"), lambda: group(BENT, TEST, 3, solver="cg", curvature="gauss_newton", damping=0.1), ["curvature='gauss_newton'"]),
    "negative group": (group, lambda: group(BENT, TEST, 3, solver="cg"), lambda: group(BENT, TEST, 3, solver="dense"), ["solver='dense'"]),
    "Newton: damping": (removal, lambda: removal(NET, GROUPS, order="newton"), lambda: removal(NET, GROUPS, order="newton", damping=SHIFT + 0.2), ["damping"]),
    "Newton: first order": (removal, lambda: removal(BENT, GROUPS, order="newton"), lambda: removal(BENT, GROUPS, order=1), ["order=1 with solver='dense'"]),
    "saddle": (Between.tasks, lambda: between(bilevel(), FAR, solver="cg").tasks(), lambda: between(bilevel(), FAR).tasks(), ["solver='dense'"]),
    # series
    "series: damping": (loss, lambda: loss(NET, TEST, solver="neumann"), lambda: loss(NET, TEST, solver="neumann", damping=0.8), ["damping or a Risk with a larger l2, by 0.79 or more"]),
    "series: scale": (loss, lambda: loss(FIT, TEST, solver=S.Neumann(scale=0.1)), lambda: loss(FIT, TEST, solver=S.Neumann(scale=0.644)), ["xl.solvers.Neumann(scale=0.644)"]),
    "series: steps": (loss, lambda: loss(FIT, TEST, solver=S.Neumann(max_steps=3)), lambda: loss(FIT, TEST, solver=S.Neumann(max_steps=300)), ["xl.solvers.Neumann(max_steps=...)"]),
    "lissa: scale": (single, lambda: single(FIT, solver=S.Lissa(scale=0.1)), lambda: single(FIT, solver=S.Lissa(scale=0.644)), ["xl.solvers.Lissa(scale=0.644)"]),
    "lissa: steps": (single, lambda: single(FIT, solver=S.Lissa(steps=3)), lambda: single(FIT, solver=S.Lissa(steps=300)), ["xl.solvers.Lissa(steps=...)"]),
    "lissa on batches": (loss, lambda: loss(FIT, TEST, solver=S.Lissa(scale=0.05, batch_size=5, steps=99)), lambda: loss(FIT, TEST, solver=S.Lissa(scale=5.0, batch_size=5, steps=99)), ["xl.solvers.Lissa(scale=...)"]),
    "lissa without an end": (loss, lambda: loss(FLAT, TEST, solver=S.Lissa(batch_size=5)), lambda: loss(FLAT, TEST, solver=S.Lissa(batch_size=5, steps=9)), ["xl.solvers.Lissa(steps=..."]),
    "removal by a series": (removal, lambda: removal(FIT, GROUPS, solver=S.Neumann(scale=0.1)), lambda: removal(FIT, GROUPS, solver="dense"), ["solver='dense'"]),
    "outer series: scale": (Between.tasks, lambda: between(bilevel(l2=10.0), solver="neumann", scale=1.0).tasks(), lambda: between(bilevel(l2=10.0), solver="neumann", scale=15.6).tasks(), ["scale=15.6"]),
    "outer series: dense": (Between.tasks, lambda: between(bilevel(), FAR, solver="neumann").tasks(), lambda: between(bilevel(), FAR).tasks(), ["solver='dense'"]),
    "outer series: l2": (Between.tasks, lambda: between(bilevel(), FAR, solver="neumann").tasks(), lambda: between(bilevel(l2=13.05), FAR, solver="neumann").tasks(), ["larger l2, by 13 or more"]),
    # too few steps, too few digits
    "cg: steps": (loss, lambda: loss(PLAIN, TEST, solver=S.CG(max_steps=1)), lambda: loss(PLAIN, TEST, solver=S.CG(max_steps=99)), ["xl.solvers.CG(max_steps=...)"]),
    "cg: dense": (removal, lambda: removal(PLAIN, GROUPS, solver=S.CG(max_steps=2)), lambda: removal(PLAIN, GROUPS, solver="dense"), ["solver='dense'"]),
    "arnoldi": (loss, lambda: loss(PLAIN, TEST, solver=S.Arnoldi(k=3, steps=3)), lambda: loss(PLAIN, TEST, solver=S.Arnoldi(k=3, steps=12)), ["xl.solvers.Arnoldi(steps=...)"]),
    "outer cg": (Between.tasks, lambda: between(bilevel(l2=10.0), solver="cg", max_steps=1).tasks(), lambda: between(bilevel(l2=10.0), solver="cg", max_steps=99).tasks(), ["larger max_steps"]),
    "small damping": (loss, lambda: loss(wide(), TEST, curvature="gauss_newton", solver="low_rank", damping=1e-18), lambda: loss(wide(), TEST, curvature="gauss_newton", solver="low_rank", damping=1e-3), ["larger damping"]),
    "small damping: keep": (loss, lambda: loss(wide(), TEST, curvature="gauss_newton", solver="low_rank", damping=1e-18), lambda: loss(wide(), TEST, curvature="gauss_newton", solver="low_rank", keep=1e-9), ["keep=1e-9"]),
    "float32": (loss, lambda: loss(wide(dtype=torch.float32), TEST.to(torch.float32), curvature="gauss_newton", solver="low_rank", damping=1e-7), lambda: loss(wide(), TEST, curvature="gauss_newton", solver="low_rank", damping=1e-7), ["use float64"]),
    "small damping of a kernel": (kernel, lambda: kernel(wide().model, X, Z, risk=wide(), damping=1e-18, **CONVEX), lambda: kernel(wide().model, X, Z, risk=wide(), damping=1e-3, **CONVEX), ["larger damping"]),
    # solvers by themselves
    "cg itself": (S.cg, lambda: S.cg(product_of(ILL), ROWS, max_steps=5).require_converged(), lambda: S.cg(product_of(ILL + torch.eye(40).double()), ROWS).require_converged(), ["multiple of the identity"]),
    "cg itself, for longer": (S.cg, lambda: S.cg(product_of(torch.eye(40).double() + ILL), ROWS, max_steps=2).require_converged(), lambda: S.cg(product_of(torch.eye(40).double() + ILL), ROWS, max_steps=99).require_converged(), ["more max_steps"]),
    "neumann itself": (S.neumann, lambda: S.neumann(product_of(ILL), ROWS, scale=0.1).require_converged(), lambda: S.neumann(product_of(ILL), ROWS, scale=1.1, damping=0.1).require_converged(), ["pass scale=1.1"]),
    "Factor itself": (S.Factor, lambda: S.Factor(ILL - torch.diag(ILL.diagonal())).solve(ROWS * 0 + 1).require_converged() and S.Factor(ILL * 0).solve(ROWS).require_converged(), lambda: S.Factor(ILL * 0, damping=1.0).solve(ROWS).require_converged(), ["larger damping"]),
    "LowRank itself": (S.LowRank, lambda: S.LowRank(ROWS, shift=0.0).solve(ROWS).require_converged(), lambda: S.LowRank(ROWS, shift=1.0).solve(ROWS).require_converged(), ["larger shift"]),
    # options that do not go together
    "keep with identity": (loss, lambda: loss(FIT, TEST, curvature="identity", keep=3), lambda: loss(FIT, TEST, curvature="identity"), ["drop keep"]),
    "keep with cg": (loss, lambda: loss(FIT, TEST, keep=3, solver="cg"), lambda: loss(FIT, TEST, keep=3, solver="dense"), ["solver='dense'"]),
    "low rank Hessian": (loss, lambda: loss(BENT, TEST, solver="low_rank"), lambda: loss(BENT, TEST, solver="low_rank", curvature="gauss_newton"), ["curvature='gauss_newton'"]),
    "low rank removal": (removal, lambda: removal(PLAIN, GROUPS, solver="low_rank"), lambda: removal(PLAIN, GROUPS, solver="cg"), ["solver='cg'"]),
    "negative weights": (loss, lambda: loss(REWEIGHTED, TEST, solver="low_rank"), lambda: loss(REWEIGHTED, TEST, solver="dense"), ["solver='dense'"]),
    "negative weights of a kernel": (kernel, lambda: kernel(FIT.model, X, Z, risk=wide(0.1).reweighted(torch.tensor([-0.1, 1, 1, 1, 1, 1]).double()), **CONVEX), lambda: kernel(FIT.model, X, Z, risk=wide(0.1).reweighted(torch.tensor([-0.1, 1, 1, 1, 1, 1]).double()), kind="influence", curvature="hessian"), ["curvature='hessian'"]),
    "a curvature that kernels do not have": (kernel, lambda: kernel(FIT.model, X, Z, kind="influence", risk=wide(0.1), curvature="identity"), lambda: kernel(FIT.model, X, Z, kind="influence", risk=wide(0.1), curvature="empirical_fisher", damping=0.1), ["'empirical_fisher'"]),
    "not convex": (loss, lambda: loss(odd(), TEST, curvature="gauss_newton", solver="low_rank"), lambda: loss(odd(), TEST, curvature="gauss_newton", solver="dense"), ["solver='dense'"]),
    "not convex, ekfac": (loss, lambda: loss(odd(), TEST, curvature="ekfac"), lambda: loss(odd(), TEST, curvature=xl.curvature.Ekfac(odd(), labels="data")), ["labels='data'"]),
    "ekfac of slopes: curvature": (loss, lambda: loss(xl.Risk(with_slopes(), classes(12, 3, 2), l2=3.0), classes(4, 3, 2), curvature="ekfac"), lambda: loss(xl.Risk(with_slopes(), classes(12, 3, 2), l2=3.0), classes(4, 3, 2), curvature="gauss_newton"), ["curvature='gauss_newton'"]),
    "ekfac of slopes: parameters": (xl.curvature.Ekfac, lambda: xl.curvature.Ekfac(xl.Risk(with_slopes(), classes(12, 3, 2))), lambda: xl.curvature.Ekfac(xl.Risk(with_slopes(), classes(12, 3, 2), parameters=["0.weight", "0.bias", "3.weight", "3.bias"])), ["Risk(..., parameters=['0.weight'"]),
    "ekfac of slopes: left out": (xl.curvature.Ekfac, lambda: xl.curvature.Ekfac(xl.Risk(with_slopes(), classes(12, 3, 2))), lambda: xl.curvature.Ekfac(xl.Risk(with_slopes(), classes(12, 3, 2)), uncovered="warn"), ["uncovered='warn'"]),
    "inner ekfac of slopes: exact": (Between, lambda: between(bilevel(10.0, model=with_slopes()), inner_hessian="ekfac"), lambda: between(bilevel(10.0, model=with_slopes()), inner_hessian="exact"), ["inner_hessian='exact'"]),
    "inner ekfac of slopes: parameters": (Between, lambda: between(bilevel(10.0, model=with_slopes()), inner_hessian="ekfac"), lambda: between(bilevel(10.0, model=with_slopes(), parameters=["0.weight", "0.bias", "3.weight", "3.bias"]), inner_hessian="ekfac"), ["Bilevel(..., parameters=['0.weight'"]),
    "bound by Gauss-Newton": (loss, lambda: loss(BOUND, TEST, curvature="gauss_newton"), lambda: loss(BOUND, TEST, curvature="hessian", damping=5.0), ["curvature='hessian'", "damping > 0"]),
    "edit of the paper's curvature": (Between.without_task, lambda: between(bilevel(10.0), hessian="gamma").without_task(0, newton=True), lambda: between(bilevel(10.0), hessian="exact").without_task(0, newton=True), ["hessian='exact'"]),
    # searches for a minimum
    "no minimum": (minimise, lambda: minimise(separable()), lambda: minimise(separable(0.1)), ["l2 to the Risk"]),
    "more steps": (minimise, lambda: minimise(flat(0.1), max_steps=1), lambda: minimise(flat(0.1), max_steps=99), ["more max_steps"]),
    "a looser goal": (minimise, lambda: minimise(flat(0.1), tolerance=1e-30), lambda: minimise(flat(0.1), tolerance=1e-8), ["larger tolerance"]),
    "left out": (leave, lambda: leave(flat(0.1), [[0]], tolerance=1e-30), lambda: leave(flat(0.1), [[0]], tolerance=1e-8), ["larger tolerance"]),
    "left out without a ridge": (leave, lambda: leave(separable(), [[0]]), lambda: leave(separable(0.1), [[0]]), ["l2 to the Risk"]),
    "deletion without a ridge": (xl.metrics.retrained_changes, lambda: xl.metrics.retrained_changes(separable(), separable().train, [[[0]]] * 4, method="newton"), lambda: xl.metrics.retrained_changes(separable(0.1), separable().train, [[[0]]] * 4, method="newton"), ["l2 to the Risk"]),
    "a seed for nothing": (xl.metrics.retrained_changes, lambda: xl.metrics.retrained_changes(flat(0.1), TEST, [[[0]]] * 4, method="newton", seed=0), lambda: xl.metrics.retrained_changes(flat(0.1), TEST, [[[0]]] * 4, method="newton"), ["no seed"]),
    "refit without a ridge": (group, lambda: group(flat(), TEST, 12, method="refit", damping=0.1), lambda: group(flat(0.1), TEST, 12, method="refit", damping=0.1), ["l2 to the Risk"]),
    "response": (proximal, lambda: proximal(FIT, [0], damping=0.1, tolerance=1e-30), lambda: proximal(FIT, [0], damping=0.1, tolerance=1e-9), ["larger tolerance"]),
    "meta: steps": (M.minimise, lambda: strict(lambda: M.minimise(MAML, TASKS, l2=0.1, tolerance=1e-9, max_steps=1)), lambda: strict(lambda: M.minimise(MAML, TASKS, l2=0.1, tolerance=1e-9)), ["more max_steps"]),
    "outer: steps": (M.solve, lambda: M.solve(SOFTMAX, TASKS, max_steps=1), lambda: M.solve(SOFTMAX, TASKS), ["more max_steps"]),
    "outer: tolerance": (M.solve, lambda: M.solve(SOFTMAX, TASKS, tolerance=1e-30), lambda: M.solve(SOFTMAX, TASKS, tolerance=1e-6), ["larger tolerance"]),
    "outer: strength": (M.solve, lambda: M.solve(bilevel(strength=10.0), TASKS, max_steps=2), lambda: M.solve(bilevel(strength=30.0), TASKS, max_steps=15), ["Bilevel with a larger strength"]),
    "inner: strength": (Bilevel.inner_solution, lambda: bilevel(strength=1e-9).inner_solution(5 * normal(14, seed=1), TASKS), lambda: bilevel().inner_solution(5 * normal(14, seed=1), TASKS), ["Bilevel with a strength above 1e-09"]),
    "bilevel, strictly": (Between, lambda: between(SOFTMAX, strict=True), lambda: between(SOFTMAX, M.solve(SOFTMAX, TASKS).w, strict=True), ["xl.meta.solve"]),
    "surrogate": (R.surrogate_importance, lambda: R.surrogate_importance(-torch.eye(3).double(), normal(3, 2), loss="squared_error", l2=0.1), lambda: R.surrogate_importance(kernel(FIT.model, X, X, risk=FIT, **CONVEX), normal(4, 2), loss="squared_error", l2=0.1), ["curvature='gauss_newton'"]),
    # models, learners, labels
    "diverged inner step": (Maml.losses, lambda: Maml(nn.Linear(3, 2).double(), inner_lr=1e308, steps=3).losses(normal(8), TASKS), lambda: Maml(nn.Linear(3, 2).double(), inner_lr=0.1, steps=3).losses(normal(8), TASKS), ["Maml with a lower inner_lr"]),
    "overflowing embedding": (Proto.losses, lambda: Proto(nn.Linear(3, 2).double()).losses(1e200 * normal(8), TASKS), lambda: Proto(nn.Linear(3, 2).double()).losses(normal(8), TASKS), ["smaller parameters"]),
    "a route by name": (M.meta_hessian, lambda: M.meta_hessian(Proto(net()), MAML.w0, TASKS, route="two_layer"), lambda: M.meta_hessian(Proto(net()), MAML.w0, TASKS, route="general"), ["route='general'"]),
    "no last layer": (kernel, lambda: kernel(Bare(), X, Z, kind="last_layer"), lambda: kernel(Bare(), X, Z, kind="ntk"), ["kind='ntk'"]),
    "no last layer for points": (R.representer_points, lambda: R.representer_points(xl.Risk(Bare(), classes(), l2=0.1), TEST, output=0), lambda: R.representer_scores(R.target_importance(xl.Risk(Bare(), classes(), l2=0.1)), kernel(Bare(), X, Z, kind="ntk"), output=0), ["representer_scores(", "kind='ntk'"]),
    "points without a ridge": (R.representer_points, lambda: R.representer_points(FLAT, TEST, output=0), lambda: R.representer_points(flat(0.1), TEST, output=0), ["Risk(..., l2=...)"]),
    "regression": (xl.Risk, lambda: xl.Risk(nn.Linear(3, 1).double(), Examples(X, X[:, :1])), lambda: xl.Risk(nn.Linear(3, 1).double(), Examples(X, X[:, :1]), loss="squared_error"), ["loss='squared_error'"]),
    "regression fitted": (T.fit, lambda: T.fit(nn.Linear(3, 1).double(), Examples(X, X[:, :1]), epochs=1), lambda: T.fit(nn.Linear(3, 1).double(), Examples(X, X[:, :1]), epochs=1, loss="squared_error"), ["loss='squared_error'"]),
    "labels for squares": (xl.Risk, lambda: xl.Risk(nn.Linear(3, 3).double(), TEST, loss="squared_error"), lambda: xl.Risk(nn.Linear(3, 3).double(), Examples(X, nn.functional.one_hot(TEST.y, 3).to(X.dtype)), loss="squared_error"), ["torch.nn.functional.one_hot(train.y, 3).to(x.dtype)"]),
    "class numbers as floats": (xl.Risk, lambda: xl.Risk(nn.Linear(3, 3).double(), Examples(X, TEST.y.double()[:, None])), lambda: xl.Risk(nn.Linear(3, 3).double(), Examples(X, TEST.y.double()[:, None].long().flatten())), [".long().flatten()"]),
    "one output": (trak, lambda: trak(xl.Risk(nn.Linear(3, 1).double(), Examples(X, 0 * TEST.y)), Examples(X, 0 * TEST.y)), lambda: I.tracin(T.Trajectory(nn.Linear(3, 1).double(), normal(1, 4), torch.ones(1).double()), Examples(X, 0 * TEST.y), Examples(X, 0 * TEST.y)), ["xl.influence.tracin"]),
}  # fmt: skip


def outcome(act) -> str:
    """Return the message of what the call raised, "" if it went through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            act()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    print(json.dumps({name: [outcome(fails), outcome(mended)] for name, (_, fails, mended, _) in CASES.items()}))
