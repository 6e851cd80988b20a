"""Meta-training and minimisation: it learns, resumes to the bit, and rests where the gradient vanishes."""

import sys

import pytest
import torch

from explainlib.meta import Maml, minimise, train
from explainlib.meta.minimise import _hessian as newton_hessian
from explainlib.models import fc_bn
from tests.interrupted import Interrupted
from tests.meta.few_shot import DOUBLE, linear_protonet, random_tasks, smooth_protonet, tanh_maml


def test_it_is_adam_on_the_mean_gradient():
    learner, tasks = tanh_maml(), random_tasks()
    w = learner.w0.clone().requires_grad_()
    adam = torch.optim.Adam([w], lr=0.01)
    for _ in range(5):
        w.grad = learner.gradients(w.detach(), tasks).mean(0) + 0.1 * w.detach()
        adam.step()
    found = train(learner, tasks, batches=5, lr=0.01, weight_decay=0.1)
    torch.testing.assert_close(found.w, w.detach(), rtol=1e-12, atol=1e-13)
    expected = (learner.gradients(found.w, tasks).mean(0) + 0.1 * found.w).norm()
    assert found.gradient_norm == pytest.approx(float(expected))
    assert len(found.history) == 5


def test_it_learns():
    tasks = random_tasks(64, features=6, spread=0.5)
    learner = Maml(fc_bn(6, 3, hidden=8, dtype=DOUBLE), inner_lr=0.4)
    trained = train(learner, tasks, batches=150, batch_size=16, lr=0.01)
    fresh = random_tasks(64, features=6, spread=0.5, seed=9)
    assert learner.accuracy(trained.w, fresh).mean() > learner.accuracy(learner.w0, fresh).mean() + 0.1


def test_an_interrupted_run_ends_with_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["explainlib.meta.train"], "SAVE_EVERY", 2)
    learner, tasks = tanh_maml(), random_tasks(12)
    options = {"batches": 9, "batch_size": 4, "seed": 3}
    whole = train(learner, tasks, **options)
    room = sys.modules["explainlib.meta.train"]
    gradient = Interrupted(room._mean_gradient, 6)
    monkeypatch.setattr(room, "_mean_gradient", gradient)
    with pytest.raises(KeyboardInterrupt):
        train(learner, tasks, store=tmp_path / "run", **options)
    resumed = train(learner, tasks, store=tmp_path / "run", **options)
    assert torch.equal(resumed.w, whole.w) and resumed.history == whole.history
    assert gradient.calls == 6 + 5, "it went on after the last saved batch"
    with pytest.raises(ValueError, match="another computation"):
        train(learner, tasks, store=tmp_path / "run", **{**options, "seed": 4})


def test_seeds_choose_the_batches():
    learner, tasks = tanh_maml(), random_tasks(12)
    one, two, again = (train(learner, tasks, batches=3, batch_size=4, seed=s).w for s in (0, 1, 0))
    assert torch.equal(one, again) and not torch.equal(one, two)
    assert torch.equal(train(learner, tasks, batches=3, batch_size=4).w, one), "seed 0 is the default"


@pytest.mark.parametrize(("make", "l2"), [(linear_protonet, 0.0), (tanh_maml, 0.05), (smooth_protonet, 0.01)])
def test_minimise_comes_to_rest(make, l2):
    learner, tasks = make(), random_tasks(8, spread=2.5, queries=8)
    found = minimise(learner, tasks, l2=l2)
    slope = learner.gradients(found.w, tasks).mean(0) + l2 * found.w
    assert found.status == "converged" and slope.norm() <= 1e-12
    assert found.history[-1] < found.history[0] + l2 / 2 * float(learner.w0 @ learner.w0)


def test_weights_of_tasks():
    learner, tasks = tanh_maml(), random_tasks(6, spread=2.5)
    weights = torch.tensor([2.0, 0.0, 1.0, 1.0, 1.0, 1.0], dtype=DOUBLE)
    found = minimise(learner, tasks, l2=0.05, weights=weights)
    slope = weights @ learner.gradients(found.w, tasks) / 6 + 0.05 * found.w
    assert slope.norm() <= 1e-12


