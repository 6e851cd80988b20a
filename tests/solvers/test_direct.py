"""Factor and LowRank against plain inverses and eigenvalue sums: exact, damped, pruned, singular, indefinite."""

import copy

import pytest
import torch

import explainlib as xl
from explainlib.datasets import Examples
from explainlib.solvers import Factor, LowRank, SolverError, SolverWarning, inverse_curvature
from explainlib.solvers.inverse import MATRICES
from tests.problems import classes, normal, relative_error


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
    with pytest.raises(SolverError, match="larger damping.*keep=1e-9") as caught:
        solution.require_converged()
    assert caught.value.solution is solution
    with pytest.warns(SolverWarning, match="rank_deficient"):
        assert solution.require_converged("warn") is solution
    with pytest.raises(ValueError, match="on_failure"):
        solution.require_converged("ignore")
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
        solution.require_converged()


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


def float32_problem(n, hidden, seed=1):
    """Return one network problem in both dtypes, and test examples."""
    train, test = classes(n), classes(7, seed=5)
    model = xl.models.mlp([3, hidden, 3], "tanh", seed=seed, dtype=torch.float64)
    risk = xl.Risk(model, train)
    single = xl.Risk(copy.deepcopy(model).float(), Examples(train.x.float(), train.y))
    return risk, single, test


@pytest.mark.parametrize(("n", "hidden"), [(12, 40), (60, 4)], ids=["fewer rows than parameters", "more"])
@pytest.mark.parametrize("curvature", ["gauss_newton", "empirical_fisher"])
@pytest.mark.parametrize("side", ["train", "test"])
@pytest.mark.parametrize("damping", [1e-2, 1e-4, 1e-6, 1e-8])
def test_low_rank_in_float32_is_the_float64_answer(n, hidden, curvature, side, damping):
    """Training gradients lie in the span: what rounding leaves outside it was once divided by the damping (1,700%)."""
    risk, single, test = float32_problem(n, hidden)
    examples = risk.train if side == "train" else test
    rhs = risk.loss_gradients(examples)
    matrix = MATRICES[curvature](risk) + damping * torch.eye(risk.p, dtype=torch.float64)
    want = torch.linalg.solve(matrix, rhs.T).T
    rounded = single.loss_gradients(Examples(examples.x.float(), examples.y))
    got = inverse_curvature(single, curvature=curvature, solver="low_rank", damping=damping)(rounded)
    assert got.converged and got.value.dtype == torch.float32
    assert relative_error(got.value.double(), want) < 1e-3 and got.residual.max() < 1e-5


def test_what_lies_outside_leaves_no_rounding_inside():
    """Divided by a tiny shift, what one projection leaves in the span shows there at 1e-8; two leave 5e-11."""
    span, _ = torch.linalg.qr(normal(12, 4))
    mixed, scale, shift = torch.linalg.qr(normal(4, 4, seed=2)).Q, torch.logspace(0, -2, 4, dtype=span.dtype), 1e-8
    inside, outside = normal(3, 4, seed=3), normal(3, 12, seed=4)
    outside = outside - outside @ span @ span.T
    solution = LowRank(mixed * scale @ span.T, shift=shift).solve(inside @ span.T + outside)
    assert relative_error(solution.value @ span, inside / (scale**2 + shift)) < 1e-9
    assert solution.residual.max() < 1e-7


def test_low_rank_refuses_a_part_outside_that_may_be_rounding():
    a, rhs = normal(3, 6, seed=4), normal(1, 3, seed=5) @ normal(3, 6, seed=4)
    q = torch.linalg.qr(a.T, mode="complete")[0][:, 5]
    for size, status in ((1e-7, "converged"), (2e-5, "inaccurate"), (1e-3, "converged")):
        outside = size * float(rhs.norm()) * q
        got = LowRank(a.float(), shift=1e-8).solve((rhs + outside).float())
        assert got.status == status, size
        want = outside / 1e-8 if size == 1e-3 else torch.zeros_like(q)
        if status == "converged":
            assert (got.value.double()[0] @ q - want @ q).abs() <= 0.01 * (want.norm() + rhs.norm())
    assert LowRank(a.float(), shift=0.1).solve((rhs + 2e-5 * q).float()).converged  # with that shift it does not show


@pytest.mark.parametrize("solver", ["low rank", "dense"])
def test_a_matrix_that_float32_leaves_undetermined_is_refused(solver):
    values = torch.logspace(-9, 0, 12)
    matrix, rhs = symmetric(values)[0].float(), normal(2, 12).float()
    solve = (
        (lambda d: Factor(matrix, damping=d)) if solver == "dense" else lambda d: LowRank(matrix, shift=d, square=True)
    )
    assert solve(1e-7).solve(rhs).status == "rank_deficient"
    good = solve(1e-3).solve(rhs)
    want = torch.linalg.solve(matrix.double() + 1e-3 * torch.eye(12, dtype=torch.float64), rhs.double().T).T
    assert good.converged and relative_error(good.value.double(), want) < 1e-6


def test_no_rounding_is_kept():
    """keep in float32 once inverted eigenvalues of 1e-8 that were made of rounding."""
    matrix, _ = symmetric([0.0, 0.0, 0.5, 1.0, 4.0])
    rhs = normal(3, 5)
    want = rhs @ torch.linalg.pinv(matrix)
    for keep in (1e-9, 5, "positive"):
        got = Factor(matrix.float(), keep=keep)
        assert got.rank == 3
        assert relative_error(got.solve(rhs.float()).value.double(), want) < 1e-5


def test_a_square_that_is_none_is_refused():
    matrix, _ = symmetric(INDEFINITE)
    assert LowRank(matrix, shift=0.1, square=True).solve(normal(2, 5)).status == "not_positive_definite"
    broken = torch.full((3, 3), float("nan"), dtype=torch.float64)
    assert LowRank(broken, shift=0.1, square=True).solve(normal(2, 3)).status == "nonfinite"


@pytest.mark.parametrize("make", [lambda: Factor(symmetric(POSITIVE)[0]), lambda: LowRank(normal(3, 5), shift=0.1)])
def test_the_status_comes_from_the_residual(make):
    """A factor that is not the matrix's: the residual is taken with the matrix itself, so it is seen."""
    solver, rhs = make(), normal(2, 5)
    assert solver.solve(rhs).converged
    spoiled = "_triangle" if isinstance(solver, Factor) else "_basis"
    setattr(solver, spoiled, getattr(solver, spoiled) * (1 + 1e-4))
    assert solver.solve(rhs).status == "inaccurate"
    with pytest.raises(SolverError, match="rounding dominates"):
        solver.solve(rhs).require_converged()
