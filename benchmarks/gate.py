"""What the gate costs, once a model and shape of examples; afterwards it is remembered."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

import explainlib as xl
from benchmarks.timing import Row, within


def rows() -> list[Row]:
    """Return the measurements: each run is handed a model that nobody has seen."""
    small = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    x = torch.randn(50, 4, dtype=torch.float64)
    cnn, pictures = xl.models.cnn3(1, 10), torch.randn(16, 1, 28, 28)
    return [
        _row("gate, forward only: 131-parameter net, 50 examples", small, x, order=0, most=0.010),
        _row("gate, first derivatives: the same", small, x, order=1, most=0.025),
        _row("gate, second derivatives: the same", small, x, order=2, most=0.050),
        _row("gate, third derivatives: the same", small, x, order=3, most=0.100),
        _row("gate, second derivatives: the papers' CNN, 93,000 parameters", cnn, pictures, order=2, most=2.0),
    ]


def _row(what: str, model: nn.Module, x: Tensor, *, order: int, most: float) -> Row:
    return within(what, lambda: xl.check_model(copy.deepcopy(model), x, order=order), most=most)
