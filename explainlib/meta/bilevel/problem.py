"""The two levels of one task, g and f of ``Bilevel``, as functions of lam and theta.

``Proximal``: theta is the whole network, centre(lam) = lam, and l does not depend on lam.
``Head``: lam is all but the last layer, theta is that layer, centre = 0.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import grad

from explainlib.datasets import Tasks
from explainlib.gate import admit, require_derivatives
from explainlib.losses import CROSS_ENTROPY, SQUARED_ERROR, Loss, require_targets
from explainlib.meta.bilevel.task_weights import WeightedTask
from explainlib.meta.learner import require_outputs
from explainlib.modules import last_linear, private_copy
from explainlib.params import LinearHead, Parameters

Lam, Theta = Float[Tensor, " q"], Float[Tensor, " p"]


class Problem(ABC):
    """Base class of both inner problems.

    Args:
        strength: of the proximity or ridge of the inner problem, > 0, so that it has one solution near its centre.

    Attributes:
        lam0: the model's own meta-parameters [q].
        theta0: its own task parameters [p].
        linear: the final layer, where outputs are linear in theta: the inner problem is then strictly convex.
        network: the differentiated module: the whole model, or the body below a head.
        loss: l of both levels.
        outer_proximity: whether f has the inner proximity term too (Ren et al., appendix B.8).
        matrix_free: whether an inner problem that is a network is solved by products, without a p x p matrix.
    """

    lam0: Tensor
    theta0: Tensor
    linear: LinearHead | None
    network: Parameters
    loss: Loss = CROSS_ENTROPY
    outer_proximity: bool = False
    matrix_free: bool = False

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def objective_options(self) -> dict[str, object]:
        """Return what differs from cross-entropy on both levels and proximity on the inner one alone."""
        options: dict[str, object] = {} if self.loss is CROSS_ENTROPY else {"loss": self.loss.name}
        return options | ({"outer_proximity": True} if self.outer_proximity else {})

    @property
    def convex(self) -> bool:
        """Whether g is strictly convex in theta: linear outputs and a loss that is known to be convex in them."""
        return self.linear is not None and self.loss in (CROSS_ENTROPY, SQUARED_ERROR)

    def admit(self, x: Tensor) -> int:
        """Check the model on a task's examples; return the number of outputs."""
        return admit(self.parameters, x, name="a task's support")

    def require_tasks(self, tasks: Tasks) -> int:
        """Return the number of outputs, or raise where model, tasks and loss do not fit together."""
        outputs = self.admit(tasks.support_x[0])
        if self.loss is CROSS_ENTROPY:
            require_outputs(tasks.ways, outputs)
        else:
            for part, y in (("support", tasks.support_y), ("query", tasks.query_y)):
                require_targets(self.loss, f"tasks.{part}_y", y.flatten(0, 1), outputs)
        self.inspect(tasks.support_x[0])
        return outputs

    def require_derivatives(self, x: Tensor, routes: Sequence[str]) -> None:
        """Return nothing, once the derivatives of the network in what is learned agree with differences."""
        require_derivatives(self.network, x, routes)

    @abstractmethod
    def inspect(self, x: Tensor) -> None:
        """Determine from examples whether the outputs are linear in theta, through the final layer."""

    @abstractmethod
    def features(self, lam: Lam, x: Tensor) -> Float[Tensor, "n d"]:
        """Return the input of the final layer, with a column of ones for a bias; needs ``linear``."""

    @abstractmethod
    def centre(self, lam: Lam) -> Theta:
        """Return the centre of the proximity term."""

    def outputs(self, lam: Lam, theta: Theta, x: Tensor) -> Float[Tensor, "n C"]:
        """Return the network's logits."""
        return self.features(lam, x) @ self.linear.matrix(theta).T

    def training_losses(self, lam: Lam, theta: Theta, task: WeightedTask) -> Float[Tensor, " s"]:
        """Return l for every training example, unweighted."""
        return self.loss.value(self.outputs(lam, theta, task.support_x), task.support_y)

    def validation_losses(self, lam: Lam, theta: Theta, task: WeightedTask) -> Float[Tensor, " r"]:
        """Return l for every validation example, unweighted."""
        return self.loss.value(self.outputs(lam, theta, task.query_x), task.query_y)

    def inner(self, lam: Lam, theta: Theta, task: WeightedTask) -> Float[Tensor, ""]:
        """Return g."""
        return task.training @ self.training_losses(lam, theta, task) + self._proximity(lam, theta)

    def outer(self, lam: Lam, theta: Theta, task: WeightedTask) -> Float[Tensor, ""]:
        """Return f."""
        loss = task.validation @ self.validation_losses(lam, theta, task)
        return loss + self._proximity(lam, theta) if self.outer_proximity else loss

    def _proximity(self, lam: Lam, theta: Theta) -> Float[Tensor, ""]:
        difference = theta - self.centre(lam)
        return self.strength / 2 * difference @ difference

    def inner_gradient(self, lam: Lam, theta: Theta, task: WeightedTask) -> Theta:
        """Return grad_theta g, in closed form where theta is a linear layer, which saves one derivative."""
        if not self.convex:
            return grad(self.inner, argnums=1)(lam, theta, task)
        phi = self.features(lam, task.support_x)
        errors = self.loss.gradient(phi @ self.linear.matrix(theta).T, task.support_y)
        loss_gradient = self.linear.flat((task.training[:, None] * errors).T @ phi)
        return loss_gradient + self.strength * (theta - self.centre(lam))

    def lagrangian(self, lam: Lam, theta: Theta, adjoint: Theta, task: WeightedTask) -> Float[Tensor, ""]:
        """Return f + adjoint . grad_theta g; at adjoint = -H_in^-1 grad_theta f its gradient in lam is D f."""
        return self.outer(lam, theta, task) + adjoint @ self.inner_gradient(lam, theta, task)


