"""Ties: numbers that differ by rounding alone have no order, and no rank may depend on one."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

ROUNDING = 8  # units in the last place that a few operations may be off by


def levels(values: Float[Tensor, "t n"], slack: Float[Tensor, " t"] | None = None) -> Float[Tensor, "t n"]:
    """Return the values' order within each row as 0, 1, 2, ..., equal for entries that count as tied (float64).

    Args:
        values: each row for itself.
        slack: how far two neighbours of a row may be apart and still count as equal, for values that are sums: their
            error is that of the terms. None takes ``ROUNDING`` units in the last place of the larger of the two.

    Example:
        >>> levels(torch.tensor([[0.3, 0.1 + 0.2, -1.0]], dtype=torch.float64)).tolist()
        [[1.0, 1.0, 0.0]]
    """
    ordered, order = values.sort(dim=-1)
    if slack is None:
        sizes = torch.maximum(ordered[:, 1:].abs(), ordered[:, :-1].abs())
        apart = ordered.diff(dim=-1) > ROUNDING * torch.finfo(values.dtype).eps * sizes
    else:
        apart = ordered.diff(dim=-1) > slack[:, None]
    steps = torch.zeros_like(values, dtype=torch.float64)
    steps[:, 1:] = apart.double()
    return torch.zeros_like(steps).scatter(-1, order, steps.cumsum(-1))


def average_ranks(values: Float[Tensor, "t n"]) -> Float[Tensor, "t n"]:
    """Return each entry's rank within its row, 1 for the smallest; ties share their mean rank (float64).

    Ties are equal up to rounding, as in ``levels``.
    """
    return level_ranks(levels(values))


def level_ranks(values: Float[Tensor, "t n"]) -> Float[Tensor, "t n"]:
    """Return ``average_ranks`` for entries with exact ties, such as ``levels``."""
    ordered = values.sort(dim=-1).values.contiguous()
    below = torch.searchsorted(ordered, values.contiguous())
    through = torch.searchsorted(ordered, values.contiguous(), right=True)
    return (below + through + 1).double() / 2
