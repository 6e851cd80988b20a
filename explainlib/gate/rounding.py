"""Detect rounding inside a forward to less than its precision."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from explainlib.params import Parameters


class _Rounding(TorchDispatchMode):
    """Records the lowest precision to which a floating-point number is rounded."""

    def __init__(self) -> None:
        super().__init__()
        self.eps = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """Run the operation."""
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.is_floating_point() and any(isinstance(a, Tensor) for a in args):
            self.eps = max(self.eps, torch.finfo(out.dtype).eps)
        return out


def rounds_below_precision(parameters: Parameters, x: Tensor) -> bool:
    """Return whether a forward rounds inside to less than its precision, as some normalisations do.

    Args:
        parameters: of the model.
        x: a few examples.
    """
    with torch.no_grad(), _Rounding() as seen:
        parameters.outputs(parameters.theta, x)
    return seen.eps > torch.finfo(parameters.theta.dtype).eps
