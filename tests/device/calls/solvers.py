"""Rows: solvers by themselves."""

from __future__ import annotations

import torch

from explainlib import curvature, influence, solvers
from explainlib.layerwise import gradients
from tests.device.calls.problems import D, normal, risk
from tests.device.table import call


def system(device):
    """Return (matrix, product, right-hand sides) of six unknowns."""
    x = normal(9, 6).to(device)
    matrix = x.T @ x / 9 + 0.3 * torch.eye(6, dtype=D, device=device)
    return matrix, lambda rows: rows @ matrix, normal(2, 6, seed=3).to(device)


@call("solvers.cg", "solvers.lissa", "solvers.lissa_batches", "solvers.neumann", "solvers.neumann_sums", "solvers.Solution", "solvers.Solution.converged", "solvers.Solution.row_status", "solvers.Solution.sentence", "solvers.Solution.require_converged")  # fmt: skip
def iterative(device):
    matrix, product, rhs = system(device)
    found = [solvers.cg(product, rhs), solvers.cg(product, rhs, preconditioner=lambda r: r / matrix.diagonal())]
    found += [
        solvers.lissa(product, rhs, scale=5.0),
        solvers.neumann(product, rhs),
        solvers.neumann(product, rhs, scale=5.0),
    ]
    batches = lambda seed: iter([product] * 40)  # noqa: E731
    found.append(solvers.lissa_batches(batches, rhs, scale=5.0, damping=0.1, steps=30, repeats=2))
    words = [(s.converged, s.row_status, s.sentence, s.require_converged("warn").status) for s in found]
    return [(s.value, s.residual, s.steps) for s in found], words, solvers.neumann_sums(product, rhs, [1, 4], scale=5.0)


@call("solvers.Factor", "solvers.Factor.solve", "solvers.Factor.definite", "solvers.Factor.lowest", "solvers.Factor.triangle", "solvers.LowRank", "solvers.LowRank.solve", "solvers.LowRank.singular")  # fmt: skip
def direct(device):
    matrix, _, rhs = system(device)
    rows, found = normal(3, 6, seed=5).to(device), []
    for options in ({}, {"damping": 0.1}, {"keep": 3}, {"keep": 1e-3}, {"keep": "positive"}):
        factor = solvers.Factor(matrix, **options)
        found += [factor.solve(rhs).value, factor.definite, factor.lowest]
    low, pruned = solvers.LowRank(rows, shift=0.2), solvers.LowRank(rows, shift=0.0, keep=2)
    return found, solvers.Factor(matrix).triangle, low.solve(rhs).value, low.singular, pruned.solve(rhs).value


@call("solvers.dominant_eigenpairs", "solvers.DominantEigenpairs", "solvers.DominantEigenpairs.solve")
def eigenpairs(device):
    _, product, rhs = system(device)
    found = solvers.dominant_eigenpairs(product, rhs[0], 3)
    return found.values, found.vectors.abs(), found.accuracy, found.solve(rhs).value


@call("solvers.inverse_curvature", "solvers.FittedInverse", "solvers.CG", "solvers.Arnoldi", "solvers.Dense", "solvers.Lissa", "solvers.LowRankSolver", "solvers.Neumann", "solvers.CG.prepare", "solvers.Arnoldi.prepare", "solvers.Dense.prepare", "solvers.Lissa.prepare", "solvers.LowRankSolver.prepare", "solvers.Neumann.prepare", "solvers.preconditioner", "solvers.ekfac_solve")  # fmt: skip
def inverses(device):
    found = []
    for kind in ("softmax", "fitted"):
        r = risk(device, kind)
        rhs = normal(2, r.p).to(device)
        series = (
            (solvers.Lissa(), solvers.Neumann()) if kind == "softmax" else ()
        )  # of a network they take thousands of steps
        for solver in (solvers.CG(), solvers.Arnoldi(k=4), solvers.Dense(), solvers.LowRankSolver(), *series):
            matrix = "gauss_newton" if isinstance(solver, solvers.LowRankSolver) else "hessian"
            keep = 4 if isinstance(solver, solvers.Arnoldi) else None
            found.append(solver.prepare(r, matrix, 0.05, keep)(rhs).value)
        found.append(
            solvers.inverse_curvature(
                r, solver=solvers.Lissa(batch_size=5, steps=6, repeats=2, scale=3.0), damping=0.1
            )(rhs).value
        )
        made = solvers.inverse_curvature(r, curvature="gauss_newton", damping=0.1)
        fitted = solvers.FittedInverse(r, made.curvature, made.solver, made.damping, made.keep, made.solve)
        found += [fitted(rhs).value, influence.loss_influence(r, r.train[:2], curvature=fitted)]
        found.append(solvers.preconditioner(r, damping=0.1)(rhs))
        found.append(solvers.ekfac_solve(curvature.Ekfac(r), rhs, damping=0.1).value)
    return found


@call("solvers.GramInverse", "solvers.GramInverse.between", "solvers.GramInverse.with_rows")
def gram_inverse(device):
    r = risk(device, "network")
    inverse = solvers.GramInverse(r, curvature="gauss_newton", damping=0.1)
    source = gradients(r.parameters, r.theta, r.train.x[:4], normal(4, 3).to(device))
    return inverse.between(source, source), inverse.with_rows(source)
