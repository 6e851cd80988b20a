"""Learners against plain autograd written out by hand."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from explainlib.datasets import Tasks
from explainlib.meta import Maml, ProtoNet
from explainlib.models import cnn4, fc_bn
from tests.meta.few_shot import DOUBLE, bn_maml, random_tasks, smooth_protonet, tanh_maml


def by_hand(model, tasks, k, inner_lr, steps):
    """One task of MAML in the words of a textbook: autograd, a loop, nothing shared with the library."""
    names = [n for n, _ in model.named_parameters()]
    start = [p.detach().clone().requires_grad_() for _, p in model.named_parameters()]
    current = start
    run = lambda ps, x: torch.func.functional_call(model, dict(zip(names, ps, strict=True)), (x,))  # noqa: E731
    for _ in range(steps):
        inner = cross_entropy(run(current, tasks.support_x[k]), tasks.support_y[k])
        slopes = torch.autograd.grad(inner, current, create_graph=True)
        current = [p - inner_lr * g for p, g in zip(current, slopes, strict=True)]
    loss = cross_entropy(run(current, tasks.query_x[k]), tasks.query_y[k])
    flat = lambda parts: torch.cat([p.reshape(-1) for p in parts])  # noqa: E731
    return loss.detach(), flat(current).detach(), flat(torch.autograd.grad(loss, start))


@pytest.mark.parametrize("steps", [1, 3])
def test_maml_is_the_textbook_loop(steps):
    learner, tasks = tanh_maml(steps), random_tasks()
    losses, adapted, gradients = (f(learner.w0, tasks) for f in (learner.losses, learner.adapted, learner.gradients))
    for k in range(len(tasks)):
        loss, theta, slope = by_hand(copy.deepcopy(learner.parameters.module).requires_grad_(), tasks, k, 0.3, steps)
        torch.testing.assert_close(losses[k], loss, rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(adapted[k], theta, rtol=1e-13, atol=1e-14)
        torch.testing.assert_close(gradients[k], slope, rtol=1e-11, atol=1e-13)


def test_first_order_stops_at_the_adapted_parameters():
    tasks = random_tasks()
    exact, first = tanh_maml(), Maml(tanh_maml().model_at(tanh_maml().w0), inner_lr=0.3, first_order=True)
    theta = exact.adapted(exact.w0, tasks)
    still = Maml(exact.model_at(exact.w0), inner_lr=1e-300)  # no adaptation: its gradient is the plain one
    plain = torch.stack([still.gradients(theta[k], tasks[k])[0] for k in range(len(tasks))])
    torch.testing.assert_close(first.gradients(first.w0, tasks), plain, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(first.losses(first.w0, tasks), exact.losses(exact.w0, tasks))
    assert not torch.allclose(first.gradients(first.w0, tasks), exact.gradients(exact.w0, tasks), rtol=1e-3)


def test_protonet_takes_the_nearest_centroid_and_gradients_go_through_it():
    learner, tasks = smooth_protonet(), random_tasks()
    embed = learner.model_at(learner.w0).requires_grad_()
    for k in range(len(tasks)):
        support, query = embed(tasks.support_x[k]), embed(tasks.query_x[k])
        centroids = torch.stack([support[tasks.support_y[k] == c].mean(0) for c in range(3)])
        logits = -((query[:, None] - centroids) ** 2).sum(-1)
        torch.testing.assert_close(learner.outputs(learner.w0, tasks)[k], logits.detach())
        slopes = torch.autograd.grad(cross_entropy(logits, tasks.query_y[k]), list(embed.parameters()))
        whole = torch.cat([s.reshape(-1) for s in slopes])
        torch.testing.assert_close(learner.gradients(learner.w0, tasks)[k], whole, rtol=1e-11, atol=1e-13)
    assert learner.adapted(learner.w0, tasks).shape == (6, learner.q)


def test_the_printed_sign_of_the_distances_fails():
    """With plus the distances, as printed, the farthest class wins."""
    learner, tasks = smooth_protonet(), random_tasks(40, spread=0.1)
    right = learner.accuracy(learner.w0, tasks).mean()
    printed = ((-learner.outputs(learner.w0, tasks)).argmax(-1) == tasks.query_y).double().mean()
    assert right > 0.85 and printed < 0.1


def test_batch_statistics_never_leak():
    """Neither between tasks nor into the caller's model, in whatever mode that is."""
    model = fc_bn(3, 3, hidden=4, dtype=DOUBLE).eval()
    model(torch.ones(2, 3, dtype=DOUBLE))
    before = copy.deepcopy(model.state_dict())
    learner, tasks = Maml(model, inner_lr=0.2), random_tasks()
    together = learner.losses(learner.w0, tasks)
    alone = torch.cat([learner.losses(learner.w0, tasks[k]) for k in range(len(tasks))])
    torch.testing.assert_close(together, alone, rtol=1e-13, atol=1e-14)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items()) and not model.training
    torch.testing.assert_close(learner.losses(learner.w0, tasks), together)  # and nothing is remembered


