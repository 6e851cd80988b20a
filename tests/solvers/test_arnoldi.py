"""The dominant eigenvectors, and the inverse on them, against dense eigendecompositions."""

import pytest
import torch

import explainlib as xl
from explainlib.solvers import Arnoldi, Factor, SolverError, dominant_eigenpairs, inverse_curvature
from tests.problems import classes, general, logistic_risk, network_risk, normal, relative_error
from tests.solvers.test_direct import symmetric


def product_of(matrix):
    return lambda v: v @ matrix


SPECTRA = {
    "distinct": torch.linspace(0.1, 5, 30),
    "repeated": torch.cat([torch.full((20,), 0.5), torch.linspace(1, 9, 10)]),
    "with zeros": torch.cat([torch.zeros(15), torch.linspace(1, 9, 15)]),
    "indefinite": torch.cat([-torch.linspace(0.1, 20, 15), torch.linspace(1, 9, 15)]),
    "graded": torch.logspace(-8, 2, 30),
}


@pytest.mark.parametrize("name", SPECTRA)
def test_with_all_steps_it_is_the_dense_pruned_inverse(name):
    matrix, _ = symmetric(SPECTRA[name])
    rhs = normal(4, 30, seed=3)
    for k in (1, 4, 9):
        found = dominant_eigenpairs(product_of(matrix), rhs[0], k, steps=30)
        want = Factor(matrix, keep=k).solve(rhs).value
        assert relative_error(found.solve(rhs).value, want) < 1e-9, k
        assert relative_error(found.values, torch.linalg.eigvalsh(matrix).flip(0)[:k]) < 1e-12
        assert relative_error(found.vectors @ found.vectors.T, torch.eye(k, dtype=torch.float64)) < 1e-12


@pytest.mark.parametrize("name", ["with zeros", "indefinite"])
def test_nothing_at_or_below_zero_is_inverted(name):
    matrix, _ = symmetric(SPECTRA[name])
    found = dominant_eigenpairs(product_of(matrix), normal(30), 20, steps=30)
    assert len(found.values) == 15 and found.values.min() > 0.5
    want = Factor(matrix, keep="positive").solve(normal(3, 30)).value
    assert relative_error(found.solve(normal(3, 30)).value, want) < 1e-9


@pytest.mark.parametrize("name", ["distinct", "repeated"])
def test_with_all_eigenpairs_it_is_the_dense_inverse(name):
    matrix, _ = symmetric(SPECTRA[name])
    rhs = normal(4, 30)
    solution = dominant_eigenpairs(product_of(matrix), rhs[0], 30).solve(rhs)
    assert relative_error(solution.value, torch.linalg.solve(matrix, rhs.T).T) < 1e-10
    assert solution.converged and solution.residual.max() < 1e-11


def test_the_residual_says_what_was_dropped():
    matrix, vectors = symmetric(torch.linspace(0.1, 5, 30))
    rhs = normal(4, 30)
    top = torch.linalg.eigh(matrix)[1][:, -6:]
    solution = dominant_eigenpairs(product_of(matrix), rhs[0], 6, steps=30).solve(rhs)
    outside = (rhs - rhs @ top @ top.T).norm(dim=1) / rhs.norm(dim=1)
    assert torch.allclose(solution.residual, outside, rtol=1e-9) and solution.residual.min() > 0.5
    assert "6 of 30 eigenvalues" in solution.detail
    inside = (rhs @ top) @ top.T
    assert dominant_eigenpairs(product_of(matrix), rhs[0], 6, steps=30).solve(inside).residual.max() < 1e-10


def test_few_steps_find_an_outlying_top_and_admit_what_they_miss():
    matrix, _ = symmetric(torch.cat([torch.linspace(0.0, 1, 190), torch.linspace(10, 100, 10)]))
    rhs = normal(3, 200)
    good = dominant_eigenpairs(product_of(matrix), rhs[0], 10, steps=45)
    want = Factor(matrix, keep=10).solve(rhs).value
    assert relative_error(good.solve(rhs).value, want) < 1e-8 and good.accuracy.max() < 1e-8
    poor = dominant_eigenpairs(product_of(matrix), rhs[0], 10, steps=11)
    assert poor.accuracy.max() > 1e-3 and relative_error(poor.solve(rhs).value, want) > 1e-2
    assert good.solve(rhs).converged and poor.solve(rhs).status == "max_steps"


