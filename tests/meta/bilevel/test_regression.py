"""Regression and losses of one's own through ``Bilevel``, and who refuses targets."""

import pytest
import torch

from explainlib.datasets import Tasks, flip_task_labels, noise_tasks
from explainlib.influence.bilevel import BilevelInfluence
from explainlib.meta import Maml, ProtoNet
from explainlib.meta.bilevel import Bilevel
from explainlib.models import logistic, mlp
from tests.meta.bilevel.problems import L2, STRENGTH, jacobian, linear, problem, regression_tasks, solved
from tests.meta.few_shot import DOUBLE, random_tasks
from tests.problems import relative_error


def test_ridge_regression_has_its_normal_equations():
    """min |x theta - y|^2 + strength/2 |theta - lam|^2 by hand, on one task at a time."""
    learner, tasks = problem("regression")
    lam = 1.3 * learner.lam0
    names = list(learner.problem.parameters.named(lam))
    for k, theta in enumerate(learner.inner_solution(lam, tasks)):
        x = torch.cat([tasks.support_x[k], torch.ones(len(tasks.support_x[k]), 1, dtype=DOUBLE)], 1)
        parts = learner.problem.parameters.named(lam)
        start = torch.cat([parts[names[0]], parts[names[1]][:, None]], 1)
        left = 2 * x.T @ x + STRENGTH * torch.eye(x.shape[1], dtype=DOUBLE)
        want = torch.linalg.solve(left, 2 * x.T @ tasks.support_y[k] + STRENGTH * start.T).T
        found = learner.problem.parameters.named(theta)
        assert relative_error(torch.cat([found[names[0]], found[names[1]][:, None]], 1), want) < 1e-12


def test_losses_are_means_and_accuracy_is_refused():
    learner, tasks = problem("regression, head")
    outputs = learner.outputs(learner.lam0, tasks)
    want = (outputs - tasks.query_y).square().sum(-1).mean(1)
    assert relative_error(learner.losses(learner.lam0, tasks), want) < 1e-12
    with pytest.raises(TypeError, match="regression targets and no classes"):
        learner.accuracy(learner.lam0, tasks)


def test_a_callable_equal_to_a_named_loss_gives_the_same():
    """Squared error as a callable takes the general routes, which need no closed form."""
    tasks = regression_tasks(4, 3, shots=5)
    for inner, model in (("proximal", linear(3, 2)), ("head", mlp([3, 2, 2], "tanh", dtype=DOUBLE))):
        options = {"inner": inner, "strength": 1.5, "l2": L2}
        named = Bilevel(model, loss="squared_error", **options)
        general = Bilevel(model, loss=lambda f, y: (f - y).square().sum(-1), **options)
        lam = solved(named, tasks)
        assert relative_error(general.total_hessian(lam, tasks), named.total_hessian(lam, tasks)) < 1e-9
        found, want = (BilevelInfluence(learner, lam, tasks) for learner in (general, named))
        assert relative_error(found.tasks(), want.tasks()) < 1e-8
        assert relative_error(found.training_example(1, 0), want.training_example(1, 0)) < 1e-8


def test_ekfac_is_exact_for_a_linear_regression_in_one_output():
    """G = 2 sum x x^T is one Kronecker product then, and EK-FAC the Hessian itself."""
    tasks = regression_tasks(3, 4, shots=6)
    tasks = Tasks(tasks.support_x, tasks.support_y[..., :1], tasks.query_x, tasks.query_y[..., :1])
    learner = Bilevel(linear(4, 1), strength=STRENGTH, l2=L2, loss="squared_error")
    lam = solved(learner, tasks)
    exact, found = (BilevelInfluence(learner, lam, tasks, inner_hessian=kind) for kind in ("exact", "ekfac"))
    assert relative_error(found.gradients, exact.gradients) < 1e-8
    assert relative_error(found.tasks(), exact.tasks()) < 1e-8


