"""Bilevel problems: implicit derivatives against the inner problem solved again, and the outer solve."""

import warnings

import pytest
import torch
from torch import nn

from explainlib.datasets import Tasks
from explainlib.derivatives.batching import LoopWarning
from explainlib.meta.bilevel.batches import NUMBERS
from explainlib.meta.bilevel.inner import InnerError
from explainlib.meta.bilevel.learner import Bilevel
from explainlib.meta.bilevel.objective import Objective
from explainlib.meta.bilevel.solve import SolveError, solve
from explainlib.meta.bilevel.task_weights import TaskWeights
from explainlib.models import logistic, mlp
from tests.meta.bilevel.problems import L2, PROBLEMS, STRENGTH, jacobian, problem, solved
from tests.meta.few_shot import DOUBLE, random_tasks
from tests.problems import relative_error

PLAIN_LOSSES = {
    "cross_entropy": lambda outputs, y: nn.functional.cross_entropy(outputs, y, reduction="sum"),
    "squared_error": lambda outputs, y: nn.functional.mse_loss(outputs, y, reduction="sum"),
    "log_cosh": lambda outputs, y: torch.log(torch.cosh(outputs - y)).sum(),
}


@pytest.fixture(scope="module", params=PROBLEMS)
def case(request):
    learner, tasks = problem(request.param)
    return learner, tasks, 1.1 * learner.lam0


def test_the_inner_gradient_vanishes(case):
    """By plain autograd on the definition, one task at a time."""
    learner, tasks, lam = case
    for k, theta in enumerate(learner.inner_solution(lam, tasks)):
        theta = theta.clone().requires_grad_()
        outputs = learner.problem.outputs(lam, theta, tasks.support_x[k])
        centre = lam if learner.inner == "proximal" else 0
        g = PLAIN_LOSSES[learner.loss.name](outputs, tasks.support_y[k])
        g = g + learner.strength / 2 * (theta - centre).square().sum()
        assert torch.autograd.grad(g, theta)[0].norm() < 1e-11


def test_what_other_learners_call_adapted_is_the_inner_solution(case):
    learner, tasks, lam = case
    assert torch.equal(learner.adapted(lam, tasks), learner.inner_solution(lam, tasks))


def test_the_inner_jacobian_is_that_of_solving_again(case):
    learner, tasks, lam = case
    truth = jacobian(lambda at: learner.inner_solution(at, tasks), lam)
    assert relative_error(learner.inner_jacobian(lam, tasks), truth) < 1e-8


def test_the_total_gradient_is_that_of_solving_again(case):
    learner, tasks, lam = case
    truth = jacobian(lambda at: learner.outer_losses(at, tasks), lam)
    assert relative_error(learner.total_gradients(lam, tasks), truth) < 1e-8
    partial_lam, partial_theta = learner.partial_gradients(lam, tasks)
    assert (
        relative_error(partial_theta, truth) > 0.1
        if partial_theta.shape == truth.shape
        else partial_lam.abs().max() > 0.1
    )


def test_the_total_hessian_is_that_of_solving_again(case):
    learner, tasks, lam = case
    weights = TaskWeights.of(tasks, weights=torch.linspace(0.5, 1.5, len(tasks), dtype=DOUBLE))
    truth = jacobian(lambda at: weights.tasks @ learner.total_gradients(at, tasks), lam)
    exact = learner.total_hessian(lam, tasks, weights=weights)
    assert relative_error(exact, truth) < 1e-8
    dropped = learner.total_hessian(lam, tasks, weights=weights, third_order=False)
    if learner.loss.name == "squared_error" and learner.inner == "proximal":
        assert relative_error(dropped, truth) < 1e-8, "a quadratic has no third derivative"
        return
    assert relative_error(dropped, truth) > 0.03  # dtheta/dlam itself changes with lam, and visibly


