"""Our MAML against learn2learn's: clone, adapt, query loss, and autograd through all of it, one task at a time."""

from __future__ import annotations

import copy
import importlib.util

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from explainlib.datasets import class_pool, from_learn2learn, to_learn2learn
from explainlib.datasets.tasks.learn2learn import import_learn2learn
from explainlib.meta import Maml, meta_hessian
from explainlib.models import cnn4, fc_bn, mlp
from tests.meta.few_shot import DOUBLE, random_tasks
from tests.problems import relative_error

pytestmark = pytest.mark.skipif(importlib.util.find_spec("learn2learn") is None, reason="learn2learn is not installed")


def tanh_net():
    return mlp([3, 4, 3], "tanh", dtype=DOUBLE)


def bn_net():
    return fc_bn(3, 3, hidden=4, activation=nn.Tanh, dtype=DOUBLE)


def task_loss(learner, w, support, query):
    """Return (learn2learn's query loss after adaptation, the parameters it is a function of).

    A fresh module each time: ``clone`` shares BatchNorm's running statistics with the original. In training mode, so
    that BatchNorm normalises by the batch.
    """
    module = copy.deepcopy(learner.given).train()
    vector_to_parameters(w.clone(), module.parameters())
    maml = import_learn2learn().algorithms.MAML(module, lr=learner.inner_lr, first_order=learner.first_order)
    adapted = maml.clone()
    for _ in range(learner.steps):
        adapted.adapt(cross_entropy(adapted(support[0]), support[1]))
    return cross_entropy(adapted(query[0]), query[1]), list(maml.parameters())


def halves(tasks, k):
    return (tasks.support_x[k], tasks.support_y[k]), (tasks.query_x[k], tasks.query_y[k])


def their_losses(learner, w, tasks):
    return torch.stack([task_loss(learner, w, *halves(tasks, k))[0].detach() for k in range(len(tasks))])


def their_gradients(learner, w, tasks):
    found = [torch.autograd.grad(*task_loss(learner, w, *halves(tasks, k))) for k in range(len(tasks))]
    return torch.stack([parameters_to_vector(parts) for parts in found])


def their_hessian(learner, w, tasks):
    """Return the mean Hessian: each entry of the gradient through the adaptation, differentiated once more."""
    total = torch.zeros(len(w), len(w), dtype=w.dtype)
    for k in range(len(tasks)):
        loss, start = task_loss(learner, w, *halves(tasks, k))
        gradient = parameters_to_vector(torch.autograd.grad(loss, start, create_graph=True))
        rows = [torch.autograd.grad(entry, start, retain_graph=True, materialize_grads=True) for entry in gradient]
        total += torch.stack([parameters_to_vector(row) for row in rows])
    return total / len(tasks)


def differences(learner, w, tasks, step=1e-3):
    """Return the same Hessian from values of learn2learn's gradient alone; Richardson, so the error is O(step^4)."""

    def central(h):
        moves = torch.eye(len(w), dtype=w.dtype) * h
        slopes = [
            (their_gradients(learner, w + e, tasks) - their_gradients(learner, w - e, tasks)).mean(0) for e in moves
        ]
        return torch.stack(slopes) / (2 * h)

    return (4 * central(step / 2) - central(step)) / 3


@pytest.mark.parametrize("net", [tanh_net, bn_net])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("first_order", [False, True])
def test_losses_and_gradients(net, steps, first_order):
    learner, tasks = Maml(net(), inner_lr=0.3, steps=steps, first_order=first_order), random_tasks()
    w = learner.w0 + 0.1
    assert relative_error(learner.losses(w, tasks), their_losses(learner, w, tasks)) < 1e-12
    assert relative_error(learner.gradients(w, tasks), their_gradients(learner, w, tasks)) < 1e-12


@pytest.mark.parametrize("steps", [1, 3])
def test_hessians(steps):
    learner, tasks = Maml(tanh_net(), inner_lr=0.3, steps=steps), random_tasks(3)
    for route in ("general", "auto"):
        ours = meta_hessian(learner, learner.w0, tasks, route=route)
        assert relative_error(ours, their_hessian(learner, learner.w0, tasks)) < 1e-12


def test_through_fused_batch_norm_their_hessian_is_not_the_derivative_of_their_own_gradient():
    """The values and gradients of torch's fused layer are right; its third derivative is not, so neither is this."""
    learner, tasks = Maml(bn_net(), inner_lr=0.3), random_tasks(2)
    truth = differences(learner, learner.w0, tasks)
    for route in ("general", "two_layer"):
        assert relative_error(meta_hessian(learner, learner.w0, tasks, route=route), truth) < 1e-6
    changed = f"torch {torch.__version__} changed the third derivative of fused batch norm (see explainlib/derivatives/norms.py): "
    try:
        fused = their_hessian(learner, learner.w0, tasks)
    except RuntimeError as error:
        pytest.fail(f"{changed}it now refuses, {error}")
    wrong = relative_error(fused, truth)
    assert wrong > 0.01, f"{changed}it is off by {wrong:.0e}; where it is right, ours should agree to 1e-12"


@pytest.mark.parametrize(
    "make", [lambda: cnn4(1, 28, 3, filters=4), lambda: fc_bn(28 * 28, 3), lambda: mlp([28 * 28, 8, 3], "relu")]
)
def test_a_taskset_goes_round(make):
    """learn2learn's Taskset, its own partition and its own MAML, against the same tasks brought over; float32."""
    flat = class_pool("glyphs").where(lambda name, parent: parent == "Greek")
    pool = flat if isinstance(make()[0], nn.Conv2d) else flat.map(lambda x: x.flatten(1))
    data = import_learn2learn().data
    taskset = to_learn2learn(pool, ways=3, shots=2, queries=4, n_tasks=5)
    tasks = from_learn2learn(taskset, 5, shots=2, pool=pool)
    learner = Maml(make(), inner_lr=0.1, steps=2)
    split = [data.partition_task(*taskset[k], shots=2) for k in range(5)]
    theirs = torch.stack([task_loss(learner, learner.w0, *parts)[0].detach() for parts in split])
    ours = learner.losses(learner.w0, tasks)
    assert ours.dtype == theirs.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert len(theirs.unique()) == 5, "five different tasks"
