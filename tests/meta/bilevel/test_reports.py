"""Bilevel learners: options and limits, what is counted and named, and which method takes which size."""

import inspect
import sys

import pytest
import torch

from explainlib.meta import solve
from explainlib.meta.bilevel import learner as learner_room
from explainlib.meta.bilevel.batches import NUMBERS, tasks_per_batch
from explainlib.meta.bilevel.inverse import DenseInverse
from explainlib.meta.bilevel.learner import Bilevel
from explainlib.meta.bilevel.solve import require_bilevel
from explainlib.meta.bilevel.task_weights import TaskWeights
from explainlib.models import logistic, mlp
from explainlib.solvers import SolverError
from tests.fits import fits_to_the_byte
from tests.meta.bilevel.problems import L2, STRENGTH, problem
from tests.meta.few_shot import DOUBLE, random_tasks, tanh_maml


def test_a_learner_tells_its_options():
    learner, tasks = problem("softmax, dense")
    assert learner.options() == {"kind": "bilevel", "inner": "proximal", "strength": STRENGTH, "l2": L2}
    assert repr(learner) == "Bilevel(proximal, q=9, p=9, strength=0.7, l2=0.9)"
    assert (learner.q, learner.p) == (9, 9) and learner.w0 is learner.lam0
    learner.require_tasks(tasks)
    assert learner.has_closed_form
    other, tasks = problem("outer proximity")
    other.require_tasks(tasks)
    assert not other.has_closed_form and other.options()["outer_proximity"] is True
    regression, tasks = problem("regression, head")
    regression.require_tasks(tasks)
    assert not regression.has_closed_form and regression.options()["loss"] == "squared_error"
    assert (regression.q, regression.p) == (8, 6)


@pytest.mark.parametrize(("above", "free"), [(0, False), (-1, True)])
def test_inner_problems_up_to_a_size_are_taken_with_matrices(above, free, monkeypatch):
    model = mlp([2, 4, 2], "tanh", dtype=DOUBLE)
    monkeypatch.setattr(learner_room, "DENSE", sum(p.numel() for p in model.parameters()) + above)
    assert Bilevel(model, strength=1.0, l2=0.1).problem.matrix_free == free


@pytest.mark.parametrize(("above", "newton"), [(0, True), (-1, False)])
def test_outer_problems_up_to_a_size_are_solved_by_newton(above, newton, monkeypatch):
    learner, tasks = problem("softmax, dense")
    room, taken = sys.modules["explainlib.meta.bilevel.solve"], []
    for name in ("_newton", "_lbfgs"):
        real = getattr(room, name)
        monkeypatch.setattr(
            room, name, lambda *given, name=name, real=real: taken.append((name, given[3])) or real(*given)
        )
    monkeypatch.setattr(room, "DENSE", learner.q + above)
    found = solve(learner, tasks, tolerance=1e-1)
    assert taken == [("_newton", 200) if newton else ("_lbfgs", 5000)] and found.status == "converged"


def test_a_solve_tells_its_first_loss_and_its_last_gradient():
    learner, tasks = problem("softmax, dense")
    found = solve(learner, tasks, tolerance=1e-2, method="newton")
    assert found.history[0] == pytest.approx(float(learner.outer_losses(learner.lam0, tasks).sum())), (
        "without the ridge"
    )
    gradient = learner.total_gradients(found.w, tasks).sum(0) + L2 * found.w
    assert found.gradient_norm == pytest.approx(float(gradient.norm()), rel=1e-6)
    at_rest = solve(learner, tasks, tolerance=1e-2, method="newton", start=found.w)
    assert at_rest.status == "converged" and at_rest.history == () and torch.equal(at_rest.w, found.w)


def test_other_learners_are_told_what_to_pass():
    for thing, said in (
        (tanh_maml(), "Maml and ProtoNet have xl.meta.train and xl.influence.TaskInfluence"),
        (torch.nn.Linear(2, 2), r"a Linear, .*pass xl.meta.Bilevel\(model, strength=..., l2=...\)"),
    ):
        with pytest.raises(TypeError, match=said):
            inspect.unwrap(require_bilevel)(thing)  # without the type checks of these tests


