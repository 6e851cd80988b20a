"""Multinomial logistic regression: the model whose influence can be checked to the last digit."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn

from explainlib.checks import require_count
from explainlib.models.seeded import seeded


def logistic(
    d: int, C: int, *, seed: int = 0, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> nn.Sequential:
    """Return one linear layer from d features to C class scores: C (d + 1) parameters, 650 for digits.

    Inputs are flattened first, so [n, d] and images such as [n, 1, 28, 28] with d = 784 both work. With a ridge the
    training objective is strictly convex: one minimum, and influence describes it exactly.

    Args:
        d: features of one example, at least 1.
        C: classes, at least 2.
        seed: of the first weights.
        dtype: floating point; None is torch's current default.
        device: None is torch's current default.

    Returns:
        Network with parameters ``linear.weight`` [C, d] and ``linear.bias`` [C].

    Raises:
        ValueError: d below 1, C below 2 or a negative seed.

    Source: Koh & Liang 2017, section 4.1; Basu et al. 2020, section 7.3.1.

    Example:
        >>> sum(p.numel() for p in logistic(64, 10).parameters())
        650
    """
    require_count("d", d)
    require_count("C", C, least=2)
    return seeded(
        lambda: OrderedDict(flatten=nn.Flatten(), linear=nn.Linear(d, C)), seed=seed, dtype=dtype, device=device
    )
