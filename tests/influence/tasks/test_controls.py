"""Scores without a Hessian, beside their definitions."""

import pytest
import torch

from explainlib.influence import cosine_scores, random_projector_scores
from tests.meta.few_shot import random_tasks, tanh_maml
from tests.problems import relative_error


@pytest.fixture(scope="module")
def problem():
    learner, tasks, tests = tanh_maml(), random_tasks(6), random_tasks(3, seed=7)
    return learner, (learner, learner.w0, tasks, tests)


def gradients(learner, *sets):
    return [learner.gradients(learner.w0, tasks) for tasks in sets]


def test_cosines_are_cosines(problem):
    learner, given = problem
    left, right = gradients(learner, given[3], given[2])
    want = -torch.nn.functional.cosine_similarity(left[:, None], right[None], dim=-1)
    assert relative_error(cosine_scores(*given), want) < 1e-12
    own = cosine_scores(learner, learner.w0, given[2], given[2]).diagonal()
    assert torch.allclose(own, -torch.ones_like(own))


def test_a_projector_of_full_rank_is_the_identity(problem):
    learner, given = problem
    left, right = gradients(learner, given[3], given[2])
    assert relative_error(random_projector_scores(*given, rank=learner.q), -left @ right.T) < 1e-12
    with pytest.raises(ValueError, match=f"rank={learner.q + 1} is more than the {learner.q} parameters"):
        random_projector_scores(*given, rank=learner.q + 1)
    for bad in ({"rank": 0}, {"rank": 2, "seed": -1}):
        with pytest.raises(ValueError, match="rank=0|seed=-1"):
            random_projector_scores(*given, **bad)


def test_a_projector_of_its_rank_and_seed(problem):
    """Of tasks on themselves: minus a semi-definite table of that rank, shorter than the plain products."""
    learner, (_, w, tasks, tests) = problem
    table = random_projector_scores(learner, w, tasks, tasks, rank=3)
    values = torch.linalg.eigvalsh(-table)
    assert (values[:-3].abs() < 1e-12 * values[-1]).all() and (values[-3:] > 1e-6 * values[-1]).all()
    (plain,) = gradients(learner, tasks)
    assert (-table.diagonal() < plain.square().sum(1)).all()
    one, same, other = (random_projector_scores(learner, w, tasks, tests, rank=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one, same) and relative_error(other, one) > 0.1
    assert torch.equal(one, random_projector_scores(learner, w, tasks, tests, rank=3))
