"""``make bench-peers``: TracInCP against captum on the same model, data and checkpoints.

Both sides flush denormals and use the caller's threads; captum runs in its default mode, in its sample-wise mode and as
TracInCPFast. Agreement is printed beside the ratio.
"""

from __future__ import annotations

import sys

import torch
from captum.influence import TracInCP, TracInCPFast
from torch import nn
from torch.utils.data import TensorDataset

import explainlib as xl
from benchmarks.timing import Row, compare, table
from explainlib import compute
from explainlib.datasets import Examples

TRAIN, TEST, CHECKPOINTS, RUNS = 500, 50, 3, 5


def problem() -> tuple[xl.training.Trajectory, Examples, Examples]:
    """Return a trained 93,962-parameter network with its checkpoints, and digits scaled up to 28 x 28."""
    digits = xl.datasets.load("digits")

    def scaled(part: Examples, count: int) -> Examples:
        x = nn.functional.interpolate(part.x[:count].view(-1, 1, 8, 8), size=28, mode="bilinear")
        return Examples(x, part.y[:count])

    train, test = scaled(digits.train, TRAIN), scaled(digits.test, TEST)
    model = xl.models.cnn3(1, 10, dtype=torch.float32)
    options = {"epochs": 3, "lr": 1e-2, "batch_size": 50, "optimizer": "sgd"}
    return xl.training.fit(model, train, checkpoints=CHECKPOINTS, **options), train, test


def rows() -> list[Row]:
    """Return the three ratios."""
    trajectory, train, test = problem()
    model = trajectory.model
    data = TensorDataset(train.x, train.y)

    def load(net: nn.Module, theta: torch.Tensor) -> float:
        nn.utils.vector_to_parameters(theta.clone(), net.parameters())
        return float(trajectory.learning_rates[0])

    shared = {"checkpoints": list(trajectory.checkpoints), "checkpoints_load_func": load, "batch_size": 100}
    default = TracInCP(model, data, loss_fn=nn.CrossEntropyLoss(reduction="none"), **shared)
    wise = TracInCP(
        model, data, loss_fn=nn.CrossEntropyLoss(reduction="sum"), sample_wise_grads_per_batch=True, **shared
    )
    fast = TracInCPFast(model, model[-1], data, loss_fn=nn.CrossEntropyLoss(reduction="sum"), **shared)
    ours = {
        "all": lambda: -xl.influence.tracin(trajectory, train, test),
        "last": lambda: -xl.influence.tracin(trajectory, train, test, parameters=["output.weight"]),  # captum: no bias
    }
    found = []
    for name, peer, kind, bar, runs in (
        ("TracInCP, default mode", default, "all", 20.0, 1),
        ("TracInCP, sample-wise", wise, "all", 1.7, RUNS),
        ("TracInCPFast", fast, "last", 1.0, RUNS),
    ):
        theirs = lambda peer=peer: peer.influence((test.x, test.y))  # noqa: E731
        gap = float((theirs() - ours[kind]()).abs().max() / ours[kind]().abs().max())
        found.append(compare(f"captum {name} (differs by {gap:.0e})", ours[kind], theirs, bar=bar, runs=runs))
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    with compute.settings():
        print(table(rows()))
    sys.exit(0)
