"""What a factorisation and its like tell of themselves: ranks, lowest eigenvalues, rounding levels, steps."""

import pytest
import torch

from explainlib.curvature import Ekfac
from explainlib.solvers import Factor, LowRank, dominant_eigenpairs, ekfac_solve, neumann
from explainlib.solvers.dense import kept_eigenvalues, rounding_share
from explainlib.solvers.low_rank import gram_floor
from tests.problems import network_risk, normal, relative_error
from tests.solvers.test_direct import INDEFINITE, POSITIVE, SINGULAR, symmetric

D = torch.float64


@pytest.mark.parametrize(
    ("values", "keep", "rank", "null", "definite", "lowest"),
    [
        (POSITIVE, None, 5, 0, True, None),
        (POSITIVE, 2, 2, 0, False, 2.0),
        (INDEFINITE, None, 5, 0, False, -3.0),
        (INDEFINITE, "positive", 3, 0, False, 0.2),
        (SINGULAR, None, 3, 2, False, 0.0),
        (SINGULAR, 1e-9, 3, 0, False, 0.5),
    ],
)
def test_a_factor_tells_what_it_inverts(values, keep, rank, null, definite, lowest):
    factor = Factor(symmetric(values)[0], keep=keep)
    assert (factor.rank, factor.null, factor.definite) == (rank, null, definite)
    assert (factor.triangle is not None) == definite
    assert factor.lowest is None if lowest is None else factor.lowest == pytest.approx(lowest, abs=1e-12)
    if definite:
        assert relative_error(factor.triangle @ factor.triangle.T, factor.matrix) < 1e-12
        assert not factor.triangle.triu(1).any()


def test_a_factor_holds_the_damped_matrix_in_float64():
    matrix = symmetric(POSITIVE)[0].float()
    factor = Factor(matrix, damping=0.5)
    assert factor.matrix.dtype == D and torch.equal(factor.matrix, matrix.double() + 0.5 * torch.eye(5, dtype=D))
    assert factor.solve(normal(2, 5).float()).detail == "5 of 5 eigenvalues inverted"
    assert factor.solve(normal(2, 5).float()).steps == 0
    assert Factor(-matrix, keep=3).lowest is None, "nothing is inverted"


@pytest.mark.parametrize("dtype", [D, torch.float32])
def test_rounding_levels(dtype):
    """p eps, at least 100 eps; of a Gram matrix in float64, the square of 100 eps of the rows, or its own rounding."""
    eps = torch.finfo(dtype).eps
    assert [rounding_share(dtype, size) for size in (2, 100, 1000)] == [100 * eps, 100 * eps, 1000 * eps]
    own = torch.finfo(D).eps
    assert [gram_floor(dtype, size) for size in (3, 7)] == [max(1e4 * eps**2, size * own) for size in (3, 7)]


def test_what_is_at_the_threshold_is_not_kept():
    values = torch.tensor([-2.0, 0.0, 0.5, 1.0, 4.0], dtype=D)
    keeps = lambda keep, **options: kept_eigenvalues(values, keep, **options).tolist()  # noqa: E731
    assert keeps(None) == [True] * 5
    assert keeps("positive", floor=0.125) == [False, False, False, True, True]
    assert keeps(0.25) == [True, False, False, False, True] and keeps(0.249) == [True, False, False, True, True]
    assert keeps(2) == [False, False, False, True, True] and keeps(9) == [False, False, True, True, True]
    assert keeps(4, floor=0.25) == [False, False, False, False, True]


def test_a_low_rank_factor_of_zeros_is_its_shift_alone():
    rhs = normal(3, 5)
    for zeros, square in ((torch.zeros(2, 5, dtype=D), False), (torch.zeros(5, 5, dtype=D), True)):
        made = LowRank(zeros, shift=0.5, square=square)
        assert made.solve(rhs).converged and relative_error(made.solve(rhs).value, 2 * rhs) < 1e-14
        assert LowRank(zeros, shift=0.0, square=square).solve(rhs).status == "rank_deficient"