def test_the_accuracy_is_each_pairs_own():
    """|A q - lambda q| over the largest eigenvalue, pair by pair, in the order of the values."""
    matrix, _ = symmetric(torch.cat([torch.linspace(0.0, 1, 50), torch.linspace(2, 10, 10)]))
    found = dominant_eigenpairs(product_of(matrix), normal(60), 10, steps=14)
    off = (found.vectors @ matrix - found.values[:, None] * found.vectors).norm(dim=1) / found.values[0]
    assert torch.allclose(found.accuracy, off, rtol=1e-6, atol=1e-12)
    assert found.accuracy[0] < 1e-2 * found.accuracy.max()  # they differ, so the order is seen
    indefinite = dominant_eigenpairs(
        product_of(matrix - 9 * torch.eye(60, dtype=torch.float64)), normal(60), 2, steps=14
    )
    shifted = matrix - 9 * torch.eye(60, dtype=torch.float64)
    off = indefinite.vectors @ shifted - indefinite.values[:, None] * indefinite.vectors
    assert torch.allclose(indefinite.accuracy, off.norm(dim=1) / indefinite.values[0], rtol=1e-6, atol=1e-12)


def test_it_is_its_seed():
    matrix, _ = symmetric(torch.linspace(0.1, 5, 60))
    values = [
        dominant_eigenpairs(product_of(matrix), normal(60), 5, steps=12, seed=seed).solve(normal(2, 60)).value
        for seed in (0, 0, 1)
    ]
    assert torch.equal(values[0], values[1]) and not torch.equal(values[0], values[2])


@pytest.mark.parametrize("make", [logistic_risk, lambda: general(logistic_risk()), network_risk])
@pytest.mark.parametrize("curvature", ["hessian", "gauss_newton", "empirical_fisher"])
def test_among_the_solvers(make, curvature):
    risk, rhs = make(), normal(3, make().p)
    options = {"curvature": curvature, "damping": 0.01}
    for k in (3, 7):
        want = inverse_curvature(risk, keep=k, **options)(rhs).value
        got = inverse_curvature(risk, solver=Arnoldi(k=k, steps=risk.p), **options)(rhs)
        counted = inverse_curvature(risk, solver=Arnoldi(steps=risk.p), keep=k, **options)(rhs)
        assert got.converged and relative_error(got.value, want) < 1e-8, k
        assert torch.equal(got.value, counted.value)


def test_by_name_with_all_parameters_it_equals_the_dense_solve():
    risk, test = logistic_risk(), classes(6, seed=8)  # 12 parameters, fewer than the 50 that are kept
    got = xl.influence.loss_influence(risk, test, solver="arnoldi")
    assert relative_error(got, xl.influence.loss_influence(risk, test)) < 1e-9


def test_damping_reaches_the_null_space_too():
    """As for the dense solve: what is judged is the damped spectrum."""
    risk = network_risk(l2=0.0)  # the softmax shift is flat
    options = {"curvature": "gauss_newton", "damping": 0.05}
    rhs = normal(2, risk.p)
    got = inverse_curvature(risk, solver="arnoldi", **options)(rhs).value
    assert relative_error(got, inverse_curvature(risk, **options)(rhs).value) < 1e-9


def test_bad_arguments():
    matrix, rhs = torch.eye(3, dtype=torch.float64), normal(2, 3)
    with pytest.raises(ValueError, match="at most 3"):
        dominant_eigenpairs(product_of(matrix), rhs[0], 4)
    with pytest.raises(ValueError, match="steps of at least"):
        dominant_eigenpairs(product_of(matrix), rhs[0], 3, steps=2)
    with pytest.raises(ValueError, match="NaN or infinity"):
        dominant_eigenpairs(lambda v: v * float("nan"), rhs[0], 1)
    with pytest.raises(ValueError, match="count"):
        inverse_curvature(logistic_risk(), solver="arnoldi", keep=1e-9)
    with pytest.raises(SolverError, match="0 of 3 eigenvalues"):
        dominant_eigenpairs(product_of(-matrix), rhs[0], 2).solve(rhs).require_converged()


def test_it_stops_once_all_pairs_are_accurate_and_not_before():
    """The default is 4 k steps; a spectrum that falls fast needs fewer, one without gaps all of them."""
    fast, _ = symmetric(torch.logspace(-12, 2, 300))
    found = dominant_eigenpairs(product_of(fast), normal(300), 40)
    whole = dominant_eigenpairs(product_of(fast), normal(300), 40, steps=160)
    assert 100 <= found.steps < 160 == whole.steps and found.accuracy.max() < 1e-12
    assert relative_error(found.values, whole.values) < 1e-10
    slow, _ = symmetric(torch.linspace(1.0, 2.0, 300))
    assert dominant_eigenpairs(product_of(slow), normal(300), 40).steps == 160


def test_it_does_not_stop_where_a_repeated_eigenvalue_may_be_missing():
    matrix, _ = symmetric(torch.cat([torch.full((60,), 3.0), torch.full((240,), 1.0)]))
    found = dominant_eigenpairs(product_of(matrix), normal(300), 40)
    assert found.steps == 160 and (found.values[:20] - 3).abs().max() < 1e-9
