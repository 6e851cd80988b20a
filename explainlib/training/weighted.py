"""Many weightings of one risk in one batch: values, gradients and Hessian products of g rows.

R_g(theta) = 1/n sum_i w_gi l_i(theta) + l2/2 |theta|^2        weights [g, n], theta [g, p]
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, jvp, vjp

from explainlib.derivatives import vmap
from explainlib.gate import FORWARD_HESSIAN, GRADIENT, HESSIAN, THIRD
from explainlib.risk import Risk

Rows = Float[Tensor, "g p"]


class WeightedRisks:
    """g weighted copies of a risk, for any differentiable model.

    Args:
        risk: the objective whose weights are replaced.
        weights: [g, n].
    """

    def __init__(self, risk: Risk, weights: Float[Tensor, "g n"]) -> None:
        self.risk, self.weights = risk, weights

    def __getitem__(self, rows: Tensor) -> WeightedRisks:
        """Return the chosen rows."""
        return type(self)(self.risk, self.weights[rows])

    def _one(self, theta: Tensor, weights: Tensor) -> Tensor:
        return self.risk.weighted_value(theta, weights)

    def values(self, theta: Rows) -> Float[Tensor, " g"]:
        """Return R_g [g]."""
        with torch.no_grad():
            return vmap(self._one)(theta, self.weights)

    def gradients(self, theta: Rows) -> Rows:
        """Return grad R_g [g, p]."""
        self.risk.require_derivatives(GRADIENT)
        return vmap(grad(self._one))(theta, self.weights)

    def operator(self, theta: Rows) -> Callable[[Rows], Rows]:
        """Return v -> H_g v, row by row, H_g the Hessian of R_g at its own theta."""
        self.risk.require_derivatives(GRADIENT, HESSIAN)
        pull = vjp(lambda rows: vmap(grad(self._one))(rows, self.weights), theta)[1]
        return lambda v: pull(v)[0]

    def third_products(self, theta: Rows, v: Rows) -> Rows:
        """Return R_g'''[v, v], row by row: the third derivative applied twice to v."""
        self.risk.require_derivatives(FORWARD_HESSIAN, THIRD)

        def along(theta: Tensor, weights: Tensor, v: Tensor) -> Tensor:
            curvature = lambda at: jvp(grad(lambda t: self._one(t, weights)), (at,), (v,))[1]  # noqa: E731
            return jvp(curvature, (theta,), (v,))[1]

        return vmap(along)(theta, self.weights, v)


class WeightedHeads(WeightedRisks):
    """``WeightedRisks`` where only a final linear layer is trained: matrix products on shared features."""

    def _outputs(self, theta: Rows) -> Float[Tensor, "g n C"]:
        if len(theta) > 1 and theta.stride(0) == 0:  # one parameter vector, expanded: its outputs once
            return self._outputs(theta[:1]).expand(len(theta), -1, -1)
        matrix = self.risk.head.matrix(theta)  # [g, C, d]
        together = self.risk.features() @ matrix.flatten(0, 1).T  # one product for all rows
        return together.unflatten(1, matrix.shape[:2]).movedim(1, 0).contiguous()

    def _back(self, u: Float[Tensor, "g n C"]) -> Rows:
        together = self.risk.features().T @ u.movedim(0, 1).flatten(1)
        return self.risk.head.flat(together.T.unflatten(0, (len(u), u.shape[-1]))) / self.risk.n

    def values(self, theta: Rows) -> Float[Tensor, " g"]:
        """Return R_g [g]."""
        losses = self.risk.loss.value(self._outputs(theta), self.risk.train.y)
        return (self.weights * losses).sum(1) / self.risk.n + self.risk.l2 / 2 * theta.square().sum(1)

    def gradients(self, theta: Rows) -> Rows:
        """Return grad R_g [g, p]."""
        u = self.risk.loss.gradient(self._outputs(theta), self.risk.train.y)
        return self._back(u * self.weights[..., None]) + self.risk.l2 * theta

    def operator(self, theta: Rows) -> Callable[[Rows], Rows]:
        """Return v -> H_g v, row by row."""
        self.risk.require_derivatives(FORWARD_HESSIAN)
        outputs = self._outputs(theta)

        def product(v: Rows) -> Rows:
            u = self.risk.loss.hessian_product(outputs, self.risk.train.y, self._outputs(v))
            return self._back(u * self.weights[..., None]) + self.risk.l2 * v

        return product

    def third_products(self, theta: Rows, v: Rows) -> Rows:
        """Return R_g'''[v, v], row by row."""
        self.risk.require_derivatives(THIRD)
        u = self.risk.loss.third_product(self._outputs(theta), self.risk.train.y, self._outputs(v))
        return self._back(u * self.weights[..., None])


def weighted_risks(risk: Risk, weights: Float[Tensor, "g n"]) -> WeightedRisks:
    """Return the fastest implementation for this risk."""
    return (WeightedRisks if risk.head is None else WeightedHeads)(risk, weights)