@pytest.mark.parametrize(
    ("change", "status", "task"),
    [([1, 1, -1.0], "not_positive_definite", 2), ([1, -1.0, -1.0], "not_positive_definite", 1), ([1, float("nan"), 1], None, 1)],
)  # fmt: skip
def test_an_inner_hessian_that_is_not_positive_definite_is_named(change, status, task):
    matrices = torch.eye(2, dtype=DOUBLE) * torch.tensor(change, dtype=DOUBLE)[:, None, None]
    with pytest.raises(SolverError, match="make the Bilevel's strength larger|NaN") as caught:
        DenseInverse(matrices)
    found = caught.value.solution
    if status is not None:
        assert found.status == status and f"of task {task} of this batch" in found.detail
    assert torch.isinf(found.residual).all() and found.steps == 0


def test_weights_are_one_unless_said_otherwise():
    tasks = random_tasks(4)
    ones = TaskWeights.of(tasks)
    assert all((part == 1).all() for part in (ones.tasks, ones.training, ones.validation))
    assert ones.training.shape == (4, 9) and ones.validation.shape == (4, 12)
    gone = ones.without_tasks([1, 3])
    assert gone.tasks.tolist() == [1, 0, 1, 0] and ones.tasks.tolist() == [1] * 4
    for part in ("training", "validation"):
        changed = getattr(ones.without_example(2, 1, part), part)
        assert (changed == 0).nonzero().tolist() == [[2, 1]]
    assert TaskWeights.checked(tasks, gone).tasks.tolist() == gone.tasks.tolist()
    assert TaskWeights.checked(tasks, None).tasks.tolist() == [1] * 4
    assert gone[torch.tensor([1, 2])].tasks.tolist() == [0, 1]
    with pytest.raises(ValueError, match="all 4 tasks are removed"):
        ones.without_tasks([0, 1, 2, 3])
    with pytest.raises(ValueError, match="all 4 tasks are removed"):
        TaskWeights.of(tasks, validation=torch.zeros(4, 12, dtype=DOUBLE))
    with pytest.raises(ValueError, match="training holds -0.5"):
        TaskWeights.of(tasks, training=torch.full((4, 9), -0.5, dtype=DOUBLE))


@pytest.mark.parametrize("name", ["softmax", "softmax, dense", "head", "network", "outer proximity"])
def test_a_batch_of_tasks_keeps_within_its_numbers(name):
    """The inner inverses alone, of the smaller side where the outputs are linear, and one row of each product."""
    learner, tasks = problem(name)
    outputs = learner.require_tasks(tasks) and learner._outputs
    size = tasks_per_batch(learner.problem, tasks, outputs, closed_form=learner.has_closed_form)
    s, inputs = tasks.support_y.shape[1], tasks.support_x[0].numel() + tasks.query_x[0].numel()
    inner = min((s * outputs) ** 2, learner.p**2) if learner.problem.convex else learner.p**2
    assert 100 < size <= NUMBERS // (4 * inner + learner.p + 64 * inputs)


def test_without_matrices_a_batch_keeps_vectors():
    learner = Bilevel(mlp([2, 4, 2], "tanh", dtype=DOUBLE), strength=1.0, l2=0.1, inner_solver="cg")
    tasks = random_tasks(2, features=2, ways=2)
    inputs = tasks.support_x[0].numel() + tasks.query_x[0].numel()
    size = tasks_per_batch(learner.problem, tasks, 2, closed_form=False)
    assert 100 < size <= NUMBERS // (64 * learner.p + 256 * inputs)


@pytest.mark.parametrize(
    ("call", "least"),
    [
        (lambda l, t: l.inner_jacobian(l.lam0, t), lambda q, p, m: 2 * m * p * q),
        (lambda l, t: l.total_hessian(l.lam0, t), lambda q, p, m: 4 * q * q + 4 * m * p * (p + q)),
    ],
    ids=["Jacobian", "Hessian"],
)
def test_what_is_held_whole_has_to_fit(call, least, monkeypatch):
    learner, tasks = problem("head")
    size = 8 * least(learner.q, learner.p, len(tasks))
    call(learner, tasks)  # what the checks of a first call need is not asked here
    fits_to_the_byte(lambda: call(learner, tasks), size, monkeypatch, f"{learner.q}")


def test_a_strength_and_a_ridge_at_their_limits():
    assert Bilevel(logistic(3, 3, dtype=DOUBLE), strength=1e-9, l2=0.0).l2 == 0.0
    with pytest.raises(ValueError, match="l2"):
        Bilevel(logistic(3, 3, dtype=DOUBLE), strength=1.0, l2=-1e-9)
