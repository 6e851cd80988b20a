"""What bilevel influence says of itself: at rest or not, at a saddle or not, and the paper's direct form in numbers."""

import warnings

import pytest
import torch
from torch.func import grad, hessian

from explainlib.influence.bilevel.curvature import stationarity
from explainlib.influence.bilevel.influence import BilevelInfluence
from explainlib.meta.bilevel.learner import Bilevel
from explainlib.models import logistic, mlp
from explainlib.risk import NotAtMinimumWarning
from explainlib.solvers.solution import Solution, SolverError, SolverWarning
from tests.meta.bilevel.problems import STRENGTH
from tests.meta.few_shot import DOUBLE, random_tasks
from tests.problems import relative_error


@pytest.mark.parametrize("size", [4.0, 0.25])
def test_at_rest_is_a_millionth_of_one_tasks_gradient(size, recwarn):
    assert stationarity(1e-6 * size, size, True) == "stationary" and not recwarn.list
    with pytest.warns(NotAtMinimumWarning, match="not a stationary point"):
        assert stationarity(1.1e-6 * size, size, False) == "not_stationary"
    with pytest.raises(ValueError, match="strict=False"):
        stationarity(1.1e-6 * size, size, True)


def unsolved(inner, l2, **options):
    """Return a learner, its start, tasks, and their influence there."""
    model = mlp([3, 2, 3], "tanh", dtype=DOUBLE) if inner == "head" else logistic(3, 3, dtype=DOUBLE)
    learner, tasks = Bilevel(model, inner=inner, strength=STRENGTH, l2=l2), random_tasks(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotAtMinimumWarning)
        return learner, learner.lam0, tasks, BilevelInfluence(learner, learner.lam0, tasks, **options)


def direct_form(learner, lam, tasks):
    """Return l2 I + sum_i partial_lam^2 f_i, and minus its inverse on every partial_lam f_i, each theta fixed."""
    thetas = learner.inner_solution(lam, tasks)

    def loss(at, k):
        outputs = learner.problem.outputs(at, thetas[k], tasks.query_x[k])
        return torch.nn.functional.cross_entropy(outputs, tasks.query_y[k], reduction="sum")

    rows = torch.stack([grad(loss)(lam, k) for k in range(len(tasks))])
    matrix = sum(hessian(loss)(lam, k) for k in range(len(tasks))) + learner.l2 * torch.eye(len(lam), dtype=DOUBLE)
    return matrix, -torch.linalg.solve(matrix, rows.T).T


@pytest.mark.parametrize("l2", [0.01, 30.0])
def test_the_direct_form_keeps_every_theta_fixed_and_says_where_it_is_at_a_saddle(l2, recwarn):
    learner, lam, tasks, influence = unsolved("head", l2)
    matrix, want = direct_form(learner, lam, tasks)
    saddle = float(torch.linalg.eigvalsh(matrix)[0]) < 0
    assert saddle == (l2 < 1)
    assert relative_error(influence.direct_tasks(), want) < 1e-8 and relative_error(influence.direct(2), want[2]) < 1e-8
    assert influence.solution.status == ("not_positive_definite" if saddle else "converged")
    said = [str(w.message) for w in recwarn if issubclass(w.category, SolverWarning)]
    assert bool(said) == saddle and all("saddle" in words for words in said)


@pytest.mark.parametrize(
    ("solver", "status", "warns"),
    [
        ("dense", "not_positive_definite", True),
        ("dense", "inaccurate", False),
        ("cg", "not_positive_definite", False),
        ("cg", "max_steps", False),
    ],
)
def test_only_a_dense_solve_of_a_saddle_is_used(solver, status, warns):
    outer = unsolved("proximal", 1.0, solver=solver)[3]._outer
    found = Solution(torch.ones(1, 2), status, 0, torch.ones(1))
    with pytest.warns(SolverWarning, match=status) if warns else pytest.raises(SolverError, match=status):
        assert outer.accept(found) is found.value
    assert outer.solution is found


def test_the_step_to_rest_is_told_in_influences_of_a_task():
    learner, lam, tasks, influence = unsolved("proximal", 30.0)
    system = learner.total_hessian(lam, tasks) + 30 * torch.eye(learner.q, dtype=DOUBLE)
    gradient = learner.total_gradients(lam, tasks).sum(0) + 30 * lam
    assert influence.gradient_norm == pytest.approx(float(gradient.norm()))
    step = torch.linalg.solve(system, gradient).norm() / influence.tasks().norm(dim=1).median()
    assert influence.step_to_rest() == pytest.approx(float(step))


def test_one_line_and_unknown_parts():
    learner, _, _, influence = unsolved("proximal", 30.0)
    norm = f"{influence.gradient_norm:.1e}"
    assert repr(influence) == f"BilevelInfluence(M=4, {learner}, exact, dense, inner exact, |gradient| {norm})"
    assert influence.solution is None and influence.status == "not_stationary"
    with pytest.raises(ValueError, match="part='query' is unknown"):
        influence.without_example(0, 0, "query")
