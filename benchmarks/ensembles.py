"""Whole ensembles in one batched call against the loop of optimisers everybody writes first."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import explainlib as xl
from benchmarks.timing import Row, compare
from explainlib.datasets import Examples

NETWORKS, EPOCHS, RATE, RIDGE = 200, 20, 1e-2, 1e-3


def rows() -> list[Row]:
    """Return the measurement; denormals are flushed and one thread is used on both sides."""
    train = xl.datasets.load("iris").double().train
    weights = torch.ones(NETWORKS, len(train), dtype=torch.float64)
    removed = torch.arange(NETWORKS) % len(train)
    weights[torch.arange(NETWORKS), removed] = 0
    network = xl.models.mlp([4, 5, 3], "tanh").double()
    starts = xl.training.fresh_starts(xl.Risk(network, train), range(NETWORKS))
    return [
        compare(
            f"fit_ensemble, {NETWORKS} networks 4-5-3 on iris, {EPOCHS} epochs, against a loop",
            lambda: xl.training.fit_ensemble(
                network, train, starts=starts, weights=weights, epochs=EPOCHS, lr=RATE, l2=RIDGE
            ),
            lambda: loop(train, weights, starts),
            bar=12,
        )
    ]


def loop(train: Examples, weights: Tensor, starts: Tensor) -> Tensor:
    """Return the trained parameters, one network after the other."""
    ended = []
    for row, start in zip(weights, starts, strict=True):
        network = xl.models.mlp([4, 5, 3], "tanh").double()
        torch.nn.utils.vector_to_parameters(start, network.parameters())
        adam = torch.optim.Adam(network.parameters(), lr=RATE, weight_decay=RIDGE)
        for _ in range(EPOCHS):
            adam.zero_grad()
            (row * cross_entropy(network(train.x), train.y, reduction="none")).mean().backward()
            adam.step()
        ended.append(torch.nn.utils.parameters_to_vector(network.parameters()).detach())
    return torch.stack(ended)
