"""Gradients in reverse mode: by plain autograd inside ``second_order_norms``, by ``torch.func`` elsewhere.

The function transforms of torch cost more than the operations of a small network. Where no transform surrounds a
gradient, as in a loop over large tasks, plain autograd gives the same numbers in about half the time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from explainlib.derivatives.fused_norms import is_second_order


def grad(function: Callable, *, has_aux: bool = False) -> Callable:
    """Return the gradient of a scalar function in its first argument, as ``torch.func.grad`` does.

    Args:
        function: of a tensor and anything else; with ``has_aux`` it returns (the scalar, a tensor beside it).
        has_aux: the gradient is (gradient, the tensor beside it, detached).
    """
    if not is_second_order():
        return torch.func.grad(function, has_aux=has_aux)

    def of(x: Tensor, *others: object) -> Tensor | tuple[Tensor, Tensor]:
        outer = x.requires_grad and torch.is_grad_enabled()  # the gradient itself will be differentiated
        with torch.enable_grad():
            start = x if outer else x.detach().requires_grad_()
            value, aux = function(start, *others) if has_aux else (function(start, *others), None)
            slope = torch.autograd.grad(value, start, create_graph=outer)[0]
        return (slope, aux.detach()) if has_aux else slope

    return of
