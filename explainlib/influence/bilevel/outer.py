"""Solves with the outer curvature S by one solver: a matrix is made and factored once."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from explainlib.influence.bilevel.curvature import Operator, OuterCurvature, solver_of
from explainlib.memory import alternatives
from explainlib.solvers.solution import Solution

PRODUCTS = "pass solver='cg', which takes products alone, or a Bilevel that learns fewer parameters, parameters=[...]"


class OuterSolver:
    """S^-1 at lam.

    Args:
        curvature: gives S as a matrix or as products.
        solver: "dense", "cg" or "neumann".
        on_failure: "raise" or "warn" when a solve fails.
        options: of the solver, as in ``solver_of``.

    Attributes:
        solution: the last solve's; None before the first.
    """

    def __init__(
        self, curvature: OuterCurvature, solver: str, on_failure: str, options: dict[str, int | float | None]
    ) -> None:
        self.curvature, self.solver, self.on_failure, self.options = curvature, solver, on_failure, options
        self.solution: Solution | None = None
        self._systems: dict[str, Tensor | Operator] = {}
        self._solvers: dict[str, object] = {}

    def system(self, hessian: str) -> Float[Tensor, "q q"] | Operator:
        """Return S as this solver takes it: a matrix, made once, or products."""
        if self.solver != "dense":
            return self.curvature.operator(hessian)
        if hessian not in self._systems:
            with alternatives(PRODUCTS):
                self._systems[hessian] = self.curvature.matrix(hessian)
        return self._systems[hessian]

    def solve(self, rhs: Float[Tensor, "k q"], hessian: str) -> Float[Tensor, "k q"]:
        """Return S^-1 rhs; a dense S is factored once, and products are made ready once."""
        if hessian not in self._solvers:
            self._solvers[hessian] = solver_of(self.solver, self.system(hessian), **self.options)
        return self.accept(self._solvers[hessian](rhs))

    def accept(self, found: Solution) -> Float[Tensor, "k q"]:
        """Return the solution's value if it may be used; a dense solve of an indefinite S (a saddle) only warns."""
        self.solution = found
        saddle = self.solver == "dense" and found.status == "not_positive_definite"
        return found.require_converged("warn" if saddle else self.on_failure).value
