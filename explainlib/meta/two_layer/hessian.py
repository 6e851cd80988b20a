"""The exact Hessian of one-step MAML for networks of two layers, many times faster than by automatic differentiation.

What makes it fast is that hidden units meet only in the logits; the formula stands in ``two_layer.terms``, what one
unit contributes in ``two_layer.units``. Here are the network's description and the function itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from explainlib import compute
from explainlib.checks import (
    require_count,
    require_finite,
    require_labels,
    require_nonnegative,
    require_same_kind,
    require_shape,
)
from explainlib.meta.two_layer.terms import HessianTotal, terms
from explainlib.meta.two_layer.units import Elementwise, Network, UnitParameters, contrasts

MEMORY = 2**27  # bytes of the work array: large enough for efficient products, small enough for the cache


@dataclass(frozen=True)
class TwoLayer:
    """A network x -> Linear(features, hidden) [-> BatchNorm1d] -> activation -> Linear(hidden, classes).

    Its flat vector w [q] is first weight [hidden, features], first bias, BatchNorm's scale and shift if there is one,
    second weight [classes, hidden], second bias, each row-major. BatchNorm uses the statistics of its batch: the
    support's in the support loss, the query's in the query loss.

    Args:
        features: d, at least 1.
        hidden: u, at least 1.
        classes: C, at least 2.
        activation: elementwise, differentiable under ``torch.func.jvp`` three times over. At a kink the derivative is
            autograd's (a ReLU's second derivative is 0).
        eps: BatchNorm's; None if there is no BatchNorm.

    Example:
        >>> TwoLayer(32, 32, 5, torch.relu, eps=1e-5).q
        1285
    """

    features: int
    hidden: int
    classes: int
    activation: Elementwise
    eps: float | None = None

    @property
    def q(self) -> int:
        """The number of parameters."""
        return self.hidden * (self.features + (1 if self.eps is None else 3) + self.classes) + self.classes

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Lengths in w: first weight, the hidden units' vectors (bias; scale, shift), second weight and bias."""
        vectors = self.hidden * (1 if self.eps is None else 3)
        return self.hidden * self.features, vectors, self.classes * self.hidden, self.classes

    def units(self, w: Float[Tensor, "*rows q"], u: Float[Tensor, "C c"]) -> UnitParameters:
        """Return w (or each row of a matrix) ordered by hidden unit, its second layer in contrasts.

        Directions that do not change the loss are dropped: the softmax shift, and the bias before a BatchNorm.
        """
        first, vectors, second, bias = w.split(self.sizes, dim=-1)
        first = first.unflatten(-1, (self.hidden, self.features))
        vectors = vectors.unflatten(-1, (-1, self.hidden)).mT
        vectors_used = vectors if self.eps is None else vectors[..., 1:]
        second = second.unflatten(-1, (self.classes, self.hidden))
        return UnitParameters(torch.cat([first, vectors_used], dim=-1), u.T @ second, bias @ u)

    def flat(self, units: Float[Tensor, "rows p"], u: Float[Tensor, "C c"]) -> Float[Tensor, "rows q"]:
        """Return rows ordered by hidden unit, as the Hessian's are, in the order of w; what was dropped is zero."""
        c = u.shape[1]
        by_unit, bias = units[:, :-c].unflatten(1, (self.hidden, -1)), units[:, -c:]
        vectors = by_unit[..., self.features : -c].mT
        if self.eps is not None:
            vectors = torch.cat([torch.zeros_like(vectors[:, :1]), vectors], dim=1)
        second = u @ by_unit[..., -c:].mT
        parts = by_unit[..., : self.features], vectors, second
        return torch.cat([*(part.flatten(1) for part in parts), bias @ u.T], dim=1)


