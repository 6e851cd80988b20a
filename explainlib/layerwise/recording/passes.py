"""One forward and one backward pass, recorded by hooks: the input of each layer, and the gradient of its output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from explainlib.layerwise.recording.attention import Projection, recorded_attention
from explainlib.params import Parameters


@dataclass(frozen=True)
class LayerCall:
    """One call of a layer: its input [e, ...] and, in [e, k, ...], the output gradients of k cotangents."""

    layer: nn.Module
    input: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class ForwardPass:
    """One forward pass with its graph: the model's outputs, and (layer, input, output) of each call."""

    outputs: Tensor
    calls: tuple[tuple[nn.Module, Tensor, Tensor], ...]

    @property
    def nbytes(self) -> int:
        """The bytes of the layers' inputs and outputs."""
        return sum(input.nbytes + output.nbytes for _, input, output in self.calls)

    def backward(self, cotangents: Float[Tensor, "e k C"]) -> list[LayerCall]:
        """Return every call, in order, after a backward pass for each of the k; the graph is freed."""
        layer_outputs = [output for _, _, output in self.calls]
        if not layer_outputs or not self.outputs.requires_grad:
            return []
        gradients = [
            torch.autograd.grad(
                self.outputs, layer_outputs, c, retain_graph=at + 1 < cotangents.shape[1], allow_unused=True,
                materialize_grads=True,
            )
            for at, c in enumerate(cotangents.unbind(1))
        ]  # fmt: skip
        stacked = [
            torch.stack(each, dim=1) if len(each) > 1 else each[0].unsqueeze(1) for each in zip(*gradients, strict=True)
        ]
        return [LayerCall(layer, input, g) for (layer, input, _), g in zip(self.calls, stacked, strict=True)]


def forward_pass(
    parameters: Parameters,
    theta: Float[Tensor, " p"],
    x: Tensor,
    layers: Sequence[nn.Module],
    *,
    repeated: Sequence[nn.Module] = (),
) -> ForwardPass:
    """Return one forward pass with its graph.

    Args:
        parameters: of the model.
        theta: where.
        x: e examples.
        layers: the layers to record.
        repeated: embeddings whose tokens [T] or [1, T] and output are repeated for each example, see ``Plan``.
    """
    calls: list[tuple[nn.Module, Tensor, Tensor]] = []
    alike = {id(layer) for layer in repeated}

    def record(layer: nn.Module, args: tuple, kwargs: dict, output: Tensor) -> Tensor:
        # inputs and outputs may be overwritten in place later in the forward, so both are copied
        input = (args[0] if args else kwargs["input"]).detach().clone()
        if id(layer) in alike:
            one = input.ndim == 1
            input, output = (
                (part[None] if one else part).expand(len(x), *part.shape[not one :]) for part in (input, output)
            )
        if not output.requires_grad:
            with torch.enable_grad():  # a layer called under no_grad: its output goes on as a constant
                output = output.detach().requires_grad_()
        calls.append((layer, input, output))
        return output.clone()

    hooks = [
        layer.register_forward_hook(record, with_kwargs=True) for layer in layers if not isinstance(layer, Projection)
    ]
    try:
        with torch.enable_grad(), recorded_attention(parameters.module, layers, record):
            outputs = parameters.outputs(theta.detach(), x)
    finally:
        for hook in hooks:
            hook.remove()
    return ForwardPass(outputs, tuple(calls))


def layer_calls(
    parameters: Parameters,
    theta: Float[Tensor, " p"],
    x: Tensor,
    cotangents: Float[Tensor, "e k C"],
    layers: Sequence[nn.Module],
    *,
    repeated: Sequence[nn.Module] = (),
) -> list[LayerCall]:
    """Return every call of the layers, in order.

    Args:
        parameters: of the model.
        theta: where.
        x: e examples.
        cotangents: one backward pass for each of the k.
        layers: the layers to record.
        repeated: see ``forward_pass``.
    """
    return forward_pass(parameters, theta, x, layers, repeated=repeated).backward(cotangents)
