"""The rows G and A of the group quadratic, one an example, as products and weighted sums that never form them.

    G_i = grad l_i + l2 theta,        A_i = (grad^2 l_i + (l2 + damping) I) v

With Gauss-Newton J_i^T S_i J_i takes the place of grad^2 l_i; for a trained final layer alone they are equal.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, jvp, vjp

from explainlib.derivatives import vmap
from explainlib.gate import FORWARD, FORWARD_HESSIAN, GRADIENT
from explainlib.risk import Risk

ROWS = 128  # vectors in one pass
Rows = Float[Tensor, "s p"]
Weights = Float[Tensor, "s n"]


class HeadFactors:
    """The rows G and A where only a final linear layer is trained: outer products with shared features.

    Args:
        risk: with a recognised ``head``.
        v: [p].
        damping: added to the ridge in A, not in G.
    """

    def __init__(self, risk: Risk, v: Float[Tensor, " p"], damping: float = 0.0) -> None:
        self.risk, self.v, self.shift = risk, v, risk.l2 + damping
        outputs, y = risk.outputs(), risk.train.y
        self.slope = risk.loss.gradient(outputs, y)  # [n, C], grad l_i = slope_i x features_i
        self.curvature = risk.loss.hessian_product(outputs, y, risk.features() @ risk.head.matrix(v).T)

    def weighted_sums(self, w: Weights) -> tuple[Rows, Rows]:
        """Return G^T w and A^T w."""
        features, flat = self.risk.features(), self.risk.head.flat
        gradient_sum, curvature_sum = (
            flat((w[:, :, None] * side).mT @ features) for side in (self.slope, self.curvature)
        )
        total_weight = w.sum(1, keepdim=True)
        return (
            gradient_sum + self.risk.l2 * total_weight * self.risk.theta,
            curvature_sum + self.shift * total_weight * self.v,
        )

    def products(self, z: Rows, u: Rows) -> tuple[Weights, Weights]:
        """Return G z and A u, row by row."""
        features, matrix = self.risk.features(), self.risk.head.matrix
        both = (((features @ matrix(r).mT) * side).sum(-1) for r, side in ((z, self.slope), (u, self.curvature)))
        from_gradients, from_curvature = both
        l2 = self.risk.l2
        return from_gradients + l2 * (z @ self.risk.theta)[:, None], from_curvature + self.shift * (u @ self.v)[:, None]

    def rows(self) -> Float[Tensor, "n p"]:
        """Return A."""
        outer = self.curvature[:, :, None] * self.risk.features()[:, None, :]
        return self.risk.head.flat(outer) + self.shift * self.v


class GeneralFactors:
    """The rows G and A of any differentiable model, through the losses [n] as one function of theta.

    A weighted sum of rows is one backward pass; all inner products v^T grad^2 l_i u at once are one pass of forward
    over forward derivatives, so no per-example gradient is materialised.

    Args:
        risk: any.
        v: [p].
        damping: added to the ridge in A, not in G.
    """

    def __init__(self, risk: Risk, v: Float[Tensor, " p"], damping: float = 0.0) -> None:
        risk.require_derivatives(GRADIENT, FORWARD, FORWARD_HESSIAN)
        self.risk, self.v, self.shift = risk, v, risk.l2 + damping

    def _losses(self):
        start = 0
        for outputs, y, _ in self.risk.parts():
            losses = lambda theta, outputs=outputs, y=y: self.risk.loss.value(outputs(theta), y)  # noqa: E731
            yield slice(start, start + len(y)), losses
            start += len(y)

    def weighted_sums(self, w: Weights) -> tuple[Rows, Rows]:
        """Return G^T w and A^T w."""
        theta, l2, total = self.risk.theta, self.risk.l2, [0.0, 0.0]
        for part, losses in self._losses():

            def one(weights: Tensor, losses=losses) -> tuple[Tensor, Tensor]:
                return jvp(grad(lambda at: (weights * losses(at)).sum()), (theta,), (self.v,))

            total = [t + more for t, more in zip(total, vmap(one)(w[:, part]), strict=True)]
        total_weight = w.sum(1, keepdim=True)
        return total[0] + l2 * total_weight * theta, total[1] + self.shift * total_weight * self.v

    def products(self, z: Rows, u: Rows) -> tuple[Weights, Weights]:
        """Return G z and A u, row by row."""
        theta, l2, parts = self.risk.theta, self.risk.l2, []
        for _, losses in self._losses():
            slope = lambda at, row, losses=losses: jvp(losses, (at,), (row,))[1]  # noqa: E731
            second = lambda row, slope=slope: jvp(lambda at: slope(at, self.v), (theta,), (row,))[1]  # noqa: E731
            parts.append((vmap(lambda row, slope=slope: slope(theta, row))(z), vmap(second)(u)))
        from_gradients, from_curvature = (torch.cat(side, dim=1) for side in zip(*parts, strict=True))
        return from_gradients + l2 * (z @ theta)[:, None], from_curvature + self.shift * (u @ self.v)[:, None]

    def rows(self) -> Float[Tensor, "n p"]:
        """Return A, one example's Hessian product a row, in chunks."""
        outputs, value = self.risk.parameters.outputs, self.risk.loss.value

        def one(x: Tensor, y: Tensor) -> Tensor:
            own = grad(lambda theta: value(outputs(theta, x[None]), y[None])[0])
            return jvp(own, (self.risk.theta,), (self.v,))[1]

        train = self.risk.train
        chunk = max(16, 2**24 // max(self.risk.p, train.x[0].numel() * 64))
        return vmap(one, chunk_size=chunk)(train.x, train.y) + self.shift * self.v


class GaussNewtonFactors:
    """The rows G and A of any differentiable model with A_i = J_i^T S_i J_i v + (l2 + damping) v.

    J_i [C, p] is the Jacobian of example i's outputs and S_i the Hessian of its loss in them, so both rows are
    Jacobians times a vector of outputs that is known once: the loss's gradient, and S_i J_i v.

    Args:
        risk: any.
        v: [p].
        damping: added to the ridge in A, not in G.

    Source: Schraudolph 2002.
    """

    def __init__(self, risk: Risk, v: Float[Tensor, " p"], damping: float = 0.0) -> None:
        risk.require_derivatives(GRADIENT, FORWARD, of_loss=(FORWARD_HESSIAN,))
        self.risk, self.v, self.shift = risk, v, risk.l2 + damping
        slope, curvature = [], []
        for outputs, y, _ in risk.parts():
            f, along = jvp(outputs, (risk.theta,), (v,))
            slope.append(risk.loss.gradient(f, y))
            curvature.append(risk.loss.hessian_product(f, y, along))
        self.slope, self.curvature = torch.cat(slope), torch.cat(curvature)  # [n, C]

    def _outputs(self):
        start = 0
        for outputs, y, _ in self.risk.parts():
            yield slice(start, start + len(y)), outputs
            start += len(y)

    def weighted_sums(self, w: Weights) -> tuple[Rows, Rows]:
        """Return G^T w and A^T w."""
        theta, total = self.risk.theta, w.new_zeros(2 * len(w), self.risk.p)
        for part, outputs in self._outputs():
            pull = vjp(outputs, theta)[1]
            cotangents = torch.cat([w[:, part, None] * side[part] for side in (self.slope, self.curvature)])
            total += vmap(lambda c, pull=pull: pull(c)[0], chunk_size=ROWS)(cotangents)
        total_weight = w.sum(1, keepdim=True)
        gradient_sum, curvature_sum = total.split(len(w))
        return (
            gradient_sum + self.risk.l2 * total_weight * theta,
            curvature_sum + self.shift * total_weight * self.v,
        )

    def products(self, z: Rows, u: Rows) -> tuple[Weights, Weights]:
        """Return G z and A u, row by row."""
        theta, l2, parts = self.risk.theta, self.risk.l2, []
        for part, outputs in self._outputs():
            push = vmap(lambda row, f=outputs: jvp(f, (theta,), (row,))[1], chunk_size=ROWS)
            parts.append([(push(r) * side[part]).sum(-1) for r, side in ((z, self.slope), (u, self.curvature))])
        from_gradients, from_curvature = (torch.cat(side, dim=1) for side in zip(*parts, strict=True))
        return from_gradients + l2 * (z @ theta)[:, None], from_curvature + self.shift * (u @ self.v)[:, None]

    def rows(self) -> Float[Tensor, "n p"]:
        """Return A, one example's Jacobian product a row, in chunks."""
        outputs = self.risk.parameters.outputs

        def one(x: Tensor, cotangent: Tensor) -> Tensor:
            return vjp(lambda theta: outputs(theta, x[None])[0], self.risk.theta)[1](cotangent)[0]

        train = self.risk.train
        chunk = max(16, 2**24 // max(self.risk.p, train.x[0].numel() * 64))
        return vmap(one, chunk_size=chunk)(train.x, self.curvature) + self.shift * self.v
