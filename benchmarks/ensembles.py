"""Whole ensembles in one batched call against the loop of optimisers everybody writes first."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import explainlib as xl
from benchmarks.timing import Row, compare
from explainlib.datasets import Examples

Problem = tuple[nn.Module, Tensor, Tensor]  # a network, weights [g, n], first parameters [g, p]
EPOCHS, RATE, RIDGE = 30, 1e-2, 1e-3
REPEATS = 50  # networks of one shape in the fragility study
SHAPES = [[4, *[5] * depth, 3] for depth in range(1, 9)] + [[4, width, 3] for width in (10, 20, 30, 40, 50)]


def rows() -> list[Row]:
    """Return the measurements; denormals are flushed and one thread is used on both sides."""
    train = xl.datasets.load("iris").double().train
    removed = torch.ones(4 * REPEATS, len(train), dtype=torch.float64)
    removed[torch.arange(len(removed)), torch.arange(len(removed)) % len(train)] = 0  # each without another example
    whole = torch.ones(REPEATS, len(train), dtype=torch.float64)
    small = [_problem([4, 5, 3], "tanh", train, removed)]
    sweep = [_problem(widths, "relu", train, whole) for widths in SHAPES]
    return [
        _row(f"retraining: {len(removed)} networks 4-5-3 on iris, {EPOCHS} epochs, against a loop", train, small, 12),
        _row(f"the sweep: {len(SHAPES)} shapes x {REPEATS} ReLU networks, {EPOCHS} epochs", train, sweep, 15),
    ]


def _problem(widths: list[int], activation: str, train: Examples, weights: Tensor) -> Problem:
    network = xl.models.mlp(widths, activation).double()
    return network, weights, xl.training.fresh_starts(xl.Risk(network, train), range(len(weights)))


def _row(what: str, train: Examples, problems: list[Problem], bar: float) -> Row:
    def ours() -> None:
        for network, weights, starts in problems:
            xl.training.fit_ensemble(network, train, starts=starts, weights=weights, epochs=EPOCHS, lr=RATE, l2=RIDGE)

    def plain() -> None:
        for network, weights, starts in problems:
            loop(network, train, weights, starts)

    return compare(what, ours, plain, bar=bar, runs=3)


def loop(first: nn.Module, train: Examples, weights: Tensor, starts: Tensor) -> Tensor:
    """Return the trained parameters, one network after the other."""
    ended = []
    for row, start in zip(weights, starts, strict=True):
        network = copy.deepcopy(first)
        torch.nn.utils.vector_to_parameters(start, network.parameters())
        adam = torch.optim.Adam(network.parameters(), lr=RATE, weight_decay=RIDGE)
        for _ in range(EPOCHS):
            adam.zero_grad()
            (row * cross_entropy(network(train.x), train.y, reduction="none")).mean().backward()
            adam.step()
        ended.append(torch.nn.utils.parameters_to_vector(network.parameters()).detach())
    return torch.stack(ended)