ACTIVATIONS: dict[type[nn.Module], Callable[[nn.Module], Elementwise]] = {
    nn.Identity: lambda layer: torch.clone,
    nn.ReLU: lambda layer: torch.relu,
    nn.LeakyReLU: lambda layer: partial(F.leaky_relu, negative_slope=layer.negative_slope),
    nn.Tanh: lambda layer: torch.tanh,
    nn.Sigmoid: lambda layer: torch.sigmoid,
    nn.SiLU: lambda layer: F.silu,
    nn.GELU: lambda layer: partial(F.gelu, approximate=layer.approximate),
    nn.SELU: lambda layer: F.selu,
    nn.ELU: lambda layer: partial(F.elu, alpha=layer.alpha),
    nn.Softplus: lambda layer: partial(F.softplus, beta=layer.beta, threshold=layer.threshold),
}


def as_two_layer(module: nn.Module) -> TwoLayer | None:
    """Return the description of a module that is a two-layer network and nothing else, or None.

    Accepted: an ``nn.Sequential``, perhaps of others, of an optional ``nn.Flatten``, a linear layer, an optional affine
    ``nn.BatchNorm1d``, a known activation and a linear layer; biases present, every parameter trainable and used once.
    Subclasses and layers with hooks are not accepted. BatchNorm is described with batch statistics, in
    either mode of the module.
    """
    layers = list(_stages(module))
    if any(layer is None for layer in layers):
        return None
    if layers and type(layers[0]) is nn.Flatten and (layers[0].start_dim, layers[0].end_dim) == (1, -1):
        layers = layers[1:]
    norm = layers.pop(1) if len(layers) == 4 and type(layers[1]) is nn.BatchNorm1d else None
    if len(layers) != 3 or type(layers[1]) not in ACTIVATIONS:
        return None
    first, activation, second = layers
    if type(first) is not nn.Linear or type(second) is not nn.Linear or first.out_features != second.in_features:
        return None
    if norm is not None and (not norm.affine or norm.num_features != first.out_features):
        return None
    found = TwoLayer(
        first.in_features,
        first.out_features,
        second.out_features,
        ACTIVATIONS[type(activation)](activation),
        None if norm is None else norm.eps,
    )
    parameters = list(module.parameters())
    whole = sum(p.numel() for p in parameters) == found.q and all(p.requires_grad for p in parameters)
    return found if whole and found.classes > 1 else None


def _stages(module: nn.Module) -> Iterator[nn.Module | None]:
    """Yield the layers of nested plain Sequentials in order, None for a layer with hooks or a replaced forward."""
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or "forward" in vars(module):
        yield None
    elif type(module) is nn.Sequential:
        for child in module:
            yield from _stages(child)
    else:
        yield module


