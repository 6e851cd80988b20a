"""Rows: influence of tasks on meta-learners and on bilevel learners."""

from __future__ import annotations

import tempfile

import explainlib as xl
from explainlib import influence, meta
from tests.device.calls.problems import D, bilevel, maml, tasks
from tests.device.table import call


@call("influence.TaskInfluence", "influence.TaskInfluence.gradients", "influence.TaskInfluence.meta", "influence.TaskInfluence.pruned", "influence.TaskInfluence.adaptation", "influence.TaskInfluence.performance")  # fmt: skip
def task_influence(device):
    t, new, found = tasks(device), tasks(device, 2, seed=5), []
    two_layer = meta.Maml(xl.models.fc_bn(3, 3, hidden=2, dtype=D, device=device), inner_lr=0.2)
    for learner, options in ((maml(device), {"l2": 0.1}), (maml(device, 2), {"curvature": "identity"}), (maml(device), {"curvature": "gauss_newton", "damping": 0.1}), (two_layer, {"damping": 0.5})):  # fmt: skip
        made = influence.TaskInfluence(learner, learner.w0, t, **options)
        found += [made.gradients, made.meta, made.eigenvalues, made.adaptation(new), made.performance(new)]
        found += [made.performance(new, groups=[[0, 1], [2]]), made.adaptation(new, training=[1]), made.gradient_norm]
    return found, made.pruned("positive").meta


@call("influence.TaskInfluence.stored")
def buffered_influence(device):
    learner, t = maml(device), tasks(device)
    with tempfile.TemporaryDirectory() as folder:
        options = {"curvature": "gauss_newton", "buffer": 4, "compress": 2, "damping": 0.1, "store": folder}
        made = influence.TaskInfluence(learner, learner.w0, t, **options)
        first = made.performance(tasks(device, 2, seed=5))
        again = influence.TaskInfluence.stored(learner, folder)
        return first, again.performance(tasks(device, 2, seed=5)), made.meta, made.captured, made.rank


@call("influence.cosine_scores", "influence.random_projector_scores")
def controls(device):
    learner, t, new = maml(device), tasks(device), tasks(device, 2, seed=5)
    random = influence.random_projector_scores(learner, learner.w0, t, new, rank=3)
    return influence.cosine_scores(learner, learner.w0, t, new), random


@call("influence.BilevelInfluence", "influence.BilevelInfluence.solution", "influence.BilevelInfluence.tasks", "influence.BilevelInfluence.task", "influence.BilevelInfluence.direct_tasks", "influence.BilevelInfluence.direct", "influence.BilevelInfluence.first_order_tasks", "influence.BilevelInfluence.first_order", "influence.BilevelInfluence.without_tasks", "influence.BilevelInfluence.without_task", "influence.BilevelInfluence.without_example", "influence.BilevelInfluence.step_to_rest", "influence.BilevelInfluence.performance")  # fmt: skip
def bilevel_influence(device):
    found, new = [], tasks(device, 1, seed=5)
    routes = {"softmax": {}, "head": {"solver": "cg"}, "network": {"inner_hessian": "ekfac"}}
    for kind, options in routes.items():
        learner, lam, t = bilevel(device, kind)
        t = t[:2]
        made = influence.BilevelInfluence(learner, lam, t, **options)
        found += [made.tasks(), made.task(1), made.direct_tasks(), made.direct(1), made.without_tasks([0])]
        found += [made.without_task(1), made.performance(new), made.without_example(0, 1), made.step_to_rest()]
        found += [made.first_order_tasks(), made.first_order(1)] if kind != "head" else [made.solution.status]
        found += [made.without_task(1, newton=True)] if not options else []
    return found


@call("influence.BilevelInfluence.published", "influence.BilevelInfluence.subsample_error")
def published(device):
    learner, lam, t = bilevel(device, "network")
    made = influence.BilevelInfluence.published(learner, lam, t[:2])
    few = influence.BilevelInfluence(*bilevel(device), subsample=2)
    examples = few.training_example(0, 1), few.validation_example(0, 1), few.inner_influence(0, 1)
    return made.tasks(), few.tasks(), few.subsample_error(), examples, few.example_performance(t[:1])
