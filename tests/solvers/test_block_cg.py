"""Block conjugate gradients: many right-hand sides, fewer products, the same answers and statuses as row by row."""

import pytest
import torch

from explainlib.solvers import CG, cg, inverse_curvature
from explainlib.solvers.block_cg import BLOCK, block_cg
from tests.problems import network_risk, normal, relative_error
from tests.solvers.test_direct import symmetric


class Counted:
    """A product that counts the rows it is asked for."""

    def __init__(self, matrix):
        self.matrix, self.rows, self.calls = matrix, 0, 0

    def __call__(self, v):
        self.rows, self.calls = self.rows + len(v), self.calls + 1
        return v @ self.matrix


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("k", [1, 2, 7, BLOCK + 3])
def test_it_solves_what_a_dense_solve_does(k, dtype):
    matrix = symmetric(torch.logspace(-2, 1, 60))[0].to(dtype)
    rhs = normal(k, 60, seed=3).to(dtype)
    found = block_cg(lambda v: v @ matrix, rhs)
    want = torch.linalg.solve(matrix.double(), rhs.double().T).T
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    assert found.converged and found.residual.max() <= 10 * tolerance
    assert relative_error(found.value.double(), want) < 1e3 * 10 * tolerance
    true = (found.value @ matrix - rhs).norm(dim=1) / rhs.norm(dim=1)
    assert torch.allclose(found.residual, true, atol=1e-2 * tolerance)


def test_several_rows_need_fewer_products_than_one_by_one():
    matrix = symmetric(torch.cat([torch.linspace(1, 2, 180), torch.logspace(1, 4, 20)]))[0]
    rhs = normal(12, 200, seed=1)
    together, apart = Counted(matrix), Counted(matrix)
    found, want = block_cg(together, rhs, tolerance=1e-8), cg(apart, rhs, tolerance=1e-8)
    assert found.converged and want.converged and relative_error(found.value, want.value) < 1e-6
    assert found.steps < 0.5 * want.steps and together.rows < 0.5 * apart.rows


def test_rows_that_depend_on_each_other_break_nothing():
    matrix, _ = symmetric(torch.linspace(0.1, 5, 30))
    rhs = normal(6, 30, seed=5)
    rhs[1], rhs[2], rhs[4] = rhs[0], 0.0, rhs[0] - 1e-3 * rhs[3]
    found = block_cg(lambda v: v @ matrix, rhs)
    assert found.converged and relative_error(found.value, torch.linalg.solve(matrix, rhs.T).T) < 1e-8
    assert (found.value[2] == 0).all() and found.residual[2] == 0


def test_more_rows_than_parameters():
    matrix, _ = symmetric(torch.linspace(0.5, 5, 4))
    rhs = normal(2 * BLOCK, 4)
    found = block_cg(lambda v: v @ matrix, rhs)
    assert found.converged and found.steps <= 6
    assert relative_error(found.value, torch.linalg.solve(matrix, rhs.T).T) < 1e-8


def test_rows_of_very_different_lengths_converge_relative_to_their_own():
    matrix, _ = symmetric(torch.logspace(-2, 1, 60))
    rhs = normal(4, 60, seed=2) * torch.tensor([1e-6, 1.0, 1e3, 1e6]).double()[:, None]
    found = block_cg(lambda v: v @ matrix, rhs)
    want = torch.linalg.solve(matrix, rhs.T).T
    assert found.converged
    assert ((found.value - want).norm(dim=1) / want.norm(dim=1)).max() < 1e-6


def test_negative_curvature_is_told_row_by_row():
    matrix = torch.diag(torch.tensor([1.0, 2.0, 3.0, -1.0]).double())
    rhs = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]]).double()
    found = block_cg(lambda v: v @ matrix, rhs)
    assert found.row_status == cg(lambda v: v @ matrix, rhs).row_status
    assert found.row_status == ("converged", "not_positive_definite", "converged")
    assert relative_error(found.value[0], torch.tensor([1.0, 0.5, 1 / 3, 0.0]).double()) < 1e-7


def test_too_few_steps_are_told():
    matrix, _ = symmetric(torch.logspace(-3, 2, 60))
    found = block_cg(lambda v: v @ matrix, normal(3, 60), max_steps=2)
    assert found.status == "max_steps" and found.steps == 2 and found.residual.min() > 1e-3


def test_nan_is_told():
    found = block_cg(lambda v: v * float("nan"), normal(3, 5))
    assert found.status == "nonfinite"


def test_among_the_solvers_of_a_network():
    risk = network_risk()
    rows = normal(5, risk.p)
    for options in ({"damping": 1.0}, {"curvature": "gauss_newton", "damping": 1e-2}):
        got, want = (inverse_curvature(risk, solver=solver, **options)(rows) for solver in (CG(), "dense"))
        assert got.converged and relative_error(got.value, want.value) < 1e-6


@pytest.mark.parametrize("k", [1, 3])
def test_a_loose_tolerance_is_a_goal_and_not_an_excuse(k):
    matrix, _ = symmetric(torch.logspace(-2, 1, 60))
    rhs = normal(k, 60, seed=3)
    found = block_cg(lambda v: v @ matrix, rhs, tolerance=0.2)
    assert found.steps > 0 and found.converged and found.residual.max() <= 0.2


def test_one_row_is_conjugate_gradients_with_its_steps_and_its_limit():
    matrix, rhs = symmetric(torch.logspace(-2, 1, 60))[0], normal(1, 60, seed=3)
    product = Counted(matrix)
    made, plain = block_cg(product, rhs), cg(lambda v: v @ matrix, rhs)
    assert made.steps == plain.steps and torch.equal(made.value, plain.value)
    limited = Counted(matrix)
    assert block_cg(limited, rhs, max_steps=5).steps == 5
    assert limited.calls == cg_calls(matrix, rhs, 5) and product.calls == cg_calls(matrix, rhs, None)


def cg_calls(matrix, rhs, max_steps):
    product = Counted(matrix)
    cg(product, rhs, max_steps=max_steps)
    return product.calls
