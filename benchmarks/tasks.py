"""The exact meta-Hessian of MAML on 1,285 parameters and 128 tasks, against autograd row by row; then all of TLXML."""

from __future__ import annotations

import time
from statistics import median

import torch
from torch.nn.functional import cross_entropy

import explainlib as xl
from benchmarks.timing import Row, seconds
from explainlib.datasets import Tasks

TASKS, FEATURES, ROWS, SAMPLES = 128, 32, 40, 3  # rows of one task that the loop is timed on; the rest is multiplied
GENERAL = 8  # tasks the general route is timed on


def rows() -> list[Row]:
    """Return the ratios of both routes, and the time of Hessian, I_meta and a 128 x 128 I_perf together."""
    torch.set_num_threads(1)
    tasks = random_tasks()
    learner = xl.meta.Maml(xl.models.fc_bn(FEATURES, dtype=torch.float64), inner_lr=0.1)
    w = learner.w0
    xl.meta.meta_hessian(learner, w, tasks[:2])  # torch loads its forward mode once
    agree = float((by_row(learner, w, tasks, range(ROWS))[0] - exact_rows(learner, w, tasks)).abs().max())
    samples = []
    for _ in range(SAMPLES):  # interleaved
        looped = by_row(learner, w, tasks, range(ROWS))[1]
        general = seconds(lambda: xl.meta.meta_hessian(learner, w, tasks[:GENERAL], route="general")) / GENERAL * TASKS
        samples.append((looped, general, seconds(lambda: xl.meta.meta_hessian(learner, w, tasks))))
    looped, general, structured = (median(column) for column in zip(*samples, strict=True))
    whole = seconds(lambda: xl.influence.TaskInfluence(learner, w, tasks).performance(tasks))
    what = f"meta-Hessian, {learner.q} parameters, {TASKS} tasks"
    return [
        Row(f"{what}: structured (agree {agree:.0e})", structured, looped, "25x", looped / structured >= 25),
        Row(f"{what}: any learner", general, looped, "7x", looped / general >= 7),
        Row(f"H, I_meta and I_perf {TASKS} x {TASKS}", whole, None, "20 s", whole <= 20),
    ]


def random_tasks() -> Tasks:
    """Return tasks of 5 ways with 25 support and 25 query features."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(5).repeat_interleave(5).expand(TASKS, -1)
    x, z = (torch.randn(TASKS, 25, FEATURES, generator=g, dtype=torch.float64) for _ in range(2))
    return Tasks(x, y, z, y)


def by_row(learner: xl.meta.Maml, w: torch.Tensor, tasks: Tasks, chosen: range) -> tuple[torch.Tensor, float]:
    """Return the first task's rows by plain autograd, and the seconds that all rows of all tasks would take.

    The normalisation is the exactly differentiable one on both sides; torch's fused layer would be wrong here.
    """
    started = time.perf_counter()
    v = w.clone().requires_grad_()
    inner = cross_entropy(learner.parameters.outputs(v, tasks.support_x[0]), tasks.support_y[0])
    theta = v - learner.inner_lr * torch.autograd.grad(inner, v, create_graph=True)[0]
    loss = cross_entropy(learner.parameters.outputs(theta, tasks.query_x[0]), tasks.query_y[0])
    gradient = torch.autograd.grad(loss, v, create_graph=True)[0]
    built = time.perf_counter() - started
    started = time.perf_counter()
    found = torch.stack([torch.autograd.grad(gradient[i], v, retain_graph=True)[0] for i in chosen])
    each = (time.perf_counter() - started) / len(chosen)
    return found, (built + each * learner.q) * len(tasks)


def exact_rows(learner: xl.meta.Maml, w: torch.Tensor, tasks: Tasks) -> torch.Tensor:
    """Return the same rows by the structured route."""
    return xl.meta.meta_hessian(learner, w, tasks[0])[:ROWS]
