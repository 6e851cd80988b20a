"""The device of a study: chosen by the runner or a panel, asked where data and models begin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from explainlib.datasets import ClassPool, Split

Placed = TypeVar("Placed", Split, ClassPool, nn.Module, Tensor)
_device = torch.device("cpu")


@contextmanager
def computing_on(device: torch.device) -> Iterator[None]:
    """Let ``placed`` move to a device inside the block.

    Args:
        device: of ``compute.chosen_device``.
    """
    global _device
    before, _device = _device, device
    try:
        yield
    finally:
        _device = before


def placed(made: Placed) -> Placed:
    """Return data, a model or numbers on the study's device."""
    return made.to(_device)
