"""What to do about a solve that failed, in the words of the function that was called.

A status is shared by many functions, and what mends it is not: one has ``keep=``, another has no ``curvature=``, a
third takes its ridge from a ``Bilevel``. So each function says once what its caller can change, and a message about a
failed solve names nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

ORDER = {  # what helps after each status, the most likely first
    "not_positive_definite": ("shift", "definite"),
    "max_steps": ("longer", "shift", "precision", "direct"),
    "diverged": ("scale", "shift", "direct"),
    "nonfinite": ("precision",),
    "rank_deficient": ("shift", "pruned"),
    "inaccurate": ("precision", "shift", "pruned", "direct"),
}
BEYOND = 1.1  # a scale this many times the eigenvalue that was too large, a shift this many times a negative one
CONFIGURED = {  # how each iterative solver is told to go on for longer
    "cg": "CG(max_steps=...)",
    "lissa": "Lissa(steps=...)",
    "neumann": "Neumann(max_steps=...)",
    "arnoldi": "Arnoldi(steps=...)",
}
SCALED = {"lissa": "Lissa(scale=...)", "neumann": "Neumann(scale=...)"}
FLOAT64 = "use float64 for model and data"
AS_THEY_ARE = "solver='dense', which inverts negative eigenvalues as they are, though no zeros"


@dataclass(frozen=True)
class Remedies:
    """What the caller of one function can change, each as a clause of a sentence; "" where there is nothing.

    Attributes:
        shift: makes the diagonal larger: damping, a ridge.
        definite: another choice that can live with negative curvature.
        pruned: a pseudo-inverse, or fewer dimensions.
        longer: more steps.
        scale: of a series; its "..." becomes the number, where one is known.
        precision: float64; None goes by the dtype of the solve.
        direct: another solver.
    """

    shift: str = ""
    definite: str = ""
    pruned: str = ""
    longer: str = ""
    scale: str = ""
    precision: str | None = None
    direct: str = ""

    def for_status(self, status: str, dtype: torch.dtype, eigenvalue: float | None = None) -> str:
        """Return what to do after a status, "" if there is nothing.

        Args:
            status: a key of ``ORDER``.
            dtype: of the right-hand sides.
            eigenvalue: one that the solver could not invert, where it is known: at or below zero it says by how much
                the diagonal has to grow, above zero how large a scale has to be.
        """
        clauses = {name: getattr(self, name) for name in ORDER.get(status, ())}
        if self.precision is None and "precision" in clauses:
            clauses["precision"] = precise(dtype)
        if eigenvalue is not None and eigenvalue > 0:
            number = f"{BEYOND * eigenvalue:.3g}"
            clauses = {"scale": self.scale.replace("...", number), "direct": self.direct}
        elif eigenvalue is not None:
            clauses.pop("scale", None)
            clauses["shift"] = self.shift and f"{self.shift}, by {-BEYOND * eigenvalue:.2g} or more"
        return ", or ".join(clause for clause in clauses.values() if clause)


def precise(dtype: torch.dtype) -> str:
    """Return the advice to use float64, "" where it is used already."""
    return "" if dtype == torch.float64 else FLOAT64


def risk_remedies(
    dtype: torch.dtype, *, offers: Sequence[str], curvature: str, solver: str, has_ridge: bool = True
) -> Remedies:
    """Return what the caller of a function of a ``Risk`` can change about a solve with its curvature.

    Args:
        dtype: of the model.
        offers: the function's own options among "curvature", "solver", "damping" and "keep".
        curvature: what is inverted now.
        solver: how, by name.
        has_ridge: whether the risk has an ``l2``; a variational bound has none.
    """
    ridge = has_ridge and curvature != "empirical_fisher"
    kinds = ["a larger damping"] * ("damping" in offers) + ["a Risk with a larger l2"] * ridge
    pseudo = "keep" in offers and curvature != "ekfac"
    choose = "solver" in offers and curvature not in ("ekfac", "identity")
    ways = ["curvature='gauss_newton'"] * ("curvature" in offers and curvature == "hessian")
    if pseudo:
        ways += ["keep='positive'" + ("" if solver == "dense" else " with solver='dense'")]
    elif choose and solver != "dense":
        ways += [AS_THEY_ARE]
    configured = {"longer": CONFIGURED, "scale": SCALED} if choose else {}
    return Remedies(
        shift="pass " + " or ".join(kinds) if kinds else "",
        definite="pass " + ", or ".join(ways) if ways else "",
        pruned="pass keep=1e-9 for the pseudo-inverse" if pseudo else "",
        precision=precise(dtype),
        direct=f"pass {_other_solver(solver)}" if choose and solver != "dense" else "",
        **{name: f"pass solver=xl.solvers.{how[solver]}" for name, how in configured.items() if solver in how},
    )


def _other_solver(solver: str) -> str:
    """Return the solver to turn to: a factorisation, or where one of few rows has lost digits, products alone."""
    return "solver='cg', which forms no difference" if solver == "low_rank" else "solver='dense'"
