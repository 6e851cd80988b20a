"""Gradients in reverse mode: by plain autograd inside ``second_order_norms``, by ``torch.func`` elsewhere.

The function transforms of torch cost more than the operations of a small network. Where no transform surrounds a
gradient, as in a loop over large tasks, plain autograd gives the same numbers in about half the time.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

from explainlib.derivatives.fused_norms import is_second_order

Tree = Tensor | dict[str, Tensor]


def grad(function: Callable, *, has_aux: bool = False) -> Callable:
    """Return the gradient of a scalar function in its first argument, as ``torch.func.grad`` does.

    Args:
        function: of a tensor, or of tensors by name, and anything else; with ``has_aux`` it returns (the scalar, a
            tensor beside it).
        has_aux: the gradient is (gradient, the tensor beside it, detached).
    """
    if not is_second_order():
        return torch.func.grad(function, has_aux=has_aux)

    def of(x: Tree, *others: object) -> Tree | tuple[Tree, Tensor]:
        parts, structure = tree_flatten(x)
        outer = parts[0].requires_grad and torch.is_grad_enabled()  # the gradient itself will be differentiated
        with torch.enable_grad():
            starts = parts if outer else [part.detach().requires_grad_() for part in parts]
            start = tree_unflatten(starts, structure)
            value, aux = function(start, *others) if has_aux else (function(start, *others), None)
            found = torch.autograd.grad(value, starts, create_graph=outer, materialize_grads=True)
        slope = tree_unflatten(found, structure)
        return (slope, aux.detach()) if has_aux else slope

    return of
