"""Remedies for a failed solve, in terms of the options of the called function.

Functions share statuses but not options: one has ``keep=``, another has no ``curvature=``, a third takes its ridge from
a ``Bilevel``. So each function declares what its caller can change, and a message names nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

ORDER = {  # remedies for each status, the most likely first
    "not_positive_definite": ("shift", "definite"),
    "max_steps": ("longer", "shift", "precision", "direct"),
    "diverged": ("scale", "shift", "direct"),
    "nonfinite": ("precision",),
    "rank_deficient": ("shift", "pruned"),
    "inaccurate": ("precision", "shift", "pruned", "direct"),
}
MARGIN = 1.1  # factor above the eigenvalue that a scale or a shift has to exceed
CONFIGURED = {  # the option for more steps of each iterative solver
    "cg": "CG(max_steps=...)",
    "lissa": "Lissa(steps=...)",
    "neumann": "Neumann(max_steps=...)",
    "arnoldi": "Arnoldi(steps=...)",
}
SCALED = {"lissa": "Lissa(scale=...)", "neumann": "Neumann(scale=...)"}
FLOAT64 = "use float64 for model and data"
DENSE_INDEFINITE = "solver='dense', which inverts negative eigenvalues as they are, though no zeros"


@dataclass(frozen=True)
class Remedies:
    """What the caller of a function can change, each as a clause of a sentence; "" for none.

    Attributes:
        shift: makes the diagonal larger: damping, a ridge.
        definite: another choice that accepts negative curvature.
        pruned: a pseudo-inverse, or fewer dimensions.
        longer: more steps.
        scale: of a series; its "..." becomes the number, where one is known.
        precision: float64; None depends on the dtype of the solve.
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
        """Return the remedies for a status, "" if there are none.

        Args:
            status: a key of ``ORDER``.
            dtype: of the right-hand sides.
            eigenvalue: one that the solver could not invert, if known: at or below zero it gives the shift needed,
                above zero the scale needed.
        """
        clauses = {name: getattr(self, name) for name in ORDER.get(status, ())}
        if self.precision is None and "precision" in clauses:
            clauses["precision"] = precise(dtype)
        if eigenvalue is not None and eigenvalue > 0:
            number = f"{MARGIN * eigenvalue:.3g}"
            clauses = {"scale": self.scale.replace("...", number), "direct": self.direct}
        elif eigenvalue is not None:
            clauses.pop("scale", None)
            clauses["shift"] = self.shift and f"{self.shift}, by {-MARGIN * eigenvalue:.2g} or more"
        return ", or ".join(clause for clause in clauses.values() if clause)


def precise(dtype: torch.dtype) -> str:
    """Return the remedy float64, "" in float64."""
    return "" if dtype == torch.float64 else FLOAT64


def risk_remedies(
    dtype: torch.dtype, *, offers: Sequence[str], curvature: str, solver: str, has_ridge: bool = True
) -> Remedies:
    """Return the remedies of a function that solves with the curvature of a ``Risk``.

    Args:
        dtype: of the model.
        offers: the function's own options among "curvature", "solver", "damping" and "keep".
        curvature: the inverted curvature.
        solver: its name.
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
        ways += [DENSE_INDEFINITE]
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
    """Return the alternative solver: a factorisation, or for an inaccurate low-rank one an iterative solver."""
    return "solver='cg', which forms no difference" if solver == "low_rank" else "solver='dense'"