def two_layer_hessians(
    net: TwoLayer,
    w: Float[Tensor, " q"],
    support_x: Float[Tensor, "M s ..."],
    support_y: Int[Tensor, "M s"],
    query_x: Float[Tensor, "M r ..."],
    query_y: Int[Tensor, "M r"],
    *,
    inner_lr: float,
    weights: Float[Tensor, " M"] | None = None,
    memory: int = MEMORY,
) -> Float[Tensor, "q q"]:
    """Return sum_i weights_i grad^2 L_i(w), the exact Hessian of one-step second-order MAML; by default the mean.

    Args:
        net: from ``as_two_layer``.
        w: the meta-parameters, in the order of ``named_parameters()``.
        support_x: inputs of any shape with ``net.features`` numbers each; one batch for BatchNorm.
        support_y: labels 0 to C - 1.
        query_x: likewise.
        query_y: likewise.
        inner_lr: a, the length of the inner step; 0 gives the query loss's own Hessian.
        weights: one factor a task, of any sign; None is 1/M each, and all ones give the sum.
        memory: bytes of the work array, which is about half of all that is in use; as many tasks are taken at a time
            as fit, one at least.

    Returns:
        H [q, q], exactly symmetric, in the loss's unit per squared parameter. Its null space contains, up to rounding,
        the softmax shift (hidden units + 1 directions) and the biases before BatchNorm.
        Cost: about (s + r + C) q^2 multiplications a task, and as much time again in smaller products.

    Raises:
        TypeError: labels that are not int64, or dtypes that differ.
        ValueError: shapes that do not belong together, labels outside the classes, NaN, a negative or infinite
            ``inner_lr``, or BatchNorm on a batch of one.

    Source: TLXML eq. (5).

    Example: without an inner step this is the query's Hessian. At w = 0 both classes are equally likely, and the output
    biases have the curvature of the softmax.

        >>> net = TwoLayer(2, 3, 2, torch.tanh)
        >>> x, y = torch.eye(2, dtype=torch.float64)[None], torch.tensor([[0, 1]])
        >>> h = two_layer_hessians(net, torch.zeros(net.q).double(), x, y, x, y, inner_lr=0.0)
        >>> h[-2:, -2:].round(decimals=9).tolist()
        [[0.25, -0.25], [-0.25, 0.25]]
    """
    support_x, query_x = _checked(net, w, support_x, support_y, query_x, query_y)
    inner_lr, weights = _settings(w, len(support_y), inner_lr, weights, memory)
    m, s, r, c = *support_y.shape, query_y.shape[1], net.classes - 1
    with compute.settings(m * (s + r) * c * net.q):
        u = contrasts(net.classes, w)
        units = UnitParameters(*(part[None] for part in net.units(w.detach(), u)))
        size = units.x.shape[-1] + c
        row = net.hidden * (net.hidden * size + c) * w.element_size()
        step = min(m, max(1, memory // ((s + r + c) * row)))
        total = HessianTotal(net.hidden, size, c, step * (s + r + c), w)
        network = Network(u, net.activation, net.eps)
        for rows in torch.arange(m, device=w.device).split(step):
            support, query = (support_x[rows], support_y[rows]), (query_x[rows], query_y[rows])
            total.add(terms(network, units, support, query, weights[rows], inner_lr))
        h = net.flat(net.flat(total.matrix(), u).T.contiguous(), u)
        return (h + h.T) / 2


def _checked(
    net: TwoLayer, w: Tensor, support_x: Tensor, support_y: Tensor, query_x: Tensor, query_y: Tensor
) -> tuple[Tensor, Tensor]:
    """Return both inputs as [M, n, d], or raise."""
    require_shape("w", w, [net.q], meaning=f"({net.hidden} hidden units)")
    require_finite("w", w)
    flat = []
    for name, x, y in (("support", support_x, support_y), ("query", query_x, query_y)):
        require_same_kind(f"{name}_x", x, "w", w)
        if len(support_y) == 0 or y.numel() == 0 or y.ndim != 2 or x.shape[:2] != y.shape or len(y) != len(support_y):
            raise ValueError(
                f"{name}_x has shape {list(x.shape)}, {name}_y {list(y.shape)}; pass [M, n, ...] and [M, n] with one "
                f"M for support and query (support_y has {len(support_y)}) and at least one example."
            )
        require_labels(f"{name}_y", y.flatten(), net.classes)
        if net.eps is not None and y.shape[1] < 2:
            raise ValueError(f"{name} has one example a task, and BatchNorm cannot normalise one; pass at least two.")
        wide = require_finite(f"{name}_x", x).flatten(2) if x.ndim > 2 else x[..., None]
        flat.append(require_shape(f"{name}_x", wide, [None, None, net.features], meaning="(flattened)"))
    return flat[0], flat[1]


def _settings(
    w: Tensor, m: int, inner_lr: float, weights: Tensor | None, memory: int
) -> tuple[float, Float[Tensor, " M"]]:
    """Return the inner step and one weight a task, or raise."""
    require_count("memory", memory)
    if not require_nonnegative("inner_lr", inner_lr) < float("inf"):
        raise ValueError(f"inner_lr={inner_lr} has to be finite.")
    if weights is None:
        return inner_lr, w.new_full((m,), 1 / m)
    require_same_kind("weights", weights, "w", w)
    return inner_lr, require_finite("weights", require_shape("weights", weights, [m], meaning="(one a task)"))