@pytest.mark.parametrize("weights", [[1.0, 0, 1, 1], [0.5, 0.5, 0.5, 0.5], [1, 2, 0, 1], [-1.0, -1, -1, -1]])
def test_newtons_hessian_is_that_of_the_weighted_objective(weights):
    learner, tasks, l2 = tanh_maml(), random_tasks(4, spread=2.5), 0.05
    shares = torch.tensor(weights, dtype=DOUBLE) / 4
    found = newton_hessian(learner, learner.w0, tasks, shares, l2)
    for i in (0, learner.q - 1):
        step = 1e-5 * torch.eye(learner.q, dtype=DOUBLE)[i]
        slopes = [shares @ learner.gradients(learner.w0 + t * step, tasks) + l2 * t * step for t in (1, -1)]
        torch.testing.assert_close(found[i], (slopes[0] - slopes[1]) / 2e-5, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("one_by_one", [False, True])
def test_lbfgs_ends_where_newton_does(one_by_one, monkeypatch):
    learner, tasks = tanh_maml(), random_tasks(6, spread=2.5)
    weights = torch.tensor([2.0, 0.0, 1.0, 1.0, 1.0, 1.0], dtype=DOUBLE)
    want = minimise(learner, tasks, l2=0.05, weights=weights)
    monkeypatch.setattr(type(learner), "one_by_one", lambda self, tasks: one_by_one)
    options = {"start": want.w + 0.01, "method": "lbfgs", "tolerance": 1e-7}
    found = minimise(learner, tasks, l2=0.05, weights=weights, **options)
    slope = (weights @ learner.gradients(found.w, tasks) / 6 + 0.05 * found.w).norm()
    assert (
        found.status == "converged" and slope <= 1e-7 and found.gradient_norm == pytest.approx(float(slope), rel=1e-6)
    )
    assert (found.w - want.w).norm() < 1e-5 * want.w.norm()
    assert found.history[0] > found.history[-1]


def test_lbfgs_says_why_it_ended():
    learner, tasks = tanh_maml(), random_tasks(6, spread=2.5)
    with pytest.warns(UserWarning, match="max_steps.*allow more max_steps.*method='newton'"):
        assert minimise(learner, tasks, l2=0.05, method="lbfgs", max_steps=2).status == "max_steps"
    with pytest.raises(ValueError, match="all weights are zero"):
        minimise(learner, tasks, method="lbfgs", weights=torch.zeros(6, dtype=DOUBLE))
    with pytest.raises(ValueError, match="method.*'newton', 'lbfgs'"):
        minimise(learner, tasks, method="sgd")


def test_a_kink_is_told_not_hidden():
    learner = Maml(fc_bn(3, 3, hidden=4, dtype=DOUBLE), inner_lr=0.3)
    with pytest.warns(UserWarning, match=r"stalled|max_steps"):
        found = minimise(learner, random_tasks(6), max_steps=3)
    assert found.status in ("stalled", "max_steps")


@pytest.mark.parametrize("options", [{"batches": 0}, {"batches": 1, "lr": 0.0}, {"batches": 1, "weight_decay": -1.0}])
def test_bad_options(options):
    with pytest.raises(ValueError, match="has to be"):
        train(tanh_maml(), random_tasks(), **options)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_minimise_does_not_depend_on_the_objectives_unit(scale):
    """Flat directions (rotations of the embedding) are told by the largest eigenvalue, not by a number."""
    learner, tasks = linear_protonet(), random_tasks(8, spread=2.5, queries=8)
    want = minimise(learner, tasks)
    found = minimise(learner, tasks, weights=torch.full((8,), scale, dtype=DOUBLE), tolerance=1e-12 * scale)
    assert found.status == "converged"
    assert (learner.losses(found.w, tasks) - learner.losses(want.w, tasks)).abs().max() < 1e-9
    assert (found.w - want.w).norm() < 1e-5 * want.w.norm()  # nor does it wander along them
