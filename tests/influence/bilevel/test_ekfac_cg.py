"""EK-FAC as the preconditioner of exact inner solves."""

import pytest
import torch

from explainlib.influence.bilevel.curvature import EkfacInverse, preconditioned_inverse
from explainlib.influence.bilevel.influence import BilevelInfluence
from explainlib.meta.bilevel import Bilevel, CgInverse, TaskWeights
from explainlib.models import mlp
from tests.influence.bilevel.test_influence import solved_case
from tests.meta.few_shot import DOUBLE, random_tasks
from tests.problems import normal, relative_error


@pytest.mark.parametrize("name", ["network", "head"])
def test_the_result_is_exact(name):
    learner, lam, tasks, exact = solved_case(name)
    found = BilevelInfluence(learner, lam, tasks, inner_hessian="ekfac_cg", strict=True)
    assert relative_error(found.tasks(), exact.tasks()) < 1e-7
    assert relative_error(found.without_task(1, newton=True), exact.without_task(1, newton=True)) < 1e-7


def test_it_takes_fewer_steps():
    """Inputs of very different scales: the curvature is ill-conditioned, and EK-FAC knows most of that."""
    tasks = random_tasks(3, features=12, ways=3, shots=8)
    scale = torch.logspace(-1, 1, 12, dtype=DOUBLE)
    tasks = type(tasks)(tasks.support_x * scale, tasks.support_y, tasks.query_x * scale, tasks.query_y)
    learner = Bilevel(mlp([12, 6, 3], "tanh", dtype=DOUBLE), strength=1.0, l2=0.5, inner_solver="cg")
    theta = learner.inner_solution(learner.lam0, tasks)
    given = learner.problem, learner.lam0, theta, TaskWeights.of(tasks).batch(tasks, slice(None))
    rows = normal(3, 2, learner.p, seed=5)
    plain, faster = CgInverse(*given), preconditioned_inverse(*given)
    assert relative_error(faster.solve(rows), plain.solve(rows)) < 1e-8
    assert faster.steps < 0.75 * plain.steps
    assert relative_error(EkfacInverse(*given).solve(rows), plain.solve(rows)) > 1e-3, "alone it is an approximation"
