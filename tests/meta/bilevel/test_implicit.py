"""MAML read as a bilevel learner."""

import pytest
import torch

from explainlib.influence.bilevel import BilevelInfluence
from explainlib.meta import Maml, ProtoNet, adaptation_gap, implicit_maml, solve
from explainlib.models import logistic, mlp
from explainlib.risk import NotAtMinimumWarning
from tests.meta.few_shot import DOUBLE, random_tasks
from tests.problems import relative_error


def maml(inner_lr, steps=1):
    return Maml(logistic(4, 3, dtype=DOUBLE), inner_lr=inner_lr, steps=steps)


@pytest.mark.parametrize("steps", [1, 3])
def test_small_steps_adapt_alike(steps):
    """theta - w = -1/strength sum grad l + O(rate^2): a tenth of the rate brings a tenth of the gap."""
    tasks = random_tasks(5, features=4)
    gaps = []
    for rate in (0.01, 0.001):
        learner = maml(rate, steps)
        bilevel = implicit_maml(learner, tasks, weight_decay=0.1)
        assert bilevel.strength == pytest.approx(tasks.support_y.shape[1] / (steps * rate))
        gaps.append(adaptation_gap(learner, bilevel, 2 * learner.w0 + 0.1, tasks))
    assert (gaps[0] < 0.05).all() and (gaps[1] < 0.2 * gaps[0]).all()
    wrong = implicit_maml(learner, tasks, weight_decay=0.1, strength=1.0)
    assert (adaptation_gap(learner, wrong, learner.w0, tasks) > 10 * gaps[0]).all()


def test_the_gradients_are_those_of_maml_for_small_steps():
    """D f_i / r is MAML's gradient up to the rate, and l2 / (M r) its weight decay."""
    tasks, learner = random_tasks(5, features=4), maml(1e-4)
    bilevel = implicit_maml(learner, tasks, weight_decay=0.1)
    w, r = 2 * learner.w0 + 0.1, tasks.query_y.shape[1]
    assert relative_error(bilevel.total_gradients(w, tasks) / r, learner.gradients(w, tasks)) < 1e-3
    assert bilevel.l2 == pytest.approx(0.1 * len(tasks) * r)


def test_the_step_to_rest_is_told_in_influences_of_a_task():
    tasks, learner = random_tasks(6, features=4), maml(0.1)
    bilevel = implicit_maml(learner, tasks, weight_decay=0.05)
    rest = solve(bilevel, tasks, tolerance=1e-10).w
    assert BilevelInfluence(bilevel, rest, tasks, strict=True).step_to_rest() < 1e-8
    with pytest.warns(NotAtMinimumWarning):
        away = BilevelInfluence(bilevel, 0.9 * rest, tasks)
    system = bilevel.total_hessian(0.9 * rest, tasks) + bilevel.l2 * torch.eye(bilevel.q, dtype=DOUBLE)
    gradient = bilevel.total_gradients(0.9 * rest, tasks).sum(0) + bilevel.l2 * 0.9 * rest
    want = torch.linalg.solve(system, gradient).norm() / away.tasks().norm(dim=1).median()
    assert away.step_to_rest() == pytest.approx(float(want))


def test_only_what_maml_learns_is_learned():
    model = mlp([4, 3, 3], "tanh", dtype=DOUBLE)
    learner = Maml(model, inner_lr=0.1, parameters="last")
    bilevel = implicit_maml(learner, random_tasks(3, features=4), weight_decay=0.1)
    assert bilevel.q == learner.q < sum(p.numel() for p in model.parameters())


def test_what_is_no_maml_is_refused():
    tasks = random_tasks(3, features=4)
    with pytest.raises(TypeError, match="pass an xl.meta.Maml"):
        implicit_maml(ProtoNet(logistic(4, 3, dtype=DOUBLE)), tasks, weight_decay=0.1)
    with pytest.raises(ValueError, match="weight_decay"):
        implicit_maml(maml(0.1), tasks, weight_decay=-1.0)
    with pytest.raises(ValueError, match="strength"):
        implicit_maml(maml(0.1), tasks, weight_decay=0.1, strength=0.0)
