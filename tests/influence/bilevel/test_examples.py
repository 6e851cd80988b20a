"""Influence of single examples: on their own task at fixed lam, and of all of them on new tasks at once."""

import pytest
import torch

from explainlib.influence.bilevel.influence import BilevelInfluence
from explainlib.meta.bilevel.task_weights import TaskWeights
from tests.influence.bilevel.test_influence import EXAMPLE, TASK, solved_case
from tests.meta.bilevel.problems import PROBLEMS, problem, regression_tasks, slope, solved
from tests.meta.few_shot import DOUBLE, random_tasks
from tests.problems import relative_error


@pytest.fixture(scope="module", params=PROBLEMS)
def case(request):
    return solved_case(request.param)


def training(tasks, eps):
    """Return the weights with 1 + eps at one training example."""
    ones = torch.ones(tasks.support_y.shape[:2], dtype=DOUBLE)
    ones[TASK, EXAMPLE] += eps
    return TaskWeights.of(tasks, training=ones)


def test_inner_influence_is_the_derivative_of_the_inner_solution(case):
    learner, lam, tasks, influence = case
    want = slope(lambda eps: learner.inner_solution(lam, tasks, weights=training(tasks, eps))[TASK], 1e-2)
    assert relative_error(influence.inner_influence(TASK, EXAMPLE), want) < 1e-6


def test_inner_performance_is_the_derivative_of_the_tasks_own_loss(case):
    learner, lam, tasks, influence = case
    want = slope(lambda eps: learner.outer_losses(lam, tasks, weights=training(tasks, eps))[TASK], 1e-2)
    found = influence.inner_performance(TASK)
    assert found.shape == tasks.support_y[TASK].shape[:1]
    assert float(found[EXAMPLE]) == pytest.approx(float(want), rel=1e-6, abs=1e-10)


@pytest.mark.parametrize("part", ["training", "validation"])
def test_all_examples_on_new_tasks_are_the_single_ones(case, part):
    learner, lam, tasks, influence = case
    features = tasks.support_x.shape[-1]
    if tasks.regression:
        new = regression_tasks(2, features, shots=3, seed=9)
    else:
        new = random_tasks(2, features=features, ways=tasks.ways, seed=9)
    found = influence.example_performance(new, part=part)
    each = torch.stack([getattr(influence, f"{part}_examples")(k) for k in range(len(tasks))])  # [M, e, q]
    want = torch.einsum("meq,tq->tme", each, learner.total_gradients(lam, new))
    assert found.shape == (2, *each.shape[:2]) and relative_error(found, want) < 1e-9


def test_all_examples_in_batches_and_under_weights(monkeypatch):
    learner, tasks = problem("softmax")
    given = TaskWeights.of(tasks, weights=torch.arange(1, 7, dtype=DOUBLE))
    lam = solved(learner, tasks, weights=given.tasks)
    influence = BilevelInfluence(learner, lam, tasks, weights=given, strict=True)
    want = influence.example_performance(tasks)
    monkeypatch.setattr(type(learner), "_chunk", lambda self, tasks: 4)
    assert relative_error(influence.example_performance(tasks), want) < 1e-12
    single = influence.training_example(TASK, EXAMPLE) @ learner.total_gradients(lam, tasks[[3]])[0]
    assert float(want[3, TASK, EXAMPLE]) == pytest.approx(float(single), rel=1e-8)


@pytest.mark.parametrize("part", ["training", "validation"])
def test_removal_of_an_example_is_foretold_on_new_tasks(part):
    """Minus the influence is the change of a new task's loss, to first order in the example's weight."""
    learner, lam, tasks, influence = solved_case("softmax")
    new = random_tasks(1, features=4, shots=1, seed=9)

    def loss(eps):
        ones = torch.ones((tasks.support_y if part == "training" else tasks.query_y).shape, dtype=DOUBLE)
        ones[TASK, EXAMPLE] -= eps
        return learner.outer_losses(solved(learner, tasks, **{f"{part}_weights": ones}), new)[0]

    found = influence.example_performance(new, part=part)[0, TASK, EXAMPLE]
    assert float(-found) == pytest.approx(float(slope(loss, 1e-2)), rel=1e-5)


def test_bad_input():
    influence = solved_case("softmax")[3]
    with pytest.raises(ValueError, match="part='query' is unknown"):
        influence.example_performance(influence.tasks_given, part="query")
    with pytest.raises(ValueError, match="training examples of task 1; every task counts its own"):
        influence.inner_influence(1, 99)
