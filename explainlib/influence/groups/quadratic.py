"""The second-order influence of a group as a quadratic form in its indicator w, and its products.

    q(w) = c1 w^T a + c2 w^T B w,     c1 = (1 - 2f) / ((1-f)^2 n),  c2 = 1 / ((1-f)^2 n^2),  f = k/n
    v = H_d^-1 grad l_t,    a_i = v^T G_i,    B_ij = A_i^T H_d^-1 G_j,    H_d = H + damping I
    G_i = grad l_i + l2 theta,                A_i = (grad^2 l_i + (l2 + damping) I) v

l_t is the mean test loss, H the Hessian of the risk, ridge included, and damping only solves (slip 15); rows G_i and
A_i are [p]. B has n x n entries but is a product of two thin factors, so w -> B w costs two passes over the data and
one solve, and B is never materialised. It is not symmetric. On groups, q is the change of the mean test loss on removal
(weighting "preserve"), to second order in the parameters and linear in the test loss. With "gauss_newton" both
H and grad^2 l_i are Gauss-Newton matrices: q of the model replaced by its tangent at theta.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_choice, require_groups
from explainlib.datasets import Examples
from explainlib.influence.groups.factors import GaussNewtonFactors, GeneralFactors, HeadFactors, Rows, Weights
from explainlib.risk import Risk, require_minimum
from explainlib.solvers.inverse import CURVATURES, Curvature, Solver, inverse_curvature

ENTRIES = 2**23  # g x n x C numbers in one batch
SERIES = ("hessian", "gauss_newton")  # curvatures that are sums of a matrix an example


class GroupQuadratic:
    """q for every group size k: a, and products with B.

    Args:
        risk: unweighted; for curvature "hessian" at a minimum (a warning otherwise, or with ``strict`` an error).
        test: the examples; l_t is their mean loss.
        curvature: "hessian" or "gauss_newton", of the risk and of each example.
        solver: as in ``parameter_influence``.
        damping: absolute, added to the curvature only to solve with it.
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
        curvature: str = "hessian",
        solver: str | Solver = "dense",
        damping: float = 0.0,
        strict: bool = False,
        on_failure: str = "raise",
    ) -> None:
        risk.require_examples(test, "test")
        require_unweighted(risk)
        require_choice("curvature", curvature, SERIES)
        if curvature == "hessian":
            require_minimum(risk, strict=strict, user="second-order group influence")
        self.risk, self._on_failure = risk, on_failure
        how = {"curvature": curvature, "solver": solver, "damping": damping}
        self._inverse = inverse_curvature(risk, **how, offers=("curvature", "solver", "damping"))
        self.v: Float[Tensor, " p"] = self.solve(risk.loss_gradients(test).mean(0, keepdim=True))[0]
        general = GeneralFactors if curvature == "hessian" else GaussNewtonFactors
        self._sides = (HeadFactors if risk.head is not None else general)(risk, self.v, damping)
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


@compute.entry
def second_order_influence(
    risk: Risk,
    test: Examples,
    groups: Sequence[Sequence[int] | Int[Tensor, " _"]],
    *,
    curvature: Curvature = "hessian",
    solver: str | Solver = "dense",
    damping: float = 0.0,
    strict: bool = False,
    on_failure: str = "raise",
) -> Float[Tensor, " g"]:
    """Return the predicted change of the mean test loss when each group leaves: c1 w^T a + c2 w^T B w.

    Args:
        risk: unweighted; for curvature "hessian" at a minimum (a warning otherwise, or with ``strict`` an error).
        test: the examples of the mean loss.
        groups: g lists of distinct training examples, none empty, none all of them; sizes may differ.
        curvature: "hessian", or "gauss_newton" for the risk's matrix and for each example's; others have no second
            order.
        solver: as in ``parameter_influence``.
        damping: absolute, added to the curvature only to solve with it.
        strict: raise where the risk is not at a minimum.
        on_failure: "raise" or "warn" when a solve does not converge.

    Returns:
        [g], in units of the loss. Positive: the loss rises when the group leaves. With "hessian" it equals
        ``removal_effect(order=2, weighting="preserve").loss_change(test, evaluate=False).mean(0)``.

    Raises:
        SolverError: a singular curvature without ridge or damping, or a solve that did not converge.
        ValueError, TypeError: a bad group or curvature, a reweighted risk, or a test set that does not fit the risk.

    Source: Basu et al. 2020, eq. (17). Deviations: the ridge is kept, several tests are averaged, and Gauss-Newton.
    """
    require_series(curvature, "second-order influence", "xl.influence.removal_loss_change for the first order")
    checked = require_groups(groups, risk.n)
    how = {"curvature": curvature, "solver": solver, "damping": damping, "strict": strict, "on_failure": on_failure}
    quadratic = GroupQuadratic(risk, test, **how)
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


def require_series(curvature: Curvature, what: str, otherwise: str) -> None:
    """Return nothing; raise for an unknown curvature, and for one that is no sum of a matrix an example.

    Args:
        curvature: as passed.
        what: needs interactions of examples, as the subject of a sentence.
        otherwise: an alternative that takes any curvature.

    Raises:
        ValueError: all but "hessian" and "gauss_newton".
    """
    require_curvature(curvature)
    if curvature not in SERIES:
        name = f"curvature={curvature!r}" if isinstance(curvature, str) else f"a fitted {type(curvature).__name__}"
        raise ValueError(
            f"{what} needs a curvature of each example, and {name} has none; "
            f"pass curvature='hessian' or curvature='gauss_newton', or {otherwise}."
        )


def require_curvature(curvature: Curvature) -> None:
    """Return nothing; raise for an unknown curvature.

    Args:
        curvature: a name, or what was fitted before.
    """
    if isinstance(curvature, str):
        require_choice("curvature", curvature, CURVATURES)
