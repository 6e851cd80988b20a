"""Find the layer of a failure: each call of a layer is checked by itself on its recorded input, innermost first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_unflatten

from explainlib.derivatives import Constants, DecompositionMode
from explainlib.gate.routes import Derivatives, UnsupportedError
from explainlib.params import Parameters

CALLS = 500  # most calls of layers that are checked


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer: its name and its input."""

    name: str
    layer: nn.Module
    args: tuple
    kwargs: dict


def failing_layer(parameters: Parameters, x: Tensor, route: str) -> str:
    """Return the name of the innermost layer with a derivative that fails on this route; "" if none does by itself.

    Args:
        parameters: of the model, in the dtype of the failure.
        x: the examples of the failure.
        route: of ``ROUTES``.
    """
    for use in layer_calls(parameters, x):
        try:
            if not _derivatives(use).compare(route).agrees:
                return use.name
        except UnsupportedError:
            return use.name
        except _NothingToDifferentiateError:
            continue
    return ""


def layer_calls(parameters: Parameters, x: Tensor) -> list[LayerCall]:
    """Return the calls of the model's layers, in the order in which they end: innermost first."""
    found: list[LayerCall] = []

    def watch(name: str):
        def hook(layer: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
            if name and len(found) < CALLS:
                found.append(LayerCall(name, layer, args, kwargs))

        return hook

    hooks = [
        layer.register_forward_hook(watch(name), with_kwargs=True) for name, layer in parameters.module.named_modules()
    ]
    try:
        with torch.no_grad():
            parameters.outputs(parameters.theta, x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


class _NothingToDifferentiateError(Exception):
    pass


def _derivatives(use: LayerCall) -> Derivatives:
    """Return the derivatives of a layer's summed outputs in its parameters and its input."""
    named = {name: p.detach() for name, p in use.layer.named_parameters()}
    leaves, spec = tree_flatten((use.args, use.kwargs))
    free = [at for at, leaf in enumerate(leaves) if isinstance(leaf, Tensor) and leaf.is_floating_point()]
    tensors = [*(leaves[at].detach() for at in free), *named.values()]
    if not tensors:
        raise _NothingToDifferentiateError
    sizes = tuple(t.numel() for t in tensors)
    weights: list[Tensor] = []

    def function(v: Tensor, constants: Constants | None) -> Tensor:
        parts = [part.view(t.shape) for part, t in zip(v.split(sizes), tensors, strict=True)]
        filled = list(leaves)
        for at, part in zip(free, parts, strict=False):
            filled[at] = part.clone()
        args, kwargs = tree_unflatten(filled, spec)
        own = dict(zip(named, parts[len(free) :], strict=True))
        with DecompositionMode(constants):
            output = functional_call(use.layer, own, args, kwargs)
        results = [leaf for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor) and leaf.is_floating_point()]
        if not weights:
            numbers = torch.Generator().manual_seed(1)
            weights.extend(torch.randn(r.shape, generator=numbers, dtype=torch.float64).to(v) for r in results)
        return sum(((r * w).sum() for r, w in zip(results, weights, strict=True)), v.new_zeros(()))

    flat = torch.cat([t.reshape(-1) for t in tensors])
    return Derivatives(function, flat.to(tensors[0].dtype), sizes)
