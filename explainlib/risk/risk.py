"""The training objective, and the only home of 1/n, of the ridge and of the weights.

    R(theta) = 1/n sum_i w_i l(f(theta, x_i), y_i) + l2/2 |theta|^2,      w_i = 1 unless reweighted.

The sum runs over the n training examples, the ridge over the chosen parameters, biases too. Influence is what a
little extra weight on one example does to the minimum of R (Koh & Liang 2017, section 2).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import grad

from explainlib import compute
from explainlib.checks import (
    require_finite,
    require_nonnegative,
    require_same_kind,
    require_shape,
    require_tensor,
    warn_caller,
)
from explainlib.datasets import Examples
from explainlib.derivatives import vmap
from explainlib.gate import GRADIENT, admit_objective, require_derivatives, require_loss_derivatives
from explainlib.gate.entry import few_examples
from explainlib.losses import Loss, LossFunction, require_loss, require_targets
from explainlib.memory import require_numbers
from explainlib.models.bayes_layers import require_certain_weights
from explainlib.params import LinearHead, Parameters, require_finite_parameters

T = TypeVar("T")
PART = 8192  # examples in one pass; bounds the memory of activations


class NotAtMinimumWarning(UserWarning):
    """The gradient is not zero where a formula assumes a minimum."""


class Risk:
    """The objective R at one parameter vector; immutable: ``at`` and ``reweighted`` return new risks.

    Args:
        model: any ``nn.Module`` that maps x [n, ...] to outputs [n, C], each example independently. It is copied.
        train: the n training examples, on the parameters' device and in their dtype.
        loss: "cross_entropy", "binary_cross_entropy", "squared_error" (sum, no 1/2) or a callable (outputs, y) -> [n].
        l2: ridge strength >= 0, inside every Hessian and never inside a per-example gradient.
        parameters: "all", "last" (the last Linear layer), or a list of names.

    Raises:
        TypeError, ValueError: a model in training mode, a Bayesian one (see ``training.ElboRisk``), a wrong dtype,
            device, shape or label, NaN; before any work.

    Example: least squares with x = 1, 2 and y = 2, 2 at theta = 1 has gradient -2 (1 (2 - 1) + 2 (2 - 2)) / 2 = -1.

        >>> model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
        >>> train = Examples(torch.tensor([[1.0], [2.0]]).double(), torch.tensor([[2.0], [2.0]]).double())
        >>> Risk(model, train, loss="squared_error").at(torch.tensor([1.0], dtype=torch.float64)).gradient().item()
        -1.0
    """

    def __init__(
        self,
        model: nn.Module,
        train: Examples,
        *,
        loss: str | LossFunction | Loss = "cross_entropy",
        l2: float = 0.0,
        parameters: str | Sequence[str] = "all",
    ) -> None:
        if not isinstance(train, Examples):
            raise TypeError(f"train is a {type(train).__name__}; pass xl.datasets.Examples(x, y).")
        require_certain_weights(model)
        self.loss = require_loss(loss)
        self.l2 = require_nonnegative("l2", float(l2))
        with compute.settings():
            self.train = train.outside_inference_mode()
            self.parameters = Parameters(model, parameters, x=self.train.x)
            self.theta: Float[Tensor, " p"] = require_finite_parameters(self.parameters.theta)
            require_same_kind("train.x", train.x, "model", self.theta)
            self.n_outputs = admit_objective(self.parameters, self.train.x, self.train.y, self.loss)
            self.head: LinearHead | None = self.parameters.head(self.train.x)
        self.weights: Float[Tensor, " n"] | None = None
        self._require_labels("train", self.train)
        self._features: dict[int, Tensor] = {}
        self._memory: dict[object, object] = {}

    @property
    def n(self) -> int:
        """The number of training examples."""
        return len(self.train)

    @property
    def p(self) -> int:
        """The number of chosen parameters."""
        return self.theta.numel()

    @property
    def model(self) -> nn.Module:
        """A copy of the model with theta in it."""
        return self.parameters.model_at(self.theta)

    def __repr__(self) -> str:
        return f"Risk({self.loss.name}, n={self.n}, p={self.p}, l2={self.l2:g})"

    def at(self, theta: Float[Tensor, " p"], *, buffers: Mapping[str, Tensor] | None = None) -> Risk:
        """Return the same risk at another parameter vector.

        Args:
            theta: the chosen parameters, flattened.
            buffers: the model's buffers there (``trajectory.buffers[c]``); None keeps those of this risk.
        """
        require_shape("theta", require_tensor("theta", theta), [self.p], meaning="(the chosen parameters, flattened)")
        require_same_kind("theta", theta, "the risk", self.theta)
        other = self._copy()
        other.theta = require_finite("theta", theta.detach().clone())  # the caller may change theirs
        if buffers is not None:
            other.parameters = self.parameters.with_buffers(buffers)
            with compute.settings():
                other.head, other._features = other.parameters.head(self.train.x), {}
        return other

    def reweighted(self, weights: Float[Tensor, " n"]) -> Risk:
        """Return the same risk with per-example weights, 1 = as is, 0 = removed; n in 1/n stays.

        Raises:
            ValueError: a wrong length, NaN, or weights that are all zero.
        """
        require_shape("weights", require_tensor("weights", weights), [self.n], meaning="(one per training example)")
        weights = require_finite("weights", weights.detach().to(self.theta, copy=True))
        if not (weights != 0).any():
            raise ValueError("weights are all zero; leave at least one example, or there is nothing to train on.")
        other = self._copy()
        other.weights = weights
        return other

    def subset(self, indices: Sequence[int] | Int[Tensor, " k"]) -> Risk:
        """Return the same risk on some of its training examples; 1/n becomes 1 over their number."""
        chosen = torch.as_tensor(indices)  # on either device: from the CPU they index without a wait
        other = self._copy()
        other.train = self.train[chosen]
        other.weights = None if self.weights is None else self.weights[chosen]
        other._features = {0: self.features()[chosen]} if self.head is not None else {}
        return other

    def cached(self, key: object, make: Callable[[], T]) -> T:
        """Return ``make()``, cached with this object; only for results much smaller than the training set."""
        if key not in self._memory:
            self._memory[key] = make()
        return self._memory[key]

    def cached_or_none(self, key: object) -> object | None:
        """Return the cached result of a key, or None."""
        return self._memory.get(key)

    def _copy(self) -> Risk:
        other = copy.copy(self)
        other._memory = {}
        return other

    @compute.entry
    def value(self) -> Float[Tensor, ""]:
        """Return R(theta), in units of the loss."""
        total = sum(objective(self.theta) for objective in self.objectives())
        return total / self.n + self.l2 / 2 * self.theta.square().sum()

    @compute.entry
    def gradient(self) -> Float[Tensor, " p"]:
        """Return grad R(theta) [p], ridge included."""
        self.require_derivatives(GRADIENT)
        total = sum(grad(objective)(self.theta) for objective in self.objectives())
        return total / self.n + self.l2 * self.theta

    @compute.entry
    def losses(self, examples: Examples | None = None) -> Float[Tensor, " n"]:
        """Return l_i [n] without ridge and weights, on the training examples or on others.

        Raises:
            TypeError, ValueError: examples of another shape, dtype, device or class count.
        """
        return self.loss.value(self.outputs(examples), self.require_examples(examples).y)

    @compute.entry
    def outputs(self, examples: Examples | None = None) -> Float[Tensor, "n C"]:
        """Return the model's outputs (for classes: logits) [n, C]."""
        x = self.require_examples(examples).x
        with torch.no_grad():
            return torch.cat([self.parameters.outputs(self.theta, part) for part in x.split(PART)])

    @compute.entry
    def loss_gradients(self, examples: Examples | None = None) -> Float[Tensor, "n p"]:
        """Return grad l_i [n, p], no ridge, in one batched pass.

        A trained final layer alone has the closed form dl/df x features; any other choice is vmap(grad).
        """
        examples = self.require_examples(examples)
        what = f"{len(examples):,} gradients of p = {self.p:,} parameters"
        require_numbers(what, 2 * len(examples) * self.p, self.theta, otherwise="see xl.layerwise.gradients")
        self.require_derivatives(GRADIENT)
        if self.head is not None:
            derivative = self.loss.gradient(self.outputs(examples), examples.y)
            return self.head.flat(derivative[:, :, None] * self.features(examples)[:, None, :])
        one, c = vmap(grad(self._loss_of_one), in_dims=(None, 0, 0)), self._gradient_chunk()
        return torch.cat([one(self.theta, x, y) for x, y in zip(examples.x.split(c), examples.y.split(c), strict=True)])

    def features(self, examples: Examples | None = None) -> Float[Tensor, "n d"]:
        """Return the inputs of the trained final layer, with a column of ones for its bias; needs ``head``."""
        if examples is not None and examples is not self.train:
            return self.head.features(examples.x)
        if 0 not in self._features:  # the layers below are frozen, so every copy of this risk shares them
            self._features[0] = self.head.features(self.train.x)
        return self._features[0]

    def objectives(self) -> Iterator[Callable[[Float[Tensor, " p"]], Float[Tensor, ""]]]:
        """Yield functions of theta whose sum is sum_i w_i l_i, one per part of the training set."""
        for outputs, y, weights in self.parts():

            def objective(theta: Tensor, outputs=outputs, y=y, weights=weights) -> Tensor:
                losses = self.loss.value(outputs(theta), y)
                return losses.sum() if weights is None else (weights * losses).sum()

            yield objective

    def parts(self) -> Iterator[tuple[Callable[[Tensor], Tensor], Tensor, Tensor | None]]:
        """Yield (outputs as a function of theta, y, weights or None) for parts of the training set."""
        size = PART if self.n <= PART else PART // 2  # of several parts, two may be in memory at once
        for start in range(0, self.n, size):
            part = slice(start, start + size)
            x, weights = self.train.x[part], None if self.weights is None else self.weights[part]
            yield (lambda theta, x=x: self.parameters.outputs(theta, x)), self.train.y[part], weights

    def weighted_value(self, theta: Float[Tensor, " p"], weights: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        """Return R at another theta under other weights, differentiable in both."""
        losses = torch.cat([self.loss.value(outputs(theta), y) for outputs, y, _ in self.parts()])
        total = (weights * losses).sum()
        return total / self.n + self.l2 / 2 * theta.square().sum()

    def weights_or_ones(self) -> Float[Tensor, " n"]:
        """Return the per-example weights [n], ones when none were given."""
        return self.theta.new_ones(self.n) if self.weights is None else self.weights

    def require_examples(self, examples: Examples | None, name: str = "examples") -> Examples:
        """Return ``examples`` (None: the training set) if they fit this risk."""
        if examples is None or examples is self.train:
            return self.train
        if not isinstance(examples, Examples):
            raise TypeError(f"{name} is a {type(examples).__name__}; pass xl.datasets.Examples(x, y).")
        require_shape(f"{name}.x", examples.x, [None, *self.train.x.shape[1:]], meaning="like the training set's")
        require_same_kind(f"{name}.x", examples.x, "the risk", self.theta)
        own, others = (None if e.classes is None else len(e.classes) for e in (self.train, examples))
        if None not in (own, others) and own != others:
            raise ValueError(
                f"{name} has {others} classes, the training set {own}; explain a model on data of its own classes."
            )
        self._require_labels(name, examples)
        return examples

    def _require_labels(self, name: str, examples: Examples) -> None:
        require_same_kind(f"{name}.y", examples.y, "the risk", self.theta)
        require_targets(self.loss, f"{name}.y", examples.y, self.n_outputs, like=self.train.y)

    def require_derivatives(self, *routes: str, of_loss: Sequence[str] | None = None) -> None:
        """Return nothing, once derivatives of model and loss agree with finite differences; see ``explainlib.gate``.

        Args:
            routes: of ``explainlib.gate.routes.ROUTES``, those that the caller is about to take.
            of_loss: of the loss in the outputs; None is the same.

        Raises:
            ValueError: a derivative that is wrong or missing, with the layer or the loss that causes it.
        """
        if self.head is None:
            require_derivatives(self.parameters, self.train.x, routes)
        of_loss = routes if of_loss is None else of_loss
        outputs = lambda: self.parameters.outputs(self.theta, few_examples(self.train.x))  # noqa: E731
        require_loss_derivatives(self.loss, outputs, self.train.y, of_loss, n_outputs=self.n_outputs)

    def _loss_of_one(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return self.loss.value(self.parameters.outputs(theta, x[None]), y[None])[0]

    def _gradient_chunk(self) -> int:
        return max(16, 2**26 // max(self.p, self.train.x[0].numel() * 64))


def minimum_tolerance(risk: Risk) -> float:
    """Return the gradient norm up to which a risk counts as minimised: 1e-6 in float64, 1e-4 in float32."""
    return 1e-6 if risk.theta.dtype == torch.float64 else 1e-4


def require_minimum(risk: Risk, *, strict: bool = False, user: str = "this formula") -> float:
    """Return |grad R|; warn, or with ``strict`` raise, when it is too large for a minimum.

    Too large is above ``minimum_tolerance``: removing one example of hundreds moves the gradient by far more, so below
    that the error of the formula dominates.

    Args:
        risk: judged at its theta, ridge and weights included.
        strict: raise instead of warning.
        user: the quantity that assumes a minimum, for the message.

    Raises:
        ValueError: not at a minimum and ``strict``.
    """
    size = float(risk.gradient().norm())
    if not size <= minimum_tolerance(risk):
        message = (
            f"|gradient| = {size:.2e}: the risk is not at a minimum, which {user} assumes; "
            "pass xl.training.minimise(risk), or read the result as a rough ranking."
        )
        if strict:
            raise ValueError(message)
        warn_caller(message, NotAtMinimumWarning)
    return size
