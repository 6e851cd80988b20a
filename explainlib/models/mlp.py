"""Fully connected networks of any depth: the ladder on which influence's fragility is measured."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn

from explainlib.checks import require_choice, require_count
from explainlib.models.seeded import seeded

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "selu": nn.SELU,
    "gelu": nn.GELU,
}


def mlp(
    widths: Sequence[int],
    activation: str = "relu",
    *,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> nn.Sequential:
    """Return linear layers of the given widths with an activation between them, none after the last.

    Inputs are flattened first. Iris at depth 1 and width 5, ``[4, 5, 3]``, has 43 parameters.

    Args:
        widths: features, hidden widths and outputs, in this order: at least three numbers of at least 1. Without a
            hidden layer the model is ``logistic``.
        activation: "relu", "tanh", "sigmoid", "selu" or "gelu". A ReLU network has kinks, where second derivatives
            do not see what a small step meets; tanh is smooth.
        seed: of the first weights.
        dtype: floating point; None is torch's current default.
        device: None is torch's current default.

    Returns:
        Network with layers ``linear1``, ``activation1``, ..., ``linear<last>``.

    Raises:
        ValueError: fewer than three widths, a width below 1, an unknown activation or a negative seed.

    Source: Epifano et al., section 3 (Iris, one to eight hidden layers of width 5 to 50).

    Example:
        >>> sum(p.numel() for p in mlp([4, 5, 3], "tanh").parameters())
        43
    """
    if isinstance(widths, int) or len(widths) < 3:
        raise ValueError(
            f"widths={widths} has no hidden layer; pass features, hidden widths and outputs, such as [64, 32, 10], "
            "or use logistic(d, C)."
        )
    for i, width in enumerate(widths):
        require_count(f"widths[{i}]", width)
    kind = ACTIVATIONS[require_choice("activation", activation, tuple(ACTIVATIONS))]

    def layers() -> OrderedDict[str, nn.Module]:
        named: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
        for i in range(1, len(widths)):
            named[f"linear{i}"] = nn.Linear(widths[i - 1], widths[i])
            if i < len(widths) - 1:
                named[f"activation{i}"] = kind()
        return named

    return seeded(layers, seed=seed, dtype=dtype, device=device)
