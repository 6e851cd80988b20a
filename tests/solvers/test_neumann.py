"""The Neumann series against dense solves, depth by depth, and what it says when it diverges."""

import re

import pytest
import torch

import explainlib as xl
from explainlib.solvers import (
    Neumann,
    SolverError,
    inverse_curvature,
    lissa,
    neumann,
    neumann_sums,
)
from tests.problems import classes, logistic_risk, network_risk, normal, relative_error
from tests.solvers.test_direct import symmetric


def product_of(matrix):
    return lambda v: v @ matrix


def powers(matrix, rhs, scale, depth):
    """1/scale sum_{j <= depth} (I - A/scale)^j b, term by term."""
    step = torch.eye(len(matrix), dtype=matrix.dtype) - matrix / scale
    return sum(rhs @ torch.linalg.matrix_power(step, j) for j in range(depth + 1)) / scale


@pytest.mark.parametrize("scale", [None, 5.6])
def test_solves_every_row_to_its_tolerance(scale):
    matrix, _ = symmetric(torch.linspace(0.1, 5, 12))
    rhs = normal(6, 12)
    rhs[2] = 0.0
    solution = neumann(product_of(matrix), rhs, scale=scale, damping=0.05, tolerance=1e-9)
    damped = matrix + 0.05 * torch.eye(12, dtype=torch.float64)
    assert solution.converged and solution.residual.max() <= 1e-9
    assert relative_error(solution.value, torch.linalg.solve(damped, rhs.T).T) < 1e-7
    assert torch.allclose(solution.residual, (solution.value @ damped - rhs).norm(dim=1) / rhs.norm(dim=1).clamp(1e-9))


@pytest.mark.parametrize("depth", [0, 1, 7])
def test_a_depth_is_that_many_terms_beyond_the_first(depth):
    matrix, _ = symmetric(torch.linspace(0.1, 5, 8))
    rhs, damped = normal(3, 8), matrix + 0.1 * torch.eye(8, dtype=torch.float64)
    solution = neumann(product_of(matrix), rhs, scale=6.0, damping=0.1, steps=depth)
    assert relative_error(solution.value, powers(damped, rhs, 6.0, depth)) < 1e-12
    assert solution.converged and solution.steps == depth and f"depth {depth}" in solution.detail
    left_out = rhs @ torch.linalg.matrix_power(torch.eye(8, dtype=torch.float64) - damped / 6, depth + 1)
    assert torch.allclose(solution.residual, left_out.norm(dim=1) / rhs.norm(dim=1), rtol=1e-10)


def test_the_sums_at_several_depths_in_one_pass():
    matrix, _ = symmetric(torch.linspace(0.1, 5, 8))
    rhs, calls = normal(3, 8), []

    def counted(v):
        calls.append(len(v))
        return v @ matrix

    depths = [0, 2, 9]
    sums = neumann_sums(counted, rhs, depths, scale=6.0)
    assert len(calls) == 9
    for depth, got in zip(depths, sums, strict=True):
        assert relative_error(got, powers(matrix, rhs, 6.0, depth)) < 1e-12
    error = (sums - torch.linalg.solve(matrix, rhs.T).T).norm(dim=2)
    assert (error[1:] < error[:-1]).all()


def test_a_scale_for_every_row():
    """Two systems side by side, A and 10 A: the one scale that suits the first would make the second diverge."""
    matrix, _ = symmetric(torch.linspace(0.5, 2, 6))
    factor = torch.tensor([1.0, 10.0], dtype=torch.float64)
    product = lambda v: factor[:, None] * (v @ matrix)  # noqa: E731
    rhs = normal(2, 6)
    assert neumann(product, rhs, scale=2.2).status == "diverged"
    solution = neumann(product, rhs, scale=2.2 * factor)
    assert solution.converged
    assert relative_error(solution.value, torch.linalg.solve(matrix, rhs.T).T / factor[:, None]) < 1e-4