@pytest.mark.parametrize("third_order", [True, False])
def test_products_are_the_matrix(case, third_order):
    learner, tasks, lam = case
    product = learner.hessian_operator(lam, tasks, third_order=third_order)
    matrix = learner.total_hessian(lam, tasks, third_order=third_order)
    rows = torch.randn(5, learner.q, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    assert relative_error(product(rows), rows @ matrix) < 1e-12


def test_examples_weights_are_those_of_the_definition():
    """A weight of 2 is the example twice; 0 is a task without it."""
    learner, tasks = problem("softmax, dense")
    lam = learner.lam0
    doubled = torch.ones(tasks.support_y.shape, dtype=DOUBLE)
    doubled[:, 0] = 2
    again = type(tasks)(
        torch.cat([tasks.support_x, tasks.support_x[:, :1]], 1), torch.cat([tasks.support_y, tasks.support_y[:, :1]], 1),
        *tasks.arrays()[2:],
    )  # fmt: skip
    got = learner.inner_solution(lam, tasks, weights=TaskWeights.of(tasks, training=doubled))
    assert relative_error(got, learner.inner_solution(lam, again)) < 1e-12


def test_batches_do_not_matter(monkeypatch):
    learner, tasks = problem("softmax")
    whole = learner.total_hessian(learner.lam0, tasks)
    monkeypatch.setattr(Bilevel, "_chunk", lambda self, tasks: 4)
    assert relative_error(learner.total_hessian(learner.lam0, tasks), whole) < 1e-14


def test_a_batch_of_tasks_keeps_within_its_numbers():
    """The rows of second derivatives alone, which are p of length p + q a task."""
    for features, hidden in ((3, 4), (40, 20)):
        model = mlp([features, hidden, 3], "tanh", dtype=DOUBLE)
        options = {"strength": STRENGTH, "l2": L2, "inner_solver": "dense"}
        learner, tasks = Bilevel(model, **options), random_tasks(2, features=features)
        learner.losses(learner.lam0, tasks)
        assert 1 <= learner._chunk(tasks) * 3 * learner.p * (learner.p + learner.q) <= NUMBERS


def test_a_thousand_tasks_in_one_batch():
    learner = Bilevel(logistic(4, 3, dtype=DOUBLE), strength=STRENGTH, l2=L2)
    tasks = random_tasks(1000, features=4, shots=1, queries=2)
    gradients = learner.total_gradients(learner.lam0, tasks)
    some = torch.tensor([0, 999])
    assert relative_error(gradients[some], learner.total_gradients(learner.lam0, tasks[some])) < 1e-12


@pytest.mark.parametrize("method", ["newton", "lbfgs"])
def test_solve_ends_at_a_stationary_point(method):
    learner, tasks = problem("head")
    trained = solve(learner, tasks, method=method, tolerance=1e-6)
    lam = trained.w
    gradient = learner.total_gradients(lam, tasks).sum(0) + L2 * lam
    assert trained.status == "converged" and gradient.norm() < 1e-6
    value = lambda at: learner.outer_losses(at, tasks).sum() + L2 / 2 * at @ at  # noqa: E731
    assert value(lam) < value(learner.lam0)


@pytest.mark.parametrize("method", ["newton", "lbfgs"])
def test_a_step_to_where_an_inner_problem_fails_is_only_refused(method, monkeypatch):
    learner, tasks = problem("head")
    calls, at = [], Objective.at

    def failing(self, lam):
        calls.append(lam)
        if len(calls) in (2, 3):
            raise InnerError("not here")
        return at(self, lam)

    monkeypatch.setattr(Objective, "at", failing)
    assert solve(learner, tasks, method=method, tolerance=1e-6).status == "converged" and len(calls) > 3


def test_a_removed_task_is_a_task_that_is_not_there():
    learner, tasks = problem("softmax, dense")
    gone = torch.ones(6, dtype=DOUBLE)
    gone[2] = 0
    assert relative_error(solved(learner, tasks, weights=gone), solved(learner, tasks[[0, 1, 3, 4, 5]])) < 1e-11


def test_it_learns_to_learn():
    """Tasks that share their classes are answered better after meta-learning; the protocol of other learners holds."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(3).repeat(3).expand(12, -1)
    centres = 1.5 * torch.randn(3, 4, generator=g, dtype=DOUBLE)
    x, z = (centres[y] + torch.randn(12, 9, 4, generator=g, dtype=DOUBLE) for _ in range(2))
    learner = Bilevel(logistic(4, 3, dtype=DOUBLE), strength=20.0, l2=L2)
    train, test = Tasks(x, y, z, y)[:8], Tasks(x, y, z, y)[8:]
    lam = solve(learner, train).w
    assert learner.accuracy(lam, test).mean() > learner.accuracy(learner.lam0, test).mean() + 0.05
    assert learner.losses(lam, test).mean() < 0.7 * learner.losses(learner.lam0, test).mean()
    assert torch.allclose(learner.losses(lam, test) * 9, learner.outer_losses(lam, test))
    assert learner.adapted(lam, test).shape == (4, learner.p)


def test_what_has_no_solution_is_refused():
    tasks = random_tasks(3)
    for strength in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="no unique solution"):
            Bilevel(logistic(3, 3, dtype=DOUBLE), strength=strength, l2=1.0)
    with pytest.raises(ValueError, match="nothing before it"):
        Bilevel(logistic(3, 3, dtype=DOUBLE), inner="head", strength=1.0, l2=1.0)
    with pytest.raises(ValueError, match="'unrolled'"):
        Bilevel(logistic(3, 3, dtype=DOUBLE), inner="unrolled", strength=1.0, l2=1.0)
    after = nn.Sequential(mlp([3, 2, 3], "tanh", dtype=DOUBLE), nn.Tanh())
    with pytest.raises(ValueError, match="put it last"):
        Bilevel(after, inner="head", strength=1.0, l2=1.0).outer_losses(torch.zeros(8, dtype=DOUBLE), tasks)
    learner = Bilevel(logistic(3, 3, dtype=DOUBLE), strength=1.0, l2=1.0)
    with pytest.raises(ValueError, match="all 3 tasks are removed"):
        solve(learner, tasks, weights=torch.zeros(3, dtype=DOUBLE))
    with pytest.raises(ValueError, match="zero .removed. or more"):
        solve(learner, tasks, weights=-torch.ones(3, dtype=DOUBLE))
    with pytest.raises(ValueError, match="meta-parameters"):
        learner.outer_losses(learner.lam0[1:], tasks)


def test_what_does_not_come_to_rest_says_so(monkeypatch):
    learner, tasks = problem("softmax, dense")
    with pytest.raises(SolveError, match="max_steps") as caught:
        solve(learner, tasks, max_steps=1, tolerance=1e-12)
    assert caught.value.trained.gradient_norm > 1e-12
    with pytest.warns(UserWarning, match="max_steps"):
        assert solve(learner, tasks, max_steps=1, tolerance=1e-12, on_failure="warn").status == "max_steps"
    monkeypatch.setattr("explainlib.meta.bilevel.inner.MAX_STEPS", 1)
    with pytest.raises(InnerError, match="Bilevel with a strength above 0.7"):
        learner.outer_losses(learner.lam0, tasks)


def test_tasks_are_mapped_and_not_looped_over(case):
    learner, tasks, lam = case
    with warnings.catch_warnings():
        warnings.simplefilter("error", LoopWarning)
        learner.total_hessian(lam, tasks)
        learner.hessian_operator(lam, tasks)(lam[None])
        learner.losses(lam, tasks)
        next(iter(learner.inner_states(lam, tasks)))[1].training_derivatives()
