"""Factor and LowRank against plain inverses and eigenvalue sums: exact, damped, pruned, singular, indefinite."""

import pytest
import torch

from explainlib.solvers import Factor, LowRank, SolverError, SolverWarning
from tests.problems import normal, relative_error


def symmetric(values, seed=0):
    """A matrix with exactly these eigenvalues."""
    values = torch.as_tensor(values, dtype=torch.float64)
    q = torch.linalg.qr(normal(len(values), len(values), seed=seed))[0]
    return q @ torch.diag(values) @ q.T, q


def pruned(matrix, keep_mask_of, rhs):
    values, q = torch.linalg.eigh(matrix)
    mask = keep_mask_of(values)
    return ((rhs @ q[:, mask]) / values[mask]) @ q[:, mask].T


POSITIVE = [1e-3, 0.1, 1.0, 2.0, 5.0]
INDEFINITE = [-3.0, -0.5, 0.2, 1.0, 4.0]
SINGULAR = [0.0, 0.0, 0.5, 1.0, 4.0]


@pytest.mark.parametrize("values", [POSITIVE, INDEFINITE])
@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_factor_inverts(values, damping):
    matrix, _ = symmetric(values)
    rhs = normal(4, 5, seed=1)
    solution = Factor(matrix, damping=damping).solve(rhs)
    want = torch.linalg.solve(matrix + damping * torch.eye(5, dtype=torch.float64), rhs.T).T
    assert solution.converged and relative_error(solution.value, want) < 1e-10 and solution.residual.max() < 1e-10


def test_factor_leaves_the_callers_matrix():
    matrix, _ = symmetric(POSITIVE)
    before = matrix.clone()
    Factor(matrix, damping=1.0)
    assert torch.equal(matrix, before)


@pytest.mark.parametrize(
    ("keep", "mask"),
    [
        (2, [False, False, False, True, True]), (3, [False, False, True, True, True]),
        (5, [False, False, True, True, True]),  # never one <= 0
        (0.2, [True, False, False, True, True]),  # by absolute value: -3 stays, 0.5 of 4 and 0.2 of 4 go
        (1e-9, [True] * 5), ("positive", [False, False, True, True, True]),
    ],
)  # fmt: skip
def test_factor_keeps_what_keep_says(keep, mask):
    matrix, _ = symmetric(INDEFINITE)
    rhs = normal(3, 5, seed=1)
    solution = Factor(matrix, keep=keep).solve(rhs)
    assert relative_error(solution.value, pruned(matrix, lambda _: torch.tensor(mask), rhs)) < 1e-12
    assert solution.converged and solution.residual.max() < 1e-10


def test_keep_judges_the_damped_eigenvalues():
    matrix, _ = symmetric(INDEFINITE)
    rhs = normal(3, 5, seed=1)
    got = Factor(matrix, damping=1.0, keep="positive").solve(rhs).value
    lifted = matrix + torch.eye(5, dtype=torch.float64)
    assert relative_error(got, pruned(lifted, lambda v: v > 1e-9, rhs)) < 1e-12


def test_singular_is_a_status_that_raises_by_default():
    matrix, _ = symmetric(SINGULAR)
    solution = Factor(matrix).solve(normal(2, 5))
    assert solution.status == "rank_deficient" and not solution.converged and "2 of 5" in solution.detail
    with pytest.raises(SolverError, match="l2 or damping.*keep=1e-9") as caught:
        solution.required()
    assert caught.value.solution is solution
    with pytest.warns(SolverWarning, match="rank_deficient"):
        assert solution.required("warn") is solution
    with pytest.raises(ValueError, match="on_failure"):
        solution.required("ignore")
    assert Factor(matrix, damping=1e-6).solve(normal(2, 5)).converged
    rhs = normal(2, 5)
    assert relative_error(Factor(matrix, keep=1e-9).solve(rhs).value, rhs @ torch.linalg.pinv(matrix)) < 1e-10


def test_zero_matrix_has_no_inverse():
    assert Factor(torch.zeros(3, 3, dtype=torch.float64)).solve(normal(1, 3)).status == "rank_deficient"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("keep", [None, 2, "positive"])
def test_a_broken_matrix_is_a_status(value, keep):
    matrix, _ = symmetric(POSITIVE)
    matrix[1, 2] = matrix[2, 1] = value
    solution = Factor(matrix, keep=keep).solve(normal(2, 5))
    assert solution.status == "nonfinite"
    with pytest.raises(SolverError, match="NaN or infinity"):
        solution.required()


@pytest.mark.parametrize("keep", [0, -1, True, 1.0, 1.5, 0.0, "negative", [3]])
def test_meaningless_keep_is_refused(keep):
    with pytest.raises((ValueError, TypeError), match="keep"):
        Factor(torch.eye(3, dtype=torch.float64), keep=keep)


@pytest.mark.parametrize(("rows", "square"), [(3, False), (3, True), (9, True)])
@pytest.mark.parametrize("shift", [0.0, 0.05])
@pytest.mark.parametrize("keep", [None, 2, 3, 1e-9, 0.2, "positive"])
def test_low_rank_is_the_dense_answer(rows, square, shift, keep):
    """Both sides of Woodbury; ``keep`` on the eigenvalues of A^T A + shift I, just as ``Factor`` keeps them."""
    a = normal(rows, 6, seed=4)
    rhs = normal(5, 6, seed=5)
    dense = Factor(a.T @ a, damping=shift, keep=keep).solve(rhs)
    got = LowRank(a.T @ a if square else a, shift=shift, keep=keep, square=square).solve(rhs)
    if rows < 6 and shift == 0 and keep is None:
        assert got.status == dense.status == "rank_deficient"
    else:
        assert got.converged and got.residual.max() < 1e-8
        assert relative_error(got.value, dense.value) < 1e-8


def test_low_rank_with_a_tiny_shift():
    a, rhs = normal(3, 6, seed=4), normal(5, 6, seed=5)
    shift = 1e-8
    want = torch.linalg.solve(a.T @ a + shift * torch.eye(6, dtype=torch.float64), rhs.T).T
    assert relative_error(LowRank(a, shift=shift).solve(rhs).value, want) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_follows(dtype):
    matrix, rhs = symmetric(POSITIVE)[0].to(dtype), normal(2, 5).to(dtype)
    for solution in (
        Factor(matrix).solve(rhs),
        Factor(matrix, keep=2).solve(rhs),
        LowRank(matrix[:2], shift=1.0).solve(rhs),
    ):
        assert solution.value.dtype == dtype
