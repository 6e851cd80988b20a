"""The small problems of the device table, each on a device: made on the CPU from seeds, and moved."""

from __future__ import annotations

import functools

import torch

import explainlib as xl
from explainlib.training import fit
from tests.meta.few_shot import random_tasks
from tests.problems import classes, convolution, images, logistic_risk, network_risk, normal, ridge_risk

D = torch.float64


def moved(risk: xl.Risk, device: str) -> xl.Risk:
    """Return a risk of tests/problems.py, whose parameters were found on the CPU, on the device."""
    model = risk.model.to(device)
    other = xl.Risk(model, risk.train.to(device), loss=risk.loss, l2=risk.l2, parameters=risk.parameters.names)
    return other.at(risk.theta.to(device))


@functools.cache
def on_cpu(kind: str) -> xl.Risk:
    makers = {
        "softmax": lambda: logistic_risk(20),
        "network": lambda: network_risk(n=12),
        "ridge": lambda: ridge_risk(12),
    }
    if kind == "convolution":
        return xl.Risk(convolution(), images(6), l2=0.05)
    if kind == "fitted":
        return xl.training.minimise(network_risk(n=12, l2=0.1), tolerance=1e-11)
    return makers[kind]()


def risk(device: str, kind: str = "softmax") -> xl.Risk:
    """Return a softmax regression or a network at a minimum ("softmax", "ridge", "fitted") or anywhere."""
    return moved(on_cpu(kind), device)


def test(device: str, n: int = 4) -> xl.datasets.Examples:
    return classes(n, seed=7).to(device)


def trajectory(device: str, checkpoints: int = 2) -> xl.training.Trajectory:
    model = xl.models.mlp([3, 4, 3], "tanh", dtype=D, device=device)
    train = classes(12).to(device)
    return fit(
        model,
        train,
        epochs=3,
        lr=0.05,
        optimizer="sgd",
        batch_size=5,
        weight_decay=0.01,
        checkpoints=checkpoints,
        record=True,
    )


def tasks(device: str, m: int = 4, **options) -> xl.datasets.Tasks:
    return random_tasks(m, **options).to(device)


def maml(device: str, steps: int = 1) -> xl.meta.Maml:
    return xl.meta.Maml(xl.models.mlp([3, 2, 3], "tanh", dtype=D, device=device), inner_lr=0.3, steps=steps)


def bilevel(device: str, kind: str = "softmax", **options) -> tuple[xl.meta.Bilevel, torch.Tensor, xl.datasets.Tasks]:
    """Return (learner, lam at a stationary point of another learner of its kind, tasks)."""
    learner, found = learner_of(kind, device, **options)
    return learner, solved(kind).to(device), found.to(device)


def learner_of(kind: str, device: str, **options) -> tuple[xl.meta.Bilevel, xl.datasets.Tasks]:
    """Return a bilevel learner on the device, and its tasks on the CPU."""
    if kind == "softmax":
        model, given = xl.models.logistic(3, 3, dtype=D), {"strength": 0.7, "l2": 0.9}
    elif kind == "head":
        model, given = xl.models.mlp([3, 2, 3], "tanh", dtype=D), {"strength": 0.7, "l2": 0.9, "inner": "head"}
    else:
        model, given = xl.models.mlp([3, 2, 3], "tanh", dtype=D), {"strength": 20.0, "l2": 0.9}
    return xl.meta.Bilevel(model.to(device), **{**given, **options}), random_tasks(3, shots=2, queries=2)


@functools.cache
def solved(kind: str) -> torch.Tensor:
    learner, found = learner_of(kind, "cpu")
    return xl.meta.solve(learner, found, tolerance=1e-9).w


__all__ = ["D", "bilevel", "maml", "normal", "risk", "tasks", "test", "trajectory"]
