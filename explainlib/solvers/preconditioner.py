"""Preconditioners of conjugate gradients: the whole factored Hessian, or one block per output."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.curvature.gauss_newton import gauss_newton_blocks
from explainlib.curvature.hessian import hessian
from explainlib.risk import Risk
from explainlib.solvers.cg import Operator

CACHE_UP_TO = 8000  # parameters; matrix and factor of that size take 1 GB, cached by their risk


def preconditioner(risk: Risk, *, damping: float = 0.0, up_to: int = 4000) -> Operator | None:
    """Return r -> M^-1 r with M close to H + damping I, for CG on this risk or on problems near it; or None.

    Up to ``up_to`` parameters M is the whole Hessian, factored once; above, where only a final layer is trained, its
    diagonal blocks; otherwise, and for an indefinite Hessian, None.

    Args:
        risk: gives the Hessian, at its theta.
        damping: absolute, >= 0.
        up_to: parameters up to which the Hessian is factored.
    """
    factored = risk.cached_or_none(("factor", "hessian", damping, None))
    if factored is not None and factored.definite:  # already factored by a dense solve
        known = factored.triangle.to(risk.theta)
        return lambda rows: torch.cholesky_solve(rows.T, known).T
    if risk.p <= up_to:
        make = lambda: _shifted_cholesky(hessian(risk)[None], damping)  # noqa: E731
        key = ("preconditioner", damping)
        triangle = risk.cached(key, make) if risk.p <= CACHE_UP_TO else make()
        return None if triangle is None else lambda rows: torch.cholesky_solve(rows.T, triangle[0]).T
    return block_preconditioner(risk, damping=damping)


def block_preconditioner(risk: Risk, *, damping: float = 0.0) -> Operator | None:
    """Return the inverse of one block per output of a trained final layer; None where it would not save time.

    It does not with fewer than two examples per feature: then a Hessian product costs less than one with the blocks.
    """
    if risk.head is None or risk.n < 2 * risk.features().shape[1]:
        return None

    def make() -> Tensor | None:
        triangles = _shifted_cholesky(gauss_newton_blocks(risk), damping)
        return None if triangles is None else torch.cholesky_inverse(triangles)

    inverses = risk.cached(("blocks", damping), make)
    if inverses is None:
        return None
    return lambda rows: risk.head.flat((risk.head.matrix(rows).transpose(0, 1) @ inverses).transpose(0, 1))


def _shifted_cholesky(matrices: Float[Tensor, "b d d"], damping: float) -> Float[Tensor, "b d d"] | None:
    """Return Cholesky factors of matrices + damping I, or None if one of them is indefinite.

    A matrix singular at rounding level gets 1e-8 of its largest diagonal entry on the diagonal; CG corrects for it.
    """
    diagonals = matrices.diagonal(dim1=1, dim2=2)
    diagonals.add_(damping)
    for lift in (0.0, 1e-8 * float(diagonals.max())):
        diagonals.add_(lift)
        triangles, failed = torch.linalg.cholesky_ex(matrices)
        if not failed.any():
            return triangles
    return None
