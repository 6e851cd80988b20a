"""Ragged shapes, their factors and the sum written out, shared by the tests of this room."""

from __future__ import annotations

import torch
from torch import Tensor

from explainlib.kernels.self_check import factors

SHAPES = [(3, 2, 4, 5, 2, 3), (4, 3, 1, 1, 5, 2), (1, 5, 3, 2, 1, 1), (2, 3, 5, 1, 3, 6)]  # n m P Q d o

__all__ = ["SHAPES", "factors", "summed"]


def summed(a_i: Tensor, g_i: Tensor, a_j: Tensor, g_j: Tensor) -> Tensor:
    """Return the double sum over positions, in one line."""
    return torch.einsum("ipd,jqd,ipo,jqo->ij", a_i, a_j, g_i, g_j)
