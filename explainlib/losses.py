"""Per-example losses as functions of the model's outputs, with the derivatives that curvature needs.

Gauss-Newton matrices need the outputs apart from the loss on outputs: G = J^T S J, S the Hessian of
the loss in the outputs. Every method takes outputs [n, C], or [g, n, C] for g parameter vectors on the same examples.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import grad, hessian, jvp
from torch.nn.functional import cross_entropy, softplus

from explainlib.checks import is_integer, require_choice, require_labels, require_shape
from explainlib.derivatives import Constants, DecompositionMode, vmap

LossFunction = Callable[[Tensor, Tensor], Tensor]
Outputs = Float[Tensor, "*g n C"]
Directions = Float[Tensor, "*k n C"]  # k directions for one set of outputs
IGNORED = -100  # the target of a token that has none
CHOOSES_LOSS = ("train.y", "y")  # targets of functions that have a ``loss``


def one_hot(y: Int[Tensor, "*m"], classes: int, like: Tensor) -> Float[Tensor, "*m c"]:
    """Return one-hot rows of labels; works inside ``vmap``, where torch's own does not.

    Args:
        y: labels, 0 to classes - 1.
        classes: columns.
        like: gives the dtype.
    """
    return (y[..., None] == torch.arange(classes, device=y.device)).to(like.dtype)


@dataclass(frozen=True)
class Loss:
    """A loss l(outputs, y) of single examples; as a base class for any differentiable callable.

    ``lost_ranks`` is the number of directions in output space that do not change the loss (softmax: one, the shift).
    """

    name: str
    function: LossFunction
    lost_ranks: int = 0

    def value(self, outputs: Outputs, y: Tensor, *, constants: Constants | None = None) -> Float[Tensor, "*g n"]:
        """Return l for each example; ``constants`` is a tape as in ``DecompositionMode``."""
        labels = y.expand(*outputs.shape[:-2], *y.shape).reshape(-1, *y.shape[1:])
        rows = outputs.reshape(-1, outputs.shape[-1])
        if type(self) is Loss:  # a user's function may write into its arguments
            rows, labels = rows.clone(), labels.clone()
        with DecompositionMode(constants) if type(self) is Loss else nullcontext():
            losses = self.function(rows, labels)
        require_shape("the loss", losses, [len(labels)], meaning="(one per example; pass reduction='none')")
        return losses.view(outputs.shape[:-1])

    def gradient(self, outputs: Outputs, y: Tensor) -> Outputs:
        """Return dl/d outputs."""
        return grad(lambda f: self.value(f, y).sum())(outputs)

    def hessian(self, outputs: Float[Tensor, "n C"], y: Tensor) -> Float[Tensor, "n C C"]:
        """Return d^2 l/d outputs^2, symmetric."""
        return vmap(hessian(lambda f, label: self.value(f[None], label[None])[0]))(outputs, y)

    def hessian_product(self, outputs: Outputs, y: Tensor, u: Directions) -> Directions:
        """Return each example's Hessian in the outputs times its row of u."""
        return jvp(lambda f: self.gradient(f, y), (outputs.expand_as(u).contiguous(),), (u,))[1]

    def third_product(self, outputs: Outputs, y: Tensor, u: Directions) -> Directions:
        """Return l'''[u, u], the third derivative applied twice to u."""
        return jvp(lambda f: self.hessian_product(f, y, u), (outputs.expand_as(u).contiguous(),), (u,))[1]


