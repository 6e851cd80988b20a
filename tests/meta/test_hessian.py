"""The meta-Hessian and its Gauss-Newton part, against torch.func.hessian task by task."""

import sys

import pytest
import torch
from torch.func import hessian
from torch.nn.functional import cross_entropy

from explainlib.meta import Maml, meta_hessian
from explainlib.meta.learner import Episode
from explainlib.models import fc_bn
from tests.interrupted import Interrupted
from tests.meta.few_shot import DOUBLE, bn_maml, random_tasks, smooth_protonet, tanh_maml


def episode(tasks, k):
    return Episode(*(part[k] for part in tasks.arrays()))


def dense(learner, tasks):
    """The definition, one task at a time."""
    found = 0
    for k in range(len(tasks)):
        found = found + hessian(lambda w, k=k: learner.loss_one(w, episode(tasks, k), tasks.ways))(learner.w0)
    return found / len(tasks)


def relu_maml():
    return Maml(fc_bn(3, 3, hidden=4, dtype=DOUBLE), inner_lr=0.3)


@pytest.mark.parametrize("make", [tanh_maml, lambda: tanh_maml(3), smooth_protonet, bn_maml, relu_maml])
def test_every_learner_and_the_ridge(make):
    learner, tasks = make(), random_tasks(5)
    expected = dense(learner, tasks) + 0.1 * torch.eye(learner.q, dtype=DOUBLE)
    for route in ("general", "auto"):
        found = meta_hessian(learner, learner.w0, tasks, l2=0.1, route=route)
        assert (found - expected).abs().max() < 1e-12 * expected.abs().max(), route
        assert torch.equal(found, found.T)


def test_the_third_derivative_is_in_it():
    """Freezing the inner curvature gives another matrix: what makes the Hessian exact is not rounding."""
    learner, tasks = tanh_maml(inner_lr=1.0), random_tasks(4)

    def frozen(w, k):
        e = episode(tasks, k)
        at = learner.w0
        step = torch.func.grad(learner.support_loss)(at, e)
        curve = hessian(learner.support_loss)(at, e)
        return cross_entropy(learner.outputs_one(w - learner.inner_lr * (step + curve @ (w - at)), e, 3), e.query_y)

    without = torch.stack([hessian(lambda w, k=k: frozen(w, k))(learner.w0) for k in range(4)]).mean(0)
    exact = meta_hessian(learner, learner.w0, tasks)
    assert (without - exact).norm() > 0.02 * exact.norm()


def test_processes_change_nothing():
    learner, tasks = bn_maml(), random_tasks(5)
    once = meta_hessian(learner, learner.w0, tasks)
    torch.testing.assert_close(meta_hessian(learner, learner.w0, tasks, processes=2), once, rtol=1e-13, atol=1e-15)


def test_an_interrupted_hessian_goes_on(tmp_path, monkeypatch):
    learner, tasks = tanh_maml(), random_tasks(5)
    whole = meta_hessian(learner, learner.w0, tasks)
    monkeypatch.setattr("explainlib.meta.hessian.TASKS_PER_WRITE", 2)
    room = sys.modules["explainlib.meta.hessian"]
    distribute = Interrupted(room._distribute, 2)
    monkeypatch.setattr(room, "_distribute", distribute)
    with pytest.raises(KeyboardInterrupt):
        meta_hessian(learner, learner.w0, tasks, store=tmp_path / "h", route="general")
    before = distribute.calls
    resumed = meta_hessian(learner, learner.w0, tasks, store=tmp_path / "h", route="general")
    torch.testing.assert_close(resumed, whole, rtol=1e-13, atol=1e-15)
    assert distribute.calls - before == 2, "of three pieces one was there"
    with pytest.raises(ValueError, match="another computation"):
        meta_hessian(learner, learner.w0 + 1, tasks, store=tmp_path / "h")


def test_flat_directions_are_there_and_no_others():
    """What a proof says is flat is flat: the softmax shift, and biases in front of BatchNorm."""
    learner, tasks = bn_maml(hidden=4), random_tasks(8, spread=2.0)
    values = torch.linalg.eigvalsh(meta_hessian(learner, learner.w0, tasks))
    flat = (values.abs() < 1e-10 * values.abs().max()).sum()
    assert flat == 4 + 4 + 1  # biases before BatchNorm; the same shift of every class's weights, and of their biases


def test_what_has_no_hessian_is_refused():
    learner = Maml(tanh_maml().model_at(tanh_maml().w0), inner_lr=0.3, first_order=True)
    with pytest.raises(ValueError, match="not the gradient of any objective"):
        meta_hessian(learner, learner.w0, random_tasks())
    with pytest.raises(ValueError, match="two_layer"):
        meta_hessian(tanh_maml(2), tanh_maml().w0, random_tasks(), route="two_layer")
