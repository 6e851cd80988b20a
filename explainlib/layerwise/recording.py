"""One forward and one backward pass, watched: what each layer reads, and the gradient of what it puts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from explainlib.params import Parameters


@dataclass(frozen=True)
class Call:
    """One use of a layer: its input [e, ...] and, in [e, k, ...], the output gradients of k cotangents."""

    layer: nn.Module
    input: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class Watched:
    """One forward pass with its graph: the outputs, and what each layer read and put out."""

    outputs: Tensor
    seen: tuple[tuple[nn.Module, Tensor, Tensor], ...]

    @property
    def nbytes(self) -> int:
        """The bytes of what the layers read and put out."""
        return sum(read.nbytes + made.nbytes for _, read, made in self.seen)

    def calls(self, cotangents: Float[Tensor, "e k C"]) -> list[Call]:
        """Return every use of the layers, in order, after a backward pass for each of the k; the graph is then gone."""
        made = [output for _, _, output in self.seen]
        if not made or not self.outputs.requires_grad:
            return []
        gradients = [
            torch.autograd.grad(
                self.outputs, made, c, retain_graph=at + 1 < cotangents.shape[1], allow_unused=True,
                materialize_grads=True,
            )
            for at, c in enumerate(cotangents.unbind(1))
        ]  # fmt: skip
        stacked = [
            torch.stack(each, dim=1) if len(each) > 1 else each[0].unsqueeze(1) for each in zip(*gradients, strict=True)
        ]
        return [Call(layer, read, g) for (layer, read, _), g in zip(self.seen, stacked, strict=True)]


def watched(parameters: Parameters, theta: Float[Tensor, " p"], x: Tensor, layers: Sequence[nn.Module]) -> Watched:
    """Return one forward pass with its graph.

    Args:
        parameters: of the model.
        theta: where.
        x: e examples.
        layers: the layers to watch.
    """
    seen: list[tuple[nn.Module, Tensor, Tensor]] = []

    def watch(layer: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> Tensor:
        # the input may be overwritten in place further on, so what is kept is a copy; and so is what goes on
        read = (args[0] if args else kwargs["input"]).detach().clone()
        if not output.requires_grad:
            with torch.enable_grad():  # a layer that is called under no_grad: what it puts out goes on as a constant
                output = output.detach().requires_grad_()
        seen.append((layer, read, output))
        return output.clone()

    hooks = [layer.register_forward_hook(watch, with_kwargs=True) for layer in layers]
    try:
        with torch.enable_grad():
            outputs = parameters.outputs(theta.detach(), x)
    finally:
        for hook in hooks:
            hook.remove()
    return Watched(outputs, tuple(seen))


def recorded(
    parameters: Parameters,
    theta: Float[Tensor, " p"],
    x: Tensor,
    cotangents: Float[Tensor, "e k C"],
    layers: Sequence[nn.Module],
) -> list[Call]:
    """Return every use of the layers, in order.

    Args:
        parameters: of the model.
        theta: where.
        x: e examples.
        cotangents: one backward pass for each of the k.
        layers: the layers to watch.
    """
    return watched(parameters, theta, x, layers).calls(cotangents)