def test_a_low_rank_factor_tells_its_rank():
    a = normal(3, 6, seed=4)
    made = LowRank(torch.cat([a, a[:1]]), shift=0.1)
    assert made.rank == 3 and not made.singular and made.solve(normal(1, 6)).detail == "rank 3 of 6"
    assert torch.allclose(made.values, torch.linalg.eigvalsh(a.T @ a + torch.outer(a[0], a[0]))[-3:])
    assert LowRank(a, shift=0.0).singular and not LowRank(a, shift=0.0, keep=2).singular
    assert not LowRank(a.T @ a + torch.eye(6, dtype=D), shift=0.0, square=True).singular
    lost = LowRank(a, shift=0.0).solve(normal(2, 6))
    assert lost.detail == "rank 3 of 6, and neither ridge nor damping" and torch.isinf(lost.residual).all()


@pytest.mark.parametrize(("k", "steps"), [(3, 26), (10, 40), (40, 160)])
def test_arnoldi_takes_four_steps_a_pair_and_twenty_more_than_two_for_few(k, steps):
    values = torch.linspace(1.0, 2.0, 200, dtype=D)
    assert dominant_eigenpairs(lambda v: v * values, values, k).steps == steps
    assert dominant_eigenpairs(lambda v: v[:, :9] * values[:9], values[:9], 3).steps == 9


@pytest.mark.parametrize("steps", [3, 6])
def test_as_many_steps_as_pairs_are_enough_to_begin(steps):
    values = torch.linspace(1.0, 2.0, 9, dtype=D)
    assert len(dominant_eigenpairs(lambda v: v * values, values, 3, steps=steps).values) == 3


def test_a_right_hand_side_outside_the_kept_span_has_the_solution_zero():
    values = torch.tensor([1.0, 2.0, 50.0, 80.0], dtype=D)
    found = dominant_eigenpairs(lambda v: v * values, values, 2, steps=4)
    solution = found.solve(torch.eye(4, dtype=D)[:2])
    assert solution.converged and solution.value.abs().max() < 1e-14 and solution.steps == found.steps == 4
    assert torch.allclose(solution.residual, torch.ones(2, dtype=D))


def test_ekfac_is_checked_on_eight_rows(monkeypatch):
    risk = network_risk()
    ekfac, rows, spoiled = Ekfac(risk), normal(10, risk.p), []
    right = Ekfac.inverse_product

    def wrong(self, given, *, damping=0.0):
        value = right(self, given, damping=damping)
        value[spoiled] *= 1.001
        return value

    monkeypatch.setattr(Ekfac, "inverse_product", wrong)
    assert ekfac_solve(ekfac, rows, damping=0.1).converged
    for row, status in ((8, "converged"), (7, "inaccurate"), (0, "inaccurate")):
        spoiled[:] = [row]
        solution = ekfac_solve(ekfac, rows, damping=0.1)
        assert solution.status == status and solution.steps == 0 and solution.detail == "EK-FAC"
    assert solution.residual.tolist() == pytest.approx([1e-3] * 10, rel=1e-3)


def test_ekfac_counts_what_is_at_rounding_level():
    risk = network_risk(n=1, l2=0.0)
    lost = ekfac_solve(Ekfac(risk), normal(2, risk.p))
    null = int((Ekfac(risk).eigenvalues <= 1e-15).sum())
    assert lost.detail == f"{null} of {risk.p} eigenvalues of EK-FAC are at rounding level" and null > 5
    assert torch.isinf(lost.residual).all() and lost.steps == 0


def test_a_series_that_meets_its_tolerance_at_the_last_step_has_converged():
    """1/2 as 1/4 (1 + 1/2 + 1/4 + ...): the remainder after d terms more is 2^-(d+1)."""
    product, rhs = lambda v: 2 * v, torch.tensor([[1.0]], dtype=D)  # noqa: E731
    for tolerance, status in ((2**-4, "converged"), (2**-4 * 0.999, "max_steps")):
        solution = neumann(product, rhs, scale=4.0, max_steps=3, tolerance=tolerance)
        assert (solution.status, solution.steps, float(solution.residual)) == (status, 3, 2**-4)
        assert solution.row_status == (status,)
    assert neumann(product, rhs, scale=4.0, tolerance=2**-3).steps == 2
    assert neumann(product, rhs, scale=4.0, steps=3).detail == "scale 4, cut at depth 3 as asked"