def test_direct_influence_with_the_proximity_in_the_outer_loss():
    """Appendix B.8: partial_lam f_k = strength (lam - theta_k), and the direct Hessian is M strength I."""
    learner, tasks = problem("outer proximity")
    lam = solved(learner, tasks)
    found = BilevelInfluence(learner, lam, tasks, strict=True)
    theta = learner.inner_solution(lam, tasks)
    want = -STRENGTH * (lam - theta) / (L2 + len(tasks) * STRENGTH)
    assert relative_error(found.direct_tasks(), want) < 1e-10
    assert relative_error(found.tasks(), found.direct_tasks()) > 0.1, "it leaves out what goes through theta"
    gamma = BilevelInfluence(learner, lam, tasks, hessian="gamma")
    cg = BilevelInfluence(learner, lam, tasks, hessian="gamma", solver="cg", tolerance=1e-10)
    assert relative_error(cg.tasks(), gamma.tasks()) < 1e-7
    without = Bilevel(logistic(2, 3, dtype=DOUBLE), strength=STRENGTH, l2=L2)
    assert learner.options() != without.options()
    plain, proximity = (each.outer_losses(lam, tasks) for each in (without, learner))
    assert relative_error(proximity - plain, STRENGTH / 2 * (theta - lam).square().sum(1)) < 1e-10


@pytest.mark.parametrize("loss", ["cross_entropy", "squared_error"])
def test_a_head_with_its_ridge_in_the_outer_loss(loss):
    """The same derivatives against solving again: for a head the proximity is a ridge, and lam is not in it."""
    tasks = random_tasks(4) if loss == "cross_entropy" else regression_tasks(4, 3, shots=4)
    model = mlp([3, 2, 3 if loss == "cross_entropy" else 2], "tanh", dtype=DOUBLE)
    learner = Bilevel(model, inner="head", strength=1.5, l2=L2, loss=loss, outer_proximity=True)
    lam = 1.1 * learner.lam0
    gradients = learner.total_gradients(lam, tasks)
    assert relative_error(gradients, jacobian(lambda at: learner.outer_losses(at, tasks), lam)) < 1e-8
    hessian = jacobian(lambda at: learner.total_gradients(at, tasks).sum(0), lam)
    assert relative_error(learner.total_hessian(lam, tasks), hessian) < 1e-8


def test_targets_are_refused_by_learners_of_classes():
    tasks = regression_tasks(4, 4, shots=3)
    model = logistic(4, 2, dtype=DOUBLE)
    learners = (Maml(model, inner_lr=0.1), ProtoNet(model), Bilevel(model, strength=1.0, l2=1.0))
    for learner in learners:
        with pytest.raises(TypeError, match=r"only xl.meta.Bilevel\(..., loss='squared_error'\)"):
            learner.losses(learner.w0, tasks)
    for change in (
        lambda: flip_task_labels(tasks, tasks_fraction=0.5, labels_fraction=0.5, seed=0),
        lambda: noise_tasks(Tasks(*pictures()), 2, seed=0),
        lambda: Tasks.side_by_side([tasks, tasks]),
    ):
        with pytest.raises(TypeError, match="no classes"):
            change()


def pictures():
    x, y = torch.rand(2, 3, 1, 4, 4), torch.rand(2, 3, 2)
    return x, y, x, y


def test_labels_are_refused_by_a_regression():
    tasks = random_tasks(3, features=4)
    with pytest.raises(TypeError, match=r"tasks.support_y has dtype torch.int64; squared_error"):
        Bilevel(linear(4, 3), strength=1.0, l2=1.0, loss="squared_error").losses(torch.zeros(15, dtype=DOUBLE), tasks)


def test_tasks_of_targets():
    tasks = regression_tasks(4, 3, shots=2)
    assert tasks.regression and "2 targets" in repr(tasks) and len(tasks[[0, 2]]) == 2
    single = tasks.to(torch.float32)
    assert single.support_y.dtype == single.query_x.dtype == torch.float32
    assert torch.equal(Tasks.concat([tasks, tasks]).query_y[:4], tasks.query_y)
    parts = list(tasks.arrays())
    with pytest.raises(ValueError, match=r"expected \[M, n, ...\] and \[M, n, C\]"):
        Tasks(parts[0], parts[1][..., 0], *parts[2:])
    with pytest.raises(ValueError, match="labels for both parts, or targets of the same size"):
        Tasks(*parts[:3], parts[3][..., :1])
    with pytest.raises(ValueError, match="query_y"):
        Tasks(*parts[:3], parts[3] / 0)
    with pytest.raises(TypeError, match="targets of x's dtype"):
        Tasks(parts[0], parts[1].float(), *parts[2:])
