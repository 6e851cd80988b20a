"""The paper's Gamma against its definition, written out with second derivatives of the outer objective."""

import pytest
import torch
from torch.func import hessian

from explainlib.influence.bilevel.influence import BilevelInfluence
from explainlib.meta.bilevel.task_weights import TaskWeights
from tests.meta.bilevel.problems import L2, PROBLEMS, problem, solved
from tests.meta.few_shot import DOUBLE
from tests.problems import relative_error


def defined(learner, lam, tasks):
    """Return l2 I + sum_i (|partial_theta f_i|_1 I + partial_lam^2 f_i + C_i + C_i^T), C_i = f_lam,theta J_i."""
    total = L2 * torch.eye(learner.q, dtype=DOUBLE)
    solutions, jacobians = learner.inner_solution(lam, tasks), learner.inner_jacobian(lam, tasks)
    batch = TaskWeights.of(tasks).batch(tasks, slice(None))
    for k, (theta, jacobian) in enumerate(zip(solutions, jacobians, strict=True)):
        one = type(batch)(*(part[k] for part in batch))
        both = hessian(lambda a, b, one=one: learner.problem.outer(a, b, one), argnums=(0, 1))(lam, theta)
        slope = torch.func.grad(lambda b, one=one: learner.problem.outer(lam, b, one))(theta)
        cross = both[0][1] @ jacobian
        total += slope.abs().sum() * torch.eye(learner.q, dtype=DOUBLE) + both[0][0] + cross + cross.T
    return total


@pytest.mark.parametrize("solver", ["dense", "cg"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_gamma_is_its_definition(name, solver):
    learner, tasks = problem(name)
    lam = solved(learner, tasks)
    influence = BilevelInfluence(learner, lam, tasks, hessian="gamma", solver=solver)
    left = influence.tasks() @ defined(learner, lam, tasks)
    assert relative_error(left, -learner.total_gradients(lam, tasks)) < (1e-10 if solver == "dense" else 1e-6)
