"""Choosing an inverse: what each solver takes where nothing is passed, what is cached, and what has to fit."""

import math
import sys

import pytest
import torch

import explainlib as xl
from explainlib.solvers import Lissa, Neumann, cg, configured, inverse_curvature, preconditioner
from explainlib.solvers.block_cg import block_cg
from explainlib.solvers.preconditioner import block_preconditioner
from tests.fits import fits_to_the_byte
from tests.problems import classes, logistic_risk, network_risk, normal

D = torch.float64


def top(risk, curvature="hessian"):
    return float(torch.linalg.eigvalsh(configured.MATRICES[curvature](risk))[-1])


def scale_in(solution):
    return float(solution.detail.split("scale ")[1].split(",")[0])


@pytest.mark.parametrize(
    ("solver", "factor"), [(Lissa(), 1.1), (Neumann(), 1.1), (Lissa(batch_size=9, steps=1, repeats=1), 3.0)]
)
def test_the_scale_is_above_the_top_eigenvalue_of_the_damped_curvature(solver, factor):
    risk = logistic_risk()
    solution = inverse_curvature(risk, solver=solver, damping=0.3)(normal(1, risk.p))
    assert scale_in(solution) == pytest.approx(factor * (top(risk) + 0.3), rel=5e-3)


@pytest.mark.parametrize("curvature", ["hessian", "empirical_fisher"])
def test_the_transient_of_lissa_on_batches_reduces_it_to_the_tolerance(curvature):
    """log(1/tolerance) scale / (l2 + damping) steps, twice that with those that are averaged, in each repeat."""
    risk, rhs = logistic_risk(), normal(1, 12)
    solver = Lissa(batch_size=9, scale=0.7, repeats=1, tolerance=0.1)
    ridge = risk.l2 if curvature == "hessian" else 0.0
    steps = math.ceil(0.7 / (ridge + 0.5) * math.log(1 / 0.1))
    solution = inverse_curvature(risk, curvature=curvature, solver=solver, damping=0.5)(rhs)
    assert solution.steps == 2 * steps and solution.detail.startswith("scale 0.7, 1 repeats")
    cut = inverse_curvature(risk, solver=Lissa(batch_size=9, scale=2.0, repeats=3, steps=1), damping=0.5)(rhs)
    assert cut.steps == 2 * 3 * 1


def test_lissa_on_batches_tells_where_it_diverged():
    risk, rhs = logistic_risk(), normal(2, 12)
    lost = inverse_curvature(risk, solver=Lissa(batch_size=5, scale=0.05, steps=500))(rhs)
    assert lost.status == "diverged" and 0 < lost.steps < 100 and torch.isinf(lost.residual).all()
    assert lost.detail == "scale 0.05, on batches"


def test_the_identity_leaves_no_residual_and_takes_no_step():
    solution = inverse_curvature(logistic_risk(), curvature="identity", damping=1.0)(normal(3, 12))
    assert solution.converged and solution.steps == 0 and torch.equal(solution.residual, torch.zeros(3, dtype=D))


@pytest.mark.parametrize("solve", [cg, block_cg])
def test_conjugate_gradients_stop_after_ten_steps_a_parameter(solve):
    values = torch.logspace(-14, 0, 40, dtype=D)
    solution = solve(lambda v: v * values, normal(1, 40), tolerance=1e-300)
    assert solution.status == "max_steps" and solution.steps == 400


