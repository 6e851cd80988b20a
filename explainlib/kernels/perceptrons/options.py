"""What the training of small perceptrons is told, the same for the kernel and for plain PyTorch."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Options(NamedTuple):
    """The options of ``trained_perceptrons``, which says what each of them is.

    Attributes:
        widths: of the inputs, hidden layers and outputs.
        activation: of the hidden layers.
        epochs: passes through the batches.
        lr: learning rate.
        optimizer: "adam" or "sgd".
        l2: ridge.
        plateau: factor, patience, threshold and least rate, or None.
        batches: [r, b], int64 numbers of the examples of each step of an epoch; None takes all.
    """

    widths: tuple[int, ...]
    activation: str
    epochs: int
    lr: float
    optimizer: str
    l2: float
    plateau: tuple[float, int, float, float] | None
    batches: Tensor | None
