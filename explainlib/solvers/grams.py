r"""Inverse curvature between two sets of gradients through Gram matrices alone: Woodbury, with no gradient ever formed.

The curvature is A^T A + s I; the rows of A are the training examples' gradients along a square root of the loss's
curvature in the outputs (Gauss-Newton), or along its slope (empirical Fisher). Then

    G (A^T A + s I)^-1 G'^T = (G G'^T - G A^T (A A^T + s I)^-1 A G'^T) / s.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.curvature.gauss_newton import loss_roots
from explainlib.layerwise import GradientSource, gradients, gram
from explainlib.risk import Risk


class GramInverse:
    """The factored A A^T + s I of a risk.

    Args:
        risk: more parameters than rows of A: n for the empirical Fisher matrix, n C for Gauss-Newton.
        curvature: "gauss_newton" or "empirical_fisher".
        damping: with the ridge (Gauss-Newton only) s, which has to be above zero.

    Raises:
        ValueError: s = 0, or a negative weight.

    Cost: the Gram matrix of A, and a third of its rows cubed.
    """

    def __init__(self, risk: Risk, *, curvature: str, damping: float) -> None:
        self.shift = damping + (risk.l2 if curvature == "gauss_newton" else 0.0)
        if self.shift <= 0:
            remedy = "damping > 0" if curvature == "empirical_fisher" else "l2 in the risk or damping > 0"
            raise ValueError(f"{curvature!r} has a null space here, so its inverse needs {remedy}.")
        if (risk.weights_or_ones() < 0).any():
            raise ValueError("a negative weight has no square root; use solver='dense' or 'cg' for this risk.")
        roots = lambda outputs: curvature_roots(risk, outputs, curvature)  # noqa: E731
        self.own = gradients(risk.parameters, risk.theta, risk.train.x, roots)
        inner = gram(self.own, self.own)
        inner.diagonal().add_(self.shift)
        self.triangle: Float[Tensor, "r r"] = torch.linalg.cholesky(inner)

    def between(self, left: GradientSource, right: GradientSource) -> Float[Tensor, "t n"]:
        """Return G (A^T A + s I)^-1 G'^T for gradients G on the left and G' on the right."""
        to_left, to_right = gram(left, self.own), gram(right, self.own)
        if len(to_left) <= len(to_right):  # solve for the fewer
            taken = torch.cholesky_solve(to_left.T, self.triangle).T @ to_right.T
        else:
            taken = to_left @ torch.cholesky_solve(to_right.T, self.triangle)
        return (gram(left, right) - taken) / self.shift

    def with_rows(self, left: GradientSource) -> Float[Tensor, "t r"]:
        """Return G (A^T A + s I)^-1 A^T = G A^T (A A^T + s I)^-1: towards the rows of A one Gram matrix is enough."""
        return torch.cholesky_solve(gram(left, self.own).T, self.triangle).T


def curvature_roots(risk: Risk, outputs: Float[Tensor, "n C"], curvature: str) -> Float[Tensor, "n r C"]:
    """Return cotangents whose outer products sum to the loss's curvature in the outputs, weights and 1/n inside.

    Args:
        risk: gives labels and weights.
        outputs: of its training examples.
        curvature: "gauss_newton" or "empirical_fisher".
    """
    scale = (risk.weights_or_ones() / risk.n).sqrt()[:, None, None]
    if curvature == "empirical_fisher":
        return risk.loss.gradient(outputs, risk.train.y)[:, None] * scale
    return loss_roots(risk.loss, outputs, risk.train.y) * scale
