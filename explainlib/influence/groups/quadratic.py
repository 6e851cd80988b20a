"""The second-order influence of a group as a quadratic form in its indicator w, and its products.

    q(w) = c1 w^T a + c2 w^T B w,     c1 = (1 - 2f) / ((1-f)^2 n),  c2 = 1 / ((1-f)^2 n^2),  f = k/n
    v = H_d^-1 grad l_t,    a_i = v^T G_i,    B_ij = A_i^T H_d^-1 G_j,    H_d = H + damping I
    G_i = grad l_i + l2 theta,                A_i = (grad^2 l_i + (l2 + damping) I) v

l_t is the mean test loss, H the Hessian of the risk, ridge included, and damping only solves (slip 15); rows G_i and
A_i are [p]. B has n x n entries but is a product of two thin factors, so w -> B w costs two passes over the data and
one solve, and B is never materialised. It is not symmetric. On groups, q is the change of the mean test loss on removal
(weighting "preserve"), to second order in the parameters and linear in the test loss.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import grad, jvp

from explainlib import compute
from explainlib.checks import require_groups
from explainlib.datasets import Examples
from explainlib.derivatives import vmap
from explainlib.gate import FORWARD, FORWARD_HESSIAN, GRADIENT
from explainlib.risk import Risk, require_minimum
from explainlib.solvers.inverse import Solver, inverse_curvature

ENTRIES = 2**23  # g x n x C numbers in one batch
Rows = Float[Tensor, "s p"]
Weights = Float[Tensor, "s n"]


class GroupQuadratic:
    """q for every group size k: a, and products with B.

    Args:
        risk: unweighted, at a minimum; otherwise a warning, or with ``strict`` an error.
        test: the examples; l_t is their mean loss.
        solver: as in ``parameter_influence``.
        damping: absolute, added to H only to solve with it.
        strict: raise where the risk is not at a minimum.
        on_failure: "raise" or "warn" when a solve does not converge.

    Raises:
        SolverError: a singular curvature without ridge or damping, or a solve that did not converge.
        ValueError, TypeError: a reweighted risk, or a test set that does not fit the risk.

    Source: Basu et al. 2020, eqs (17) and (18), which have no ridge, no damping and one test example.
    """

    def __init__(
        self,
        risk: Risk,
        test: Examples,
        *,
        solver: str | Solver = "dense",
        damping: float = 0.0,
        strict: bool = False,
        on_failure: str = "raise",
    ) -> None:
        risk.require_examples(test, "test")
        require_unweighted(risk)
        require_minimum(risk, strict=strict, user="second-order group influence")
        self.risk, self._on_failure = risk, on_failure
        self._inverse = inverse_curvature(risk, solver=solver, damping=damping, offers=("solver", "damping"))
        self.v: Float[Tensor, " p"] = self.solve(risk.loss_gradients(test).mean(0, keepdim=True))[0]
        self._sides = (HeadFactors if risk.head is not None else GeneralFactors)(risk, self.v, damping)
        self.a: Float[Tensor, " n"] = self._sides.products(self.v[None], self.v[None])[0][0]

    def solve(self, rows: Rows) -> Rows:
        """Return H^-1 on rows."""
        return self._inverse(rows).require_converged(self._on_failure).value

    def coefficients(self, k: int | Tensor) -> tuple:
        """Return c1, c2 of groups of k."""
        n = self.risk.n
        rest = (n - k) / n  # 1 - f
        return (2 * rest - 1) / (rest**2 * n), 1 / (rest**2 * n**2)

    def value(self, w: Weights, k: int | Float[Tensor, " s"]) -> Float[Tensor, " s"]:
        """Return q of each row of weights, indicators or not, with the coefficients of k; cheaper than a product."""
        c1, c2 = self.coefficients(k)
        gradient_sum, curvature_sum = self._sides.weighted_sums(w)
        return c1 * (w @ self.a) + c2 * (curvature_sum * self.solve(gradient_sum)).sum(1)  # eq. (18)

    def product(self, w: Weights) -> Weights:
        """Return (B + B^T) w, row by row."""
        gradient_sums, curvature_sums = self._sides.weighted_sums(w)
        solved = self.solve(torch.cat([gradient_sums, curvature_sums]))
        from_curvature, from_gradients = self._sides.products(solved[len(w) :], solved[: len(w)])
        return from_curvature + from_gradients

    def gradient(self, w: Weights, k: int) -> Weights:
        """Return dq/dw = c1 a + c2 (B + B^T) w."""
        c1, c2 = self.coefficients(k)
        return c1 * self.a + c2 * self.product(w)

    def factors(self) -> tuple[Float[Tensor, "n p"], Float[Tensor, "n p"]]:
        """Return (A, S) with B = A S^T and S_j = H^-1 G_j: 2 n p numbers and n solves."""
        gradients = self.risk.loss_gradients() + self.risk.l2 * self.risk.theta
        return self._sides.rows(), self.solve(gradients)


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


@compute.entry
def second_order_influence(
    risk: Risk,
    test: Examples,
    groups: Sequence[Sequence[int] | Int[Tensor, " _"]],
    *,
    solver: str | Solver = "dense",
    damping: float = 0.0,
    strict: bool = False,
    on_failure: str = "raise",
) -> Float[Tensor, " g"]:
    """Return the predicted change of the mean test loss when each group leaves: c1 w^T a + c2 w^T B w.

    Args:
        risk: unweighted, at a minimum; otherwise a warning, or with ``strict`` an error.
        test: the examples of the mean loss.
        groups: g lists of distinct training examples, none empty, none all of them; sizes may differ.
        solver: as in ``parameter_influence``.
        damping: absolute, added to the Hessian only to solve with it.
        strict: raise where the risk is not at a minimum.
        on_failure: "raise" or "warn" when a solve does not converge.

    Returns:
        [g], in units of the loss. Positive: the loss rises when the group leaves. It equals
        ``removal_effect(order=2, weighting="preserve").loss_change(test, evaluate=False).mean(0)``.

    Raises:
        SolverError: a singular curvature without ridge or damping, or a solve that did not converge.
        ValueError, TypeError: a bad group, a reweighted risk, or a test set that does not fit the risk.

    Source: Basu et al. 2020, eq. (17). Deviations: the ridge is kept, and several tests are averaged.
    """
    checked = require_groups(groups, risk.n)
    quadratic = GroupQuadratic(risk, test, solver=solver, damping=damping, strict=strict, on_failure=on_failure)
    batch = max(1, ENTRIES // (risk.n * max(risk.n_outputs, 1)))
    values = []
    for start in range(0, len(checked), batch):
        part = checked[start : start + batch]
        sizes = torch.tensor([len(group) for group in part]).to(risk.theta)
        values.append(quadratic.value(indicators(risk, part), sizes))
    return torch.cat(values)


def indicators(risk: Risk, groups: Sequence[Int[Tensor, " _"]]) -> Weights:
    """Return a row of weights for each group, 1 on its examples and 0 elsewhere."""
    w = risk.theta.new_zeros(len(groups), risk.n)
    for row, group in zip(w, groups, strict=True):
        row[group.to(w.device)] = 1
    return w


def require_unweighted(risk: Risk) -> None:
    """Raise if the risk carries per-example weights: keeping the mean over the rest has no meaning for them."""
    if risk.weights is not None:
        raise ValueError(
            "the risk is reweighted, and group selection keeps the mean over equally weighted examples; "
            "pass the unweighted risk, minimised."
        )
