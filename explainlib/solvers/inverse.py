"""The inverse of a curvature, by choice of matrix, solver, damping and kept eigenvalues.

(curvature + damping I)^+ b        curvature in {hessian, gauss_newton, empirical_fisher, identity, ekfac}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_choice, require_nonnegative
from explainlib.curvature.ekfac import Ekfac
from explainlib.curvature.kronecker import UncoveredError
from explainlib.risk import Risk, risk_fingerprint
from explainlib.solvers.configured import MATRICES, SOLVERS, STORED, Dense, Inverse, LowRankSolver, Solver
from explainlib.solvers.dense import Keep, require_keep
from explainlib.solvers.eigenbasis import ekfac_solve
from explainlib.solvers.remedies import risk_remedies
from explainlib.solvers.solution import Solution
from explainlib.storage import Store

CURVATURES = (*MATRICES, "identity", "ekfac")
OFFERS = ("curvature", "solver", "damping", "keep")


@dataclass(frozen=True, eq=False)
class FittedInverse:
    """b -> (curvature + damping I)^+ b of one risk, fitted once for many calls; made by ``inverse_curvature``.

    ``loss_influence(risk, test, curvature=fitted)`` and its relatives take it in the place of a name; its solver,
    damping and kept eigenvalues are then those of the fit.

    Attributes:
        risk: where it was fitted.
        curvature: its name.
        solver: configured.
        damping: absolute.
        keep: the kept eigenvalues, as in ``Factor``.
        solve: rows b [k, p] -> ``Solution``.
    """

    risk: Risk = field(repr=False)
    curvature: str
    solver: Solver
    damping: float
    keep: Keep
    solve: Inverse = field(repr=False)

    def __call__(self, rhs: Float[Tensor, "k p"]) -> Solution:
        """Return the solution for rows b [k, p]."""
        return self.solve(rhs)


Curvature = str | Ekfac | FittedInverse


def curvature_name(curvature: Curvature) -> str:
    """Return the name of a curvature: its own, "ekfac" for an ``Ekfac``, and that of the fit for a fitted inverse."""
    if isinstance(curvature, FittedInverse):
        return curvature.curvature
    return "ekfac" if isinstance(curvature, Ekfac) else curvature


def inverse_curvature(
    risk: Risk,
    *,
    curvature: Curvature = "hessian",
    solver: str | Solver = "dense",
    damping: float = 0.0,
    keep: Keep = None,
    offers: Sequence[str] = OFFERS,
    store: str | Path | None = None,
) -> FittedInverse:
    """Return b -> (curvature + damping I)^+ b on rows b [k, p]; what can be factored is factored once, in this call.

    Args:
        risk: gives the curvature, at its theta.
        curvature: "hessian", "gauss_newton" (both with the ridge), "empirical_fisher" (without), "identity", "ekfac"
            (with the ridge; fitted once per risk), a fitted ``Ekfac``, or an inverse that was fitted before on the same
            problem, which is returned.
        solver: "dense", "cg", "lissa", "neumann", "low_rank", "arnoldi", or one of their configured objects, e.g.
            ``Lissa(batch_size=50)``. With EK-FAC "dense" divides in its eigenbasis.
        damping: absolute, >= 0.
        keep: dense and low_rank only, and a count for arnoldi; see ``kept_eigenvalues``.
        offers: which of the four options above the called function has; a message names no other.
        store: a folder for the fit of "dense" (the matrix), "low_rank" (its factor) and "arnoldi" (the vectors found so
            far): a later process reads it, an interrupted one goes on, another computation is refused. EK-FAC has its
            own: ``xl.curvature.Ekfac(risk, store=...)``.

    Raises:
        ValueError: an unknown name, a combination without meaning, or an inverse fitted on another problem.
    """
    if isinstance(curvature, FittedInverse):
        return _require_fit_of(risk, curvature, solver, damping, keep, store)
    if not isinstance(curvature, Ekfac):
        require_choice("curvature", curvature, CURVATURES)
    require_nonnegative("damping", damping)
    require_keep(keep)
    if isinstance(solver, str):
        solver = SOLVERS[require_choice("solver", solver, tuple(SOLVERS))]()
    if not isinstance(solver, Solver):
        raise TypeError(
            f"solver is a {type(solver).__name__}; pass one of {', '.join(map(repr, SOLVERS))} or xl.solvers.CG()."
        )
    kind = curvature_name(curvature)
    kept = _fit_store(risk, kind, solver, damping, keep, store)
    if kind == "identity":
        if keep is not None:
            raise ValueError(f"keep={keep!r} chooses eigenvalues, and those of the identity are all 1; drop keep.")
        solve = lambda rhs: Solution(rhs / (1 + damping), "converged", 0, rhs.new_zeros(len(rhs)))  # noqa: E731
        return FittedInverse(risk, kind, solver, damping, keep, solve)
    if kind == "ekfac":
        solve = _ekfac_inverse(risk, curvature, solver, damping, keep)
    else:
        _require_factor(risk, curvature, solver, offers)
        solve = solver.prepare(risk, curvature, damping, keep, **({} if kept is None else {"store": kept}))
    name = next(name for name, made in SOLVERS.items() if type(solver) is made)
    ridge = getattr(risk, "has_ridge", True)
    remedies = risk_remedies(risk.theta.dtype, offers=offers, curvature=kind, solver=name, has_ridge=ridge)
    return FittedInverse(risk, kind, solver, damping, keep, lambda rhs: replace(solve(rhs), remedies=remedies))


def _require_fit_of(
    risk: Risk, fitted: FittedInverse, solver: str | Solver, damping: float, keep: Keep, store: str | Path | None
) -> FittedInverse:
    """Return a fitted inverse that belongs to these parameters, and to which no other option was passed."""
    given = {"solver": solver, "damping": damping, "keep": keep, "store": store}
    unchanged = {"solver": ("dense", fitted.solver), "damping": (0.0, fitted.damping), "keep": (None, fitted.keep)}
    for name, value in given.items():
        if value not in unchanged.get(name, (None,)):
            raise ValueError(
                f"{name}={value!r} cannot change an inverse that is fitted already; pass it to "
                f"xl.solvers.inverse_curvature(risk, ..., {name}={value!r})."
            )
    if differing := list(_differences(fitted.risk, risk)):
        raise ValueError(
            f"the inverse was fitted with {' and '.join(differing)} than this risk has; fit it again with "
            "xl.solvers.inverse_curvature(risk, ...)."
        )
    return fitted


def _differences(fitted: Risk, risk: Risk) -> Iterator[str]:
    """Yield what differs between two risks; the same object differs in nothing."""
    device = risk.theta.device
    if fitted is risk:
        return
    if fitted.parameters.names != risk.parameters.names or not _equal(fitted.theta, risk.theta, device):
        yield "other parameters"
    if fitted.loss.name != risk.loss.name or fitted.l2 != risk.l2:
        yield "another loss or ridge"
    x, own_x = risk.train.x, fitted.train.x
    same_x = own_x is x or (isinstance(x, Tensor) and isinstance(own_x, Tensor) and _equal(own_x, x, device))
    if not same_x or not _equal(fitted.train.y, risk.train.y, device):
        yield "other training examples"
    elif not _equal(fitted.weights_or_ones(), risk.weights_or_ones(), device):
        yield "other weights"


def _equal(one: Tensor, other: Tensor, device: torch.device) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one.to(device), other.to(device))


def _fit_store(
    risk: Risk, kind: str, solver: Solver, damping: float, keep: Keep, folder: str | Path | None
) -> Store | None:
    """Return the store of a fit."""
    if folder is None:
        return None
    if kind == "ekfac":
        raise ValueError("store= keeps no EK-FAC; pass curvature=xl.curvature.Ekfac(risk, store=...).")
    if kind == "identity" or not isinstance(solver, STORED):
        what = "the identity" if kind == "identity" else f"solver={type(solver).__name__}"
        raise ValueError(
            f"{what} computes nothing in advance that a store could keep; drop store here, and keep the scores with "
            "loss_influence(..., store=...)."
        )
    options = {"curvature": kind, "solver": repr(solver), "damping": float(damping), "keep": _plain(keep)}
    sources = {"theta": risk.theta, "weights": risk.weights_or_ones()}
    return Store(folder, risk_fingerprint(risk, risk.theta, sources, {"computed": "inverse curvature", **options}))


def _plain(keep: Keep) -> float | str | None:
    return keep if keep is None or isinstance(keep, int | float | str) else repr(keep)


def _require_factor(risk: Risk, curvature: str, solver: Solver, offers: Sequence[str]) -> None:
    """Raise for a low-rank solve of a Hessian that is not a Gauss-Newton matrix."""
    if isinstance(solver, LowRankSolver) and curvature == "hessian" and risk.head is None:
        other = "curvature='gauss_newton', or " if "curvature" in offers else ""
        raise ValueError(
            "the Hessian of this model is not a sum of outer products, so it has no low-rank factor; "
            f"pass {other}solver='cg'."
        )


def _ekfac_inverse(risk: Risk, curvature: Curvature, solver: Solver, damping: float, keep: Keep) -> Inverse:
    """Return the division by EK-FAC's eigenvalues; the fit is cached by the risk."""
    if keep is not None:
        raise ValueError(f"keep={keep!r} would prune EK-FAC's spectrum; drop keep, and pass damping > 0 instead.")
    if not isinstance(solver, Dense):
        raise ValueError(
            f"solver={type(solver).__name__} has nothing to do for curvature='ekfac', whose eigenvectors are known; "
            "leave solver='dense', or choose curvature='gauss_newton' for an iterative solve."
        )
    fitted = risk.cached(("ekfac",), lambda: _fit_ekfac(risk)) if curvature == "ekfac" else curvature
    if fitted.p != risk.p:
        raise ValueError(f"the Ekfac has {fitted.p} parameters, the risk {risk.p}; fit it on this risk.")
    return lambda rhs: ekfac_solve(fitted, rhs, damping=damping)


def _fit_ekfac(risk: Risk) -> Ekfac:
    """Return the fit; an uncovered layer raises with a curvature that covers all layers."""
    try:
        return Ekfac(risk)
    except UncoveredError as error:
        raise UncoveredError(error.outside, error.covered, otherwise="pass curvature='gauss_newton'") from None