@pytest.mark.parametrize(("dtype", "tolerance"), [(D, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("solve", [cg, block_cg])
def test_the_default_tolerance_is_that_of_the_dtype(solve, dtype, tolerance):
    values, rhs = torch.logspace(-3, 0, 60, dtype=dtype), normal(2, 60).to(dtype)
    product = lambda v: v * values  # noqa: E731
    given, default = solve(product, rhs, tolerance=tolerance), solve(product, rhs)
    assert torch.equal(given.value, default.value) and given.steps == default.steps
    assert solve(product, rhs, tolerance=1e4 * tolerance).steps < default.steps


@pytest.mark.parametrize(("up_to", "formed"), [(0, 1), (-1, 2)])
def test_a_factor_is_kept_up_to_a_size(up_to, formed, monkeypatch):
    risk, made, rhs = logistic_risk(), [], normal(1, 12)
    risk = risk.at(risk.theta)
    hessian = configured.MATRICES["hessian"]
    monkeypatch.setattr(configured, "CACHE_UP_TO", risk.p + up_to)
    monkeypatch.setitem(configured.MATRICES, "hessian", lambda r: made.append(1) or hessian(r))
    first, second = (inverse_curvature(risk, damping=0.1)(rhs).value for _ in range(2))
    assert torch.equal(first, second) and len(made) == formed


def test_a_preconditioner_takes_the_factor_of_a_dense_solve(monkeypatch):
    risk = logistic_risk()
    risk, rhs = risk.at(risk.theta), normal(3, 12)
    inverse_curvature(risk, damping=0.1)(rhs)
    room = sys.modules["explainlib.solvers.preconditioner"]  # the package's name is the function
    monkeypatch.setattr(room, "hessian", lambda risk: pytest.fail("formed again"))
    want = torch.linalg.solve(xl.curvature.hessian(risk) + 0.1 * torch.eye(12, dtype=D), rhs.T).T
    assert torch.allclose(preconditioner(risk, damping=0.1)(rhs), want, rtol=1e-9)


def test_a_singular_hessian_has_a_preconditioner_near_it():
    base = logistic_risk()
    flat = xl.Risk(base.model, base.train)  # the softmax shift is free
    matrix = xl.curvature.hessian(flat)
    solution = cg(lambda v: v @ matrix, normal(3, flat.p) @ matrix, preconditioner=preconditioner(flat))
    assert solution.converged and solution.steps < 6


@pytest.mark.parametrize(("n", "worth"), [(8, True), (7, False)])
def test_blocks_need_two_examples_a_feature(n, worth):
    """Three inputs and a one for the bias."""
    risk = xl.Risk(xl.models.logistic(3, 3, dtype=D), classes(n), l2=0.1)
    assert (block_preconditioner(risk) is not None) == worth
    assert block_preconditioner(network_risk()) is None


@pytest.mark.parametrize(
    ("options", "bytes_a_square"),
    [({"solver": "dense"}, 3 * 8 + 24), ({"solver": "low_rank", "curvature": "gauss_newton"}, 24)],
)
def test_what_is_formed_has_to_fit(options, bytes_a_square, monkeypatch):
    """The matrix with its working copies, and its factor in float64."""
    risk = network_risk(n=40)
    monkeypatch.setattr(configured, "ENTRIES", 10 * risk.p * risk.n_outputs)
    call = lambda: inverse_curvature(risk.at(risk.theta), damping=0.1, **options)  # noqa: E731
    fits_to_the_byte(call, bytes_a_square * risk.p**2, monkeypatch, f"p = {risk.p}")


@pytest.mark.parametrize("curvature", ["gauss_newton", "empirical_fisher"])
def test_a_factor_is_summed_over_parts_of_bounded_size(curvature, monkeypatch):
    risk, parts = network_risk(n=40), []
    want = inverse_curvature(risk, solver="low_rank", curvature=curvature, damping=0.1)(normal(2, risk.p)).value
    subset = xl.Risk.subset
    monkeypatch.setattr(xl.Risk, "subset", lambda self, rows: parts.append(len(rows)) or subset(self, rows))
    monkeypatch.setattr(configured, "ENTRIES", 7 * risk.p * risk.n_outputs)
    got = inverse_curvature(risk, solver="low_rank", curvature=curvature, damping=0.1)(normal(2, risk.p)).value
    assert parts == [7, 7, 7, 7, 7, 5] and torch.allclose(got, want, rtol=1e-9)