def test_batch_norm_uses_the_query_statistics_for_the_query():
    learner, tasks = bn_maml(), random_tasks()
    shifted = Tasks(tasks.support_x, tasks.support_y, tasks.query_x + 5.0, tasks.query_y)
    torch.testing.assert_close(learner.losses(learner.w0, tasks), learner.losses(learner.w0, shifted))


def test_images_and_chunks(monkeypatch):
    g = torch.Generator().manual_seed(0)
    y = torch.arange(2).repeat_interleave(2).expand(3, -1)
    tasks = Tasks(torch.rand(3, 4, 1, 16, 16, generator=g), y, torch.rand(3, 4, 1, 16, 16, generator=g), y)
    learner = Maml(cnn4(1, 16, 2, filters=3, dtype=torch.float32), inner_lr=0.1)
    whole = learner.gradients(learner.w0, tasks)
    monkeypatch.setattr(type(learner), "chunk", lambda self, tasks: 2)
    torch.testing.assert_close(learner.gradients(learner.w0, tasks), whole, rtol=1e-4, atol=5e-6)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda learner, tasks: learner.losses(learner.w0[:-1], tasks), "this learner's parameters"),
        (lambda learner, tasks: learner.losses(learner.w0.float(), tasks), "float"),
        (lambda learner, tasks: learner.losses(learner.w0, tasks.to(torch.float32)), "float"),
        (lambda learner, tasks: learner.losses(learner.w0, random_tasks(ways=4)), "one for each way"),
        (lambda learner, tasks: learner.losses(learner.w0, random_tasks(features=5)), "cannot read"),
        (lambda learner, tasks: learner.losses(learner.w0 * float("nan"), tasks), "NaN"),
        (lambda learner, tasks: Maml(nn.Linear(3, 3), inner_lr=0.0), "inner_lr"),
        (lambda learner, tasks: Maml(nn.Linear(3, 3), inner_lr=0.1, steps=0), "steps"),
    ],
)
def test_bad_input_says_what_to_do(break_it, message):
    with pytest.raises((ValueError, TypeError), match=message):
        break_it(tanh_maml(), random_tasks())


def test_a_diverging_inner_step_is_named():
    tasks = random_tasks()
    learner = Maml(nn.Linear(3, 3, dtype=DOUBLE), inner_lr=1e308, steps=3)
    with pytest.raises(ValueError, match="inner step diverged; build the Maml with a lower inner_lr"):
        learner.losses(learner.w0, tasks)


def test_protonet_wants_one_row_an_example():
    embedding = nn.Sequential(nn.Linear(3, 4, dtype=DOUBLE), nn.Unflatten(1, (2, 2)))
    learner = ProtoNet(embedding)
    with pytest.raises(ValueError, match=r"expected \[n, C\]"):
        learner.losses(learner.w0, random_tasks())