class Proximal(Problem):
    """theta_i = argmin sum l(theta) + strength/2 |theta - lam|^2; theta has the shape of lam.

    Source: Ren et al., section 3.
    """

    def __init__(self, model: nn.Module, strength: float, parameters: str | Sequence[str] = "all") -> None:
        super().__init__(strength)
        self.parameters = self.network = Parameters(model, parameters)
        self.lam0 = self.theta0 = self.parameters.theta
        self.linear, self._inspected = None, False

    def inspect(self, x: Tensor) -> None:
        """Recognise softmax regression: a single linear layer is learned."""
        if not self._inspected:
            self.linear, self._inspected = self.parameters.head(x), True

    def features(self, lam: Lam, x: Tensor) -> Float[Tensor, "n d"]:
        """Return the inputs of the only layer; they do not depend on lam."""
        return self.linear.features(x)

    def outputs(self, lam: Lam, theta: Theta, x: Tensor) -> Float[Tensor, "n C"]:
        """Return the network's logits at theta."""
        return self.parameters.outputs(theta, x) if self.linear is None else super().outputs(lam, theta, x)

    def centre(self, lam: Lam) -> Theta:
        """Return lam."""
        return lam


class Head(Problem):
    """theta_i = argmin sum l(head theta on the features of body lam) + strength/2 |theta|^2, solved to optimality.

    Raises:
        ValueError: a model without a last Linear layer, or with nothing to learn before it.
    """

    def __init__(self, model: nn.Module, strength: float, parameters: str | Sequence[str] = "all") -> None:
        super().__init__(strength)
        self.parameters = Parameters(model, "last")
        body, trainable = without_last_linear(self.parameters.module), self.parameters.trainable
        for name, parameter in body.named_parameters():
            parameter.requires_grad_(name in trainable)
        if not any(parameter.requires_grad for parameter in body.parameters()):
            raise ValueError(
                "inner='head' learns all but the last layer as lam, and this model has nothing before it; add a layer, "
                "or use inner='proximal'."
            )
        if not isinstance(parameters, str):
            parameters = [name for name in parameters if name not in self.parameters.names]
        self.body = self.network = Parameters(body, parameters)
        self.lam0, self.theta0 = self.body.theta, self.parameters.theta
        layer = last_linear(self.parameters.module).layer
        self.linear = LinearHead(self.parameters, layer, layer.bias is not None)
        self._inspected = False

    def admit(self, x: Tensor) -> int:
        """Check the model, and the body by itself."""
        admit(self.body, x, name="a task's support")
        return super().admit(x)

    def inspect(self, x: Tensor) -> None:
        """Check that the last layer's outputs are the model's outputs.

        Raises:
            ValueError: something comes after the last Linear layer, or it is used twice.
        """
        if not self._inspected and self.parameters.head(x) is None:
            raise ValueError(
                "inner='head' needs a model whose last Linear layer gives its outputs; put it last, or use "
                "inner='proximal'."
            )
        self._inspected = True

    def features(self, lam: Lam, x: Tensor) -> Float[Tensor, "n d"]:
        """Return the body's outputs, with a column of ones for a bias."""
        return with_ones(self.body.outputs(lam, x), self.linear)

    def centre(self, lam: Lam) -> Theta:
        """Return zero: the strength is a ridge."""
        return torch.zeros_like(self.theta0)

    def head_at(self, theta: Theta) -> nn.Linear:
        """Return a copy of the last layer with theta in it."""
        layer = copy.deepcopy(self.linear.layer).requires_grad_(True)
        with torch.no_grad():
            for parameter, part in zip(layer.parameters(), self.parameters.named(theta).values(), strict=True):
                parameter.copy_(part)
        return layer


def without_last_linear(model: nn.Module) -> nn.Module:
    """Return a copy of the model without its last Linear layer."""
    found = last_linear(model)
    if found is None:
        raise ValueError("the model has no nn.Linear layer to be the head; use inner='proximal'.")
    if found.name == "":
        return nn.Identity()
    body = private_copy(model)
    body.set_submodule(found.name, nn.Identity())
    return body


def with_ones(phi: Float[Tensor, "n d"], head: LinearHead) -> Float[Tensor, "n e"]:
    """Return features with a column of ones where the head has a bias."""
    return torch.cat([phi, phi.new_ones(len(phi), 1)], dim=1) if head.has_bias else phi
