"""S from a random subset of the tasks, beside S from all."""

import pytest
import torch

from explainlib.influence.bilevel.influence import BilevelInfluence
from explainlib.meta.bilevel import TaskWeights
from tests.influence.bilevel.test_influence import solved_case
from tests.meta.bilevel.problems import problem, solved
from tests.meta.few_shot import DOUBLE
from tests.problems import relative_error


@pytest.mark.parametrize("solver", ["dense", "cg"])
@pytest.mark.parametrize("hessian", ["exact", "gamma"])
def test_it_is_the_mean_curvature_of_the_subset(solver, hessian):
    learner, lam, tasks, _ = solved_case("softmax")
    found = BilevelInfluence(learner, lam, tasks, hessian=hessian, solver=solver, subsample=3, seed=1)
    chosen = torch.randperm(6, generator=torch.Generator().manual_seed(1))[:3].sort().values
    doubled = TaskWeights.of(tasks[chosen], weights=torch.full((3,), 2.0, dtype=DOUBLE))
    half = BilevelInfluence(learner, lam, tasks[chosen], hessian=hessian, weights=doubled)
    want = torch.linalg.solve(half._outer.system(hessian), found.gradients.T).T
    assert relative_error(found.tasks(), -want) < 1e-7


def test_its_error_is_that_of_the_whole_system():
    learner, lam, tasks, exact = solved_case("softmax")
    found = BilevelInfluence(learner, lam, tasks, subsample=3)
    whole = exact._outer.system("exact")
    residual = -found.tasks() @ whole - found.gradients
    assert found.subsample_error() == pytest.approx(float(residual.norm() / found.gradients.norm()), rel=1e-9)
    assert 1e-3 < found.subsample_error() < 1
    assert BilevelInfluence(learner, lam, tasks, subsample=6).subsample_error() < 1e-10
    assert exact.subsample_error() == 0


def test_weights_enter():
    learner, tasks = problem("softmax")
    given = TaskWeights.of(tasks, weights=torch.tensor([1.0, 0, 3, 1, 2, 1], dtype=DOUBLE))
    lam = solved(learner, tasks, weights=given.tasks)
    found = BilevelInfluence(learner, lam, tasks, weights=given, subsample=6)
    assert relative_error(found.tasks(), BilevelInfluence(learner, lam, tasks, weights=given).tasks()) < 1e-9


@pytest.mark.filterwarnings("ignore::explainlib.risk.NotAtMinimumWarning")
def test_bad_input():
    learner, lam, tasks, _ = solved_case("softmax")
    with pytest.raises(ValueError, match="subsample=7 is more than the 6 tasks"):
        BilevelInfluence(learner, lam, tasks, subsample=7)
    with pytest.raises(ValueError, match="subsample"):
        BilevelInfluence(learner, lam, tasks, subsample=0)
    with pytest.raises(ValueError, match="subsample=None"):
        BilevelInfluence(learner, lam, tasks, subsample=3).without_task(0, newton=True)
    none = TaskWeights.of(tasks, weights=torch.tensor([0, 0, 0, 0, 0, 1.0], dtype=DOUBLE))
    with pytest.raises(ValueError, match="weight 0; pass a larger subsample"):
        for seed in range(20):
            BilevelInfluence(learner, lam, tasks, weights=none, subsample=1, seed=seed)