def test_a_scale_too_small_is_stopped_early_and_the_eigenvalue_named():
    matrix, _ = symmetric(torch.linspace(0.5, 5, 12))
    assert neumann(product_of(matrix), normal(2, 12), scale=2.6).converged
    solution = neumann(product_of(matrix), normal(2, 12), scale=2.3)
    assert solution.status == "diverged" and solution.steps < 100
    with pytest.raises(SolverError, match=r"pass scale=5\.5 .*eigenvalue near 5"):
        solution.require_converged()
    advised = float(re.search(r"pass scale=([\d.]+)", solution.sentence).group(1))
    assert neumann(product_of(matrix), normal(2, 12), scale=advised).converged


def test_negative_curvature_is_stopped_early_and_the_damping_named():
    matrix, _ = symmetric([-0.5, 1.0, 2.0])
    solution = neumann(product_of(matrix), normal(2, 3))
    assert solution.status == "diverged" and solution.steps < 200
    with pytest.raises(SolverError, match=r"a larger damping, by 0\.55 or more .*eigenvalue near -0\.5"):
        solution.require_converged()
    assert neumann(product_of(matrix), normal(2, 3), damping=0.6).converged
    assert neumann(product_of(-symmetric([1.0, 2.0, 3.0])[0]), normal(2, 3)).status == "diverged"


def test_ill_conditioned_runs_out_of_steps_but_does_not_diverge():
    matrix, _ = symmetric(torch.logspace(-6, 0, 20))
    solution = neumann(product_of(matrix), normal(3, 20), max_steps=300)
    assert solution.status == "max_steps" and solution.steps == 300


def test_a_tolerance_below_rounding_is_no_divergence():
    matrix, _ = symmetric(torch.linspace(0.5, 2, 6))
    assert neumann(product_of(matrix), normal(2, 6), tolerance=0.0, max_steps=500).status == "max_steps"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_says_nonfinite(value):
    rhs = normal(2, 3)
    rhs[0, 1] = value
    assert neumann(lambda v: v, rhs, scale=1.5).status == "nonfinite"
    assert neumann(lambda v: v * float("nan"), normal(2, 3), scale=1.5).status == "nonfinite"


def test_lissa_on_all_examples_is_this_series():
    matrix, _ = symmetric(torch.linspace(0.1, 5, 12))
    rhs = normal(3, 12)
    one, other = (solve(product_of(matrix), rhs, scale=5.5, damping=0.05) for solve in (lissa, neumann))
    assert torch.equal(one.value, other.value) and one.steps == other.steps


@pytest.mark.parametrize("curvature", ["hessian", "gauss_newton", "empirical_fisher"])
def test_among_the_solvers(curvature):
    risk, test = logistic_risk(), classes(6, seed=8)
    top = float(torch.linalg.eigvalsh(xl.curvature.hessian(risk)).max())
    options = {"curvature": curvature, "damping": 1e-2 * top}
    want = xl.influence.loss_influence(risk, test, **options)
    assert relative_error(xl.influence.loss_influence(risk, test, solver="neumann", **options), want) < 1e-4
    cut = [
        relative_error(xl.influence.loss_influence(risk, test, solver=Neumann(steps=depth), **options), want)
        for depth in (2, 8, 32)
    ]
    assert cut == sorted(cut, reverse=True) and cut[0] > 0.05


def test_a_network_with_negative_curvature_says_so_through_the_front_door():
    risk = network_risk(l2=0.0)
    assert torch.linalg.eigvalsh(xl.curvature.hessian(risk)).min() < -1e-3
    solution = inverse_curvature(risk, solver="neumann")(normal(2, risk.p))
    assert solution.status == "diverged" and "pass a larger damping or a Risk with a larger l2, by" in solution.sentence


def test_bad_arguments():
    product, rhs = product_of(torch.eye(3, dtype=torch.float64)), normal(2, 3)
    with pytest.raises(ValueError, match="scale"):
        neumann(product, rhs, scale=0.0)
    with pytest.raises(ValueError, match="damping"):
        neumann(product, rhs, damping=-1.0)
    with pytest.raises(ValueError, match="steps"):
        neumann(product, rhs, scale=1.0, steps=-1)
    with pytest.raises(ValueError, match="rise"):
        neumann_sums(product, rhs, [3, 1], scale=1.0)
    with pytest.raises(ValueError, match="eigenvalues.*dense"):
        inverse_curvature(logistic_risk(), solver="neumann", keep=3)
