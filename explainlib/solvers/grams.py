r"""Inverse curvature between two sets of gradients through Gram matrices: Woodbury, without materialised gradients.

The curvature is A^T A + s I; the rows of A are the training examples' gradients along a square root of the loss's
curvature in the outputs (Gauss-Newton), or along its slope (empirical Fisher). Then

    G (A^T A + s I)^-1 G'^T = (G G'^T - G A^T (A A^T + s I)^-1 A G'^T) / s.

The system is solved in float64, but the Gram matrices carry the rounding of the model's dtype: eps times the largest
eigenvalue of A A^T, which has to be small relative to s, and eps times G G'^T, which has to be small relative to the
difference. Where either ratio is above 1/100, the solve fails as inaccurate.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_choice
from explainlib.curvature.gauss_newton import loss_roots
from explainlib.layerwise import GradientSource, gradients, gram
from explainlib.memory import require_memory
from explainlib.risk import Risk
from explainlib.solvers.low_rank import RELATIVE_ERROR
from explainlib.solvers.remedies import risk_remedies
from explainlib.solvers.solution import Solution, direct_solution, overall_status, row_statuses

ROUNDING = 1  # assumed error of Gram entries, in eps of their sums; a fifth of it was measured
POWER_STEPS = 20


class GramInverse:
    """The factored A A^T + s I of a risk.

    Args:
        risk: more parameters than rows of A: n for the empirical Fisher matrix, n C for Gauss-Newton.
        curvature: "gauss_newton" or "empirical_fisher".
        damping: with the ridge (Gauss-Newton only) s, which has to be above zero.
        offers: as in ``inverse_curvature``: options that messages may name.

    Raises:
        ValueError: s = 0, or a negative weight.

    Cost: the Gram matrix of A, and a third of its rows cubed.
    """

    def __init__(
        self, risk: Risk, *, curvature: str, damping: float, offers: Sequence[str] = ("curvature", "damping")
    ) -> None:
        require_choice("curvature", curvature, ("gauss_newton", "empirical_fisher"))
        self.shift = damping + (risk.l2 if curvature == "gauss_newton" else 0.0)
        if self.shift <= 0:
            remedy = "damping > 0" if curvature == "empirical_fisher" else "l2 in the risk or damping > 0"
            raise ValueError(f"{curvature!r} has a null space here, so its inverse needs {remedy}.")
        other = "solver='dense'" if "solver" in offers else "curvature='hessian'"
        if (risk.weights_or_ones() < 0).any():
            raise ValueError(f"a negative weight has no square root; use {other} for this risk.")
        rows = risk.n * (1 if curvature == "empirical_fisher" else risk.n_outputs)
        require_memory(f"the Gram matrix of {rows:,} rows", 32 * rows**2, risk.theta.device)
        self._remedies = risk_remedies(risk.theta.dtype, offers=offers, curvature=curvature, solver="low_rank")
        roots = lambda outputs: curvature_roots(risk, outputs, curvature, otherwise=f"use {other}")  # noqa: E731
        self.own = gradients(risk.parameters, risk.theta, risk.train.x, roots)
        self._inner = gram(self.own, self.own).double()
        self._rounding = ROUNDING * torch.finfo(risk.theta.dtype).eps
        self._spread = _top(self._inner) / self.shift
        self._inner.diagonal().add_(self.shift)
        self.triangle, failed = torch.linalg.cholesky_ex(self._inner)
        self._broken = bool(failed) or not bool(torch.isfinite(self.triangle).all())

    def between(
        self, left: GradientSource, right: GradientSource, *, on_failure: str = "raise"
    ) -> Float[Tensor, "t n"]:
        """Return G (A^T A + s I)^-1 G'^T for gradients G on the left and G' on the right.

        Raises:
            SolverError: rounding dominates some row, or the system has no solution in this dtype.
        """
        to_left, to_right = gram(left, self.own), gram(right, self.own)
        fewer = len(to_left) <= len(to_right)
        solution = self._solved(to_left if fewer else to_right).require_converged(on_failure)
        solved = solution.value
        taken = solved @ to_right.double().T if fewer else to_left.double() @ solved.T
        whole = gram(left, right).double()
        rest = whole - taken
        tiny = torch.finfo(rest.dtype).tiny
        lost = self._rounding * whole.norm(dim=1) / rest.norm(dim=1).clamp(min=tiny)
        value = (rest / self.shift).to(to_left)
        rows = row_statuses(value, lost, RELATIVE_ERROR, otherwise="inaccurate")
        detail = "the residual is what the rounding of a difference may have taken of a row"
        Solution(value, overall_status(rows), 0, lost, detail, rows=rows, remedies=self._remedies).require_converged(
            on_failure
        )
        return value

    def with_rows(self, left: GradientSource, *, on_failure: str = "raise") -> Float[Tensor, "t r"]:
        """Return G (A^T A + s I)^-1 A^T = G A^T (A A^T + s I)^-1: for the rows of A one Gram matrix suffices.

        Raises:
            SolverError: the system has no solution in this dtype.
        """
        to_left = gram(left, self.own)
        return self._solved(to_left).require_converged(on_failure).value.to(to_left)

    def _solved(self, rows: Float[Tensor, "k r"]) -> Solution:
        """Return (A A^T + s I)^-1 on rows, in float64, checked by its residual and by the rounding of A A^T."""
        b = rows.double()
        if self._broken:
            status = "not_positive_definite" if torch.isfinite(self._inner).all() else "nonfinite"
            nothing = torch.full_like(b, float("nan"))
            detail = "the Gram matrix of the curvature's rows"
            return Solution(nothing, status, 0, nothing[:, 0], detail, remedies=self._remedies)
        value = torch.cholesky_solve(b.T, self.triangle).T
        residual = (value @ self._inner - b).norm(dim=1) / b.norm(dim=1).clamp(min=torch.finfo(b.dtype).tiny)
        lost = torch.full_like(residual, self._rounding * self._spread) > RELATIVE_ERROR
        detail = f"ridge and damping are {1 / max(self._spread, 1e-300):.1e} of the largest eigenvalue"
        return direct_solution(value, residual, detail, b, failed=lost, remedies=self._remedies)


def _top(matrix: Float[Tensor, "r r"]) -> float:
    """Return an estimate of the largest eigenvalue of a positive semi-definite matrix, by power iteration."""
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(len(matrix), generator=generator, dtype=torch.float64).to(matrix)
    for _ in range(POWER_STEPS):
        moved = matrix @ v
        v = moved / moved.norm().clamp(min=torch.finfo(v.dtype).tiny)
    return float(v @ matrix @ v)


def curvature_roots(
    risk: Risk, outputs: Float[Tensor, "n C"], curvature: str, *, otherwise: str = "use the Hessian"
) -> Float[Tensor, "n r C"]:
    """Return cotangents whose outer products sum to the loss's curvature in the outputs, weights and 1/n included.

    Args:
        risk: gives labels and weights.
        outputs: of its training examples.
        curvature: "gauss_newton" or "empirical_fisher".
        otherwise: as in ``loss_roots``.
    """
    scale = (risk.weights_or_ones() / risk.n).sqrt()[:, None, None]
    if curvature == "empirical_fisher":
        return risk.loss.gradient(outputs, risk.train.y)[:, None] * scale
    return loss_roots(risk.loss, outputs, risk.train.y, otherwise=otherwise) * scale
