"""Networks of one architecture stacked along a further axis: values and gradients by batched products.

Plain multilayer perceptrons spend their time in small matrix products. With the weights of m networks stacked,
W [m, out, in], and examples as columns, A [m, in, n], every layer is one batched product, forwards and backwards:

    Z_k = W_k A_{k-1},   A_k = act(Z_k),   dZ_k = (W_{k+1}^T dZ_{k+1}) act'(Z_k),   dW_k = dZ_k A_{k-1}^T.

A bias is the weight of a last row of ones in A. All m networks share the first A, the examples themselves, so the
first layer is one large product. Any other model is evaluated by ``torch.func.vmap``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import one_hot

from explainlib.losses import CROSS_ENTROPY, Loss
from explainlib.risk import Risk
from explainlib.training.weighted import weighted_risks

aten = torch.ops.aten
SELU = nn.SELU()
SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


class Activation(NamedTuple):
    """An elementwise function, and its derivative times an incoming gradient, from z and a = value(z)."""

    value: Callable[[Tensor, Tensor], object]  # writes into its second argument
    back: Callable[[Tensor, Tensor, Tensor], Tensor]


ACTIVATIONS = {
    nn.Tanh: Activation(lambda z, out: torch.tanh(z, out=out), lambda g, z, a: aten.tanh_backward(g, a)),
    nn.Sigmoid: Activation(lambda z, out: torch.sigmoid(z, out=out), lambda g, z, a: aten.sigmoid_backward(g, a)),
    nn.ReLU: Activation(
        lambda z, out: torch.clamp(z, min=0, out=out), lambda g, z, a: aten.threshold_backward(g, a, 0)
    ),
    nn.Identity: Activation(lambda z, out: out.copy_(z), lambda g, z, a: g),
    nn.SELU: Activation(
        lambda z, out: out.copy_(torch.selu(z)),
        lambda g, z, a: aten.elu_backward(g, SELU_ALPHA, SELU_SCALE, 1, False, z),
    ),
    nn.GELU: Activation(
        lambda z, out: out.copy_(nn.functional.gelu(z)), lambda g, z, a: aten.gelu_backward(g, z, approximate="none")
    ),
}


class Layers(NamedTuple):
    """The layers of a perceptron: linear layers, and an activation after each but the last."""

    linear: tuple[nn.Linear, ...]
    activations: tuple[Activation, ...]


def layers_of(risk: Risk) -> Layers | None:
    """Return the layers if the risk's model is a plain perceptron trained as a whole, else None.

    That is an ``nn.Sequential``: perhaps an ``nn.Flatten``, then distinct linear layers with at most one known
    activation between two of them, and nothing that a hook or a subclass could add.
    """
    module = risk.parameters.module
    if type(module) is not nn.Sequential or risk.parameters.names != tuple(
        name for name, _ in module.named_parameters()
    ):
        return None
    stages = list(module)
    if any(stage._forward_hooks or stage._forward_pre_hooks for stage in (module, *stages)):
        return None
    if stages and type(stages[0]) is nn.Flatten and (stages[0].start_dim, stages[0].end_dim) == (1, -1):
        stages = stages[1:]
    elif risk.train.x.ndim != 2:
        return None
    linear, activations = [], []
    for stage in stages:
        if type(stage) is nn.Linear:
            if len(linear) > len(activations):
                activations.append(ACTIVATIONS[nn.Identity])
            linear.append(stage)
        elif len(linear) == len(activations) + 1 and _supported(stage):
            activations.append(ACTIVATIONS[type(stage)])
        else:
            return None
    distinct = len({id(parameter) for layer in linear for parameter in layer.parameters()})
    whole = distinct == sum(1 if layer.bias is None else 2 for layer in linear)
    return Layers(tuple(linear), tuple(activations)) if len(linear) == len(activations) + 1 and whole else None


def _supported(stage: nn.Module) -> bool:
    return type(stage) in ACTIVATIONS and not (type(stage) is nn.GELU and stage.approximate != "none")


class Stacked:
    """m networks of one model under m weightings, their parameters in a packed order.

    The general form, for any differentiable model; the order is that of theta.

    Args:
        risk: the objective whose weights are replaced.
        weights: [m, n].
    """

    def __init__(self, risk: Risk, weights: Float[Tensor, "m n"]) -> None:
        self.risk, self.problems = risk, weighted_risks(risk, weights)

    @staticmethod
    def numbers(risk: Risk) -> int:
        """Return roughly how many numbers one network needs in memory."""
        width = risk.n_outputs if risk.head is not None else max(risk.p // 16, risk.train.x[0].numel())
        return risk.n * width

    def pack(self, theta: Float[Tensor, "m p"]) -> Tensor:
        """Return theta in the packed order."""
        return theta.clone()

    def unpack(self, packed: Tensor) -> Float[Tensor, "m p"]:
        """Return theta from the packed order."""
        return packed.clone()

    def gradients(self, packed: Tensor) -> Tensor:
        """Return grad R, network by network, packed; it may be overwritten by the next call."""
        return self.problems.gradients(packed)

    def values(self, packed: Tensor) -> Float[Tensor, " m"]:
        """Return R [m]."""
        return self.problems.values(packed)


class StackedPerceptrons(Stacked):
    """``Stacked`` for plain perceptrons, each layer packed as one block [m, out, in + 1 for a bias].

    Args:
        risk: the objective whose weights are replaced.
        weights: [m, n].
        layers: of its model.
    """

    def __init__(self, risk: Risk, weights: Float[Tensor, "m n"], layers: Layers) -> None:
        self.risk, self.layers, self.m = risk, layers, len(weights)
        x = risk.train.x.flatten(1)
        self.weights, self.shares = weights, (weights / risk.n)[:, None, :]
        self.biased = [layer.bias is not None for layer in layers.linear]
        self.x = torch.cat([x, x.new_ones(len(x), 1)], 1) if self.biased[0] else x  # [n, in + 1]
        self.columns = self.x.T.contiguous()
        self.shapes = [(layer.out_features, layer.in_features + bias) for layer, bias in self._linear()]
        self.sizes = [self.m * rows * columns for rows, columns in self.shapes]
        # after an activation: its values, then a row of ones for the next layer's bias
        self.activations = [
            x.new_ones(self.m, layer.out_features + bias, risk.n)
            for layer, bias in zip(layers.linear[:-1], self.biased[1:], strict=True)
        ]
        self.slopes = x.new_empty(sum(self.sizes))
        self.slope_blocks = self._blocks(self.slopes)
        self.loss_back = _loss_back(risk.loss, risk.train.y, risk.n_outputs, x.dtype)

    @staticmethod
    def numbers(risk: Risk) -> int:
        """Return roughly how many numbers one network needs in memory."""
        widths = [layer.out_features + 1 for layer in risk.parameters.module if isinstance(layer, nn.Linear)]
        return risk.n * sum(widths)

    def _linear(self) -> list[tuple[nn.Linear, bool]]:
        return list(zip(self.layers.linear, self.biased, strict=True))

    def _blocks(self, packed: Tensor) -> list[Tensor]:
        parts = packed.split(self.sizes)
        return [part.view(self.m, *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def pack(self, theta: Float[Tensor, "m p"]) -> Tensor:
        """Return theta as one flat vector, layer after layer."""
        blocks, start = [], 0
        for layer, bias in self._linear():
            size = layer.weight.numel()
            block = theta[:, start : start + size].reshape(self.m, *layer.weight.shape)
            start += size
            if bias:
                block = torch.cat([block, theta[:, start : start + layer.out_features, None]], 2)
                start += layer.out_features
            blocks.append(block.reshape(-1))
        return torch.cat(blocks)

    def unpack(self, packed: Tensor) -> Float[Tensor, "m p"]:
        """Return theta from the flat vector."""
        parts = []
        for block, (layer, bias) in zip(self._blocks(packed), self._linear(), strict=True):
            parts.append(block[:, :, : layer.in_features].flatten(1))
            if bias:
                parts.append(block[:, :, -1])
        return torch.cat(parts, 1)

    def _forward(self, blocks: list[Tensor]) -> list[Tensor]:
        """Return every Z_k; the A_k are stored in ``activations``."""
        first, *later = blocks
        z = [(first.view(-1, first.shape[2]) @ self.columns).view(self.m, -1, self.risk.n)]
        for block, activation, a in zip(later, self.layers.activations, self.activations, strict=True):
            activation.value(z[-1], a[:, : z[-1].shape[1]])
            z.append(torch.bmm(block, a))
        return z

    def gradients(self, packed: Tensor) -> Tensor:
        """Return grad R, network by network, packed; it is overwritten by the next call."""
        blocks = self._blocks(packed)
        z = self._forward(blocks)
        back = self.loss_back(z[-1]).mul_(self.shares)
        for k in range(len(blocks) - 1, 0, -1):
            a, width = self.activations[k - 1], z[k - 1].shape[1]
            torch.bmm(back, a.mT, out=self.slope_blocks[k])
            back = torch.bmm(blocks[k][:, :, :width].mT, back)
            back = self.layers.activations[k - 1].back(back, z[k - 1], a[:, :width])
        torch.mm(back.reshape(-1, self.risk.n), self.x, out=self.slope_blocks[0].view(-1, self.x.shape[1]))
        return self.slopes.add_(packed, alpha=self.risk.l2)

    def values(self, packed: Tensor) -> Float[Tensor, " m"]:
        """Return R [m]."""
        outputs = self._forward(self._blocks(packed))[-1]
        losses = self.risk.loss.value(outputs.mT.contiguous(), self.risk.train.y)
        ridge = self.risk.l2 / 2 * self.unpack(packed).square().sum(1)
        return (self.weights * losses).sum(1) / self.risk.n + ridge


def _loss_back(loss: Loss, y: Tensor, outputs: int, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Return outputs [m, C, n] -> dl/d outputs, a new tensor of the same shape."""
    if loss is CROSS_ENTROPY:
        wanted = one_hot(y, outputs).T.to(dtype)
        return lambda z: z.softmax(1).sub_(wanted)
    return lambda z: loss.gradient(z.mT.contiguous(), y).mT.contiguous()


def stack_networks(risk: Risk, weights: Float[Tensor, "m n"]) -> Stacked:
    """Return the fastest implementation for this risk."""
    layers = layers_of(risk) if risk.head is None else None
    return Stacked(risk, weights) if layers is None else StackedPerceptrons(risk, weights, layers)


def values_per_network(risk: Risk) -> int:
    """Return roughly how many numbers one network of ``stack_networks`` needs in memory."""
    hand_batched = risk.head is None and layers_of(risk) is not None
    return (StackedPerceptrons if hand_batched else Stacked).numbers(risk)
