"""Derivatives at the inner solutions that influence is made of, against the inner problem solved again."""

import pytest
import torch

from explainlib.meta.bilevel.task_weights import TaskWeights
from tests.meta.bilevel.problems import PROBLEMS, problem, slope
from tests.meta.few_shot import DOUBLE
from tests.problems import relative_error

EXAMPLE = 1


@pytest.fixture(scope="module", params=PROBLEMS)
def case(request):
    learner, tasks = problem(request.param)
    return learner, tasks, 1.1 * learner.lam0


def training_weights(tasks, eps):
    """Return the weights with 1 + eps for one training example of every task."""
    b = torch.ones(tasks.support_x.shape[:2], dtype=DOUBLE)
    b[:, EXAMPLE] += eps
    return TaskWeights.of(tasks, training=b)


def joined(learner, lam, tasks, derivative):
    return torch.cat([derivative(state) for _, state in learner.inner_states(lam, tasks)])


def test_a_training_example_s_weight_moves_the_inner_solution(case):
    learner, tasks, lam = case
    truth = slope(lambda eps: learner.inner_solution(lam, tasks, weights=training_weights(tasks, eps)), 4e-3)
    made = joined(learner, lam, tasks, lambda state: state.inner_influences())
    assert relative_error(made[:, EXAMPLE], truth) < 1e-8


def test_and_with_it_the_total_gradient(case):
    learner, tasks, lam = case
    truth = slope(lambda eps: learner.total_gradients(lam, tasks, weights=training_weights(tasks, eps)), 4e-3)
    made = joined(learner, lam, tasks, lambda state: state.training_derivatives())
    assert relative_error(made[:, EXAMPLE], truth) < 1e-7


def test_validation_examples_gradients_sum_to_the_total_gradient_of_the_losses(case):
    learner, tasks, lam = case
    if learner.problem.outer_proximity:
        return  # the proximity belongs to no example
    made = joined(learner, lam, tasks, lambda state: state.validation_gradients())
    assert relative_error(made.sum(1), learner.total_gradients(lam, tasks)) < 1e-12
