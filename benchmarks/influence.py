"""Exact influence against the plain loops everybody writes first."""

from __future__ import annotations

import torch
from torch.autograd import grad

import explainlib as xl
from benchmarks.timing import Row, compare, within


def rows() -> list[Row]:
    """Return the measurements; denormals are flushed and one thread is used on both sides."""
    split = xl.datasets.load("digits").double()
    softmax = xl.training.minimise(xl.Risk(xl.models.logistic(64, 10).double(), split.train, l2=1e-2))
    trained = xl.training.fit(xl.models.mlp([64, 10, 10], "tanh").double(), split.train, epochs=200, lr=1e-2)
    network = xl.Risk(trained.model, split.train, l2=1e-2)
    test = split.test[:20]
    panel = xl.panels.Removal(softmax, split.test)
    counts = iter(range(10, 10_000, 7))
    return [
        compare(
            f"loss_influence, softmax regression, p={softmax.p}, against Hessian rows",
            lambda: xl.influence.loss_influence(softmax.at(softmax.theta), test),
            lambda: influence_by_rows(softmax, test),
            bar=8,
        ),
        compare(
            f"loss_influence, tanh network, p={network.p}, against Hessian rows",
            lambda: xl.influence.loss_influence(network.at(network.theta), test, keep=1e-9),
            lambda: influence_by_rows(network, test),
            bar=8,
        ),
        compare(
            f"loss_gradients, softmax regression, n={softmax.n}, against examples",
            softmax.loss_gradients,
            lambda: gradients_by_examples(softmax),
            bar=5,
        ),
        compare(
            f"loss_gradients, tanh network, n={network.n}, against examples",
            network.loss_gradients,
            lambda: gradients_by_examples(network),
            bar=5,
        ),
        within("panel redraw (digits)", lambda: panel.set(k=10 + next(counts) % 300), most=0.1),
        within("panel Retrain (digits)", panel.verify, most=2.0),
    ]


def influence_by_rows(risk: xl.Risk, test: xl.datasets.Examples) -> torch.Tensor:
    """The plain loop: autograd row by row, one linear solve."""
    model = risk.model
    parameters = list(model.parameters())

    def flat(values: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat([value.reshape(-1) for value in values])

    losses = torch.nn.functional.cross_entropy(model(risk.train.x), risk.train.y)
    value = losses + risk.l2 / 2 * sum(p.square().sum() for p in parameters)
    first = flat(grad(value, parameters, create_graph=True))
    hessian = torch.stack([flat(grad(entry, parameters, retain_graph=True)) for entry in first])
    ours = gradients_of(model, test)
    return -torch.linalg.lstsq(hessian, ours.T).solution.T @ risk.loss_gradients().T


def gradients_by_examples(risk: xl.Risk) -> torch.Tensor:
    """The plain loop: one backward pass per example."""
    return gradients_of(risk.model, risk.train)


def gradients_of(model: torch.nn.Module, examples: xl.datasets.Examples) -> torch.Tensor:
    parameters = list(model.parameters())
    rows = []
    for x, y in zip(examples.x, examples.y, strict=True):
        loss = torch.nn.functional.cross_entropy(model(x[None]), y[None])
        rows.append(torch.cat([part.reshape(-1) for part in grad(loss, parameters)]))
    return torch.stack(rows)