class CrossEntropy(Loss):
    """l = -log softmax(outputs)_y: gradient s - onehot(y), Hessian diag(s) - s s^T, s the softmax."""

    def gradient(self, outputs: Outputs, y: Tensor) -> Outputs:
        """Return s - onehot(y)."""
        return outputs.softmax(-1) - one_hot(y, outputs.shape[-1], outputs)

    def hessian(self, outputs: Float[Tensor, "n C"], y: Tensor) -> Float[Tensor, "n C C"]:
        """Return diag(s) - s s^T."""
        s = outputs.softmax(-1)
        return torch.diag_embed(s) - s[..., :, None] * s[..., None, :]

    def hessian_product(self, outputs: Outputs, y: Tensor, u: Directions) -> Directions:
        """Return s * (u - <s, u>), the Hessian product without the matrix."""
        s = outputs.softmax(-1)
        return s * (u - (s * u).sum(-1, keepdim=True))

    def drawn(self, outputs: Float[Tensor, "n C"], y: Tensor, uniform: Float[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Return labels drawn from the model by inverting its distribution function at numbers in [0, 1)."""
        return _drawn(outputs, uniform)


class TokenCrossEntropy(Loss):
    """l = -sum_t log softmax(f_t)_{y_t} over the tokens with a target; outputs [n, T V] hold T rows of V logits.

    Targets y [n, T]; -100 has none. The gradient of a token is s - onehot(y), the Hessian has a block a token.
    """

    def gradient(self, outputs: Outputs, y: Tensor) -> Outputs:
        """Return s - onehot(y), zero where there is no target."""
        f, there = _by_tokens(outputs, y)
        return ((f.softmax(-1) - one_hot(y.clamp(min=0), f.shape[-1], f)) * there).flatten(-2)

    def hessian_product(self, outputs: Outputs, y: Tensor, u: Directions) -> Directions:
        """Return s * (u - <s, u>) by tokens."""
        f, there = _by_tokens(outputs, y)
        s, v = f.softmax(-1), u.unflatten(-1, f.shape[-2:])
        return (s * (v - (s * v).sum(-1, keepdim=True)) * there).flatten(-2)

    def drawn(self, outputs: Float[Tensor, "n C"], y: Tensor, uniform: Float[Tensor, "n T"]) -> Int[Tensor, "n T"]:
        """Return tokens drawn from the model; -100 stays."""
        f, _ = _by_tokens(outputs, y)
        return torch.where(y == IGNORED, y, _drawn(f.flatten(0, -2), uniform.flatten()).view(y.shape))


def _by_tokens(outputs: Outputs, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the logits [..., n, T, V] and the mask [n, T, 1] of tokens with a target."""
    return outputs.unflatten(-1, (y.shape[-1], -1)), (y != IGNORED)[..., None].to(outputs.dtype)


def _token_losses(outputs: Float[Tensor, "n C"], y: Int[Tensor, "n T"]) -> Float[Tensor, " n"]:
    f, there = _by_tokens(outputs, y)
    return -(f.log_softmax(-1).gather(-1, y.clamp(min=0)[..., None]) * there).sum((-2, -1))


def _drawn(outputs: Float[Tensor, "m C"], uniform: Float[Tensor, " m"]) -> Int[Tensor, " m"]:
    """Return the class whose part of the distribution function each number in [0, 1) falls into."""
    steps = outputs.double().softmax(-1).cumsum(-1)
    return (steps < uniform[:, None].to(steps) * steps[:, -1:]).sum(-1)


class BinaryCrossEntropy(Loss):
    """l = log(1 + exp f) - y f of one output f: gradient s - y, Hessian s (1 - s), s = sigmoid(f)."""

    def gradient(self, outputs: Outputs, y: Tensor) -> Outputs:
        """Return s - y."""
        return outputs.sigmoid() - y[..., None]

    def hessian(self, outputs: Float[Tensor, "n C"], y: Tensor) -> Float[Tensor, "n C C"]:
        """Return s (1 - s)."""
        return (outputs.sigmoid() * (-outputs).sigmoid())[..., None]

    def hessian_product(self, outputs: Outputs, y: Tensor, u: Directions) -> Directions:
        """Return s (1 - s) u."""
        return outputs.sigmoid() * (-outputs).sigmoid() * u


class SquaredError(Loss):
    """l = sum_c (output_c - y_c)^2, without 1/2: gradient 2 (output - y), Hessian 2 I."""

    def gradient(self, outputs: Outputs, y: Tensor) -> Outputs:
        """Return 2 (outputs - y)."""
        return 2 * (outputs - y)

    def hessian(self, outputs: Float[Tensor, "n C"], y: Tensor) -> Float[Tensor, "n C C"]:
        """Return 2 I for each example."""
        n, c = outputs.shape
        return 2 * torch.eye(c, dtype=outputs.dtype, device=outputs.device).repeat(n, 1, 1)

    def hessian_product(self, outputs: Outputs, y: Tensor, u: Directions) -> Directions:
        """Return 2 u."""
        return 2 * u

    def third_product(self, outputs: Outputs, y: Tensor, u: Directions) -> Directions:
        """Return 0: the third derivative of a square."""
        return torch.zeros_like(u)


CROSS_ENTROPY = CrossEntropy("cross_entropy", lambda f, y: cross_entropy(f, y, reduction="none"), lost_ranks=1)
TOKEN_CROSS_ENTROPY = TokenCrossEntropy("token_cross_entropy", _token_losses, lost_ranks=1)
BINARY_CROSS_ENTROPY = BinaryCrossEntropy("binary_cross_entropy", lambda f, y: softplus(f[:, 0]) - y * f[:, 0])
SQUARED_ERROR = SquaredError("squared_error", lambda f, y: (f - y).square().sum(-1))
NAMED = {each.name: each for each in (CROSS_ENTROPY, TOKEN_CROSS_ENTROPY, BINARY_CROSS_ENTROPY, SQUARED_ERROR)}


def require_loss(loss: str | LossFunction | Loss) -> Loss:
    """Return the ``Loss`` of a name or callable.

    Args:
        loss: "cross_entropy" (y int64 [n]), "token_cross_entropy" (outputs [n, T V], y int64 [n, T], -100 where there
            is no target; the sum over tokens), "binary_cross_entropy" (one output, y int64 [n] of 0 and 1),
            "squared_error" (y float [n, C]), or a callable (outputs, y) -> [n].

    Raises:
        ValueError: an unknown name.
    """
    if isinstance(loss, Loss):
        return loss
    if callable(loss):
        return Loss(getattr(loss, "__name__", "custom"), loss)
    return NAMED[require_choice("loss", loss, tuple(NAMED))]


def require_targets(loss: Loss, name: str, y: Tensor, outputs: int, *, like: Tensor | None = None) -> Tensor:
    """Return ``y`` if it fits this loss and ``outputs`` outputs an example.

    Args:
        loss: targets of a callable are not checked.
        name: the argument's name, for the message.
        y: labels [n] or targets [n, outputs].
        outputs: number of outputs of the model.
        like: targets of the training set; those of tokens are as many in y.

    Raises:
        TypeError: labels that are not int64 [n] for the cross-entropies, or whole numbers for squared_error.
        ValueError: a label outside the outputs, several outputs for binary_cross_entropy, or targets that are not [n,
            outputs] for squared_error.
    """
    if loss is CROSS_ENTROPY:
        if not is_integer(y) and name in CHOOSES_LOSS:
            raise TypeError(
                f"{name} has dtype {y.dtype} and holds numbers that are not whole, and cross_entropy needs int64 [n] "
                "class labels; for regression pass loss='squared_error'."
            )
        if outputs == 1 and y.dtype == torch.int64 and y.ndim == 1 and bool((y == 1).any()):
            raise ValueError(
                f"{name} has labels up to {int(y.max())}, and the model has one output, for which cross_entropy is "
                "always 0; pass loss='binary_cross_entropy' for labels 0 and 1, or a model with an output a class."
            )
        if y.dtype == torch.int64 and y.ndim == 2:
            raise TypeError(
                f"{name} has shape {list(y.shape)}, a label a token; pass loss='token_cross_entropy' and a model whose "
                "outputs are [n, tokens x classes], such as xl.models.adapted(model, outputs=...)."
            )
        require_labels(name, y, outputs)
    if loss is TOKEN_CROSS_ENTROPY:
        _require_tokens(name, y, outputs)
        if like is not None:
            require_shape(name, y, [None, like.shape[1]], meaning="(as many tokens as in the training set)")
    if loss is BINARY_CROSS_ENTROPY:
        if outputs != 1:
            raise ValueError(
                f"binary_cross_entropy is of one output, and the model has {outputs}; pass loss='cross_entropy'."
            )
        require_labels(name, y, 2)
    if loss is SQUARED_ERROR:
        kind = "" if y.is_floating_point() else ".to(x.dtype)"
        if y.ndim == 1 and outputs > 1 and kind:
            form = f"torch.nn.functional.one_hot({name}, {outputs}){kind} for classes"
        else:
            form = name + kind + "[:, None]" * (y.ndim == 1)
        if kind:
            raise TypeError(
                f"{name} has dtype {y.dtype}; squared_error needs floating point targets [n, {outputs}]; pass {form}."
            )
        meaning = "(the outputs' shape)" + (f"; pass {form}" if y.ndim == 1 == outputs else "")
        require_shape(name, y, [len(y), outputs], meaning=meaning)
    return y


def _require_tokens(name: str, y: Tensor, outputs: int) -> None:
    """Raise unless y holds a label or -100 for each token, at least one label an example."""
    if y.dtype != torch.int64 or y.ndim != 2:
        raise TypeError(
            f"{name} has dtype {y.dtype} and shape {list(y.shape)}, expected int64 [n, tokens] with -100 where "
            "there is no target; for a label an example pass loss='cross_entropy'."
        )
    if outputs % y.shape[1]:
        raise ValueError(
            f"the model has {outputs} outputs an example, which are not {y.shape[1]} tokens of as many classes; "
            "flatten logits [n, tokens, classes] to [n, tokens x classes]."
        )
    there = y != IGNORED
    if not there.any(1).all():
        empty = int((~there.any(1)).nonzero()[0])
        raise ValueError(f"{name} has no target in example {empty}: every token is {IGNORED}; leave that example out.")
    require_labels(name, y[there], outputs // y.shape[1])
