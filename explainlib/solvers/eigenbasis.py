"""A solve where the eigenvectors are known: rotate, divide, rotate back."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.curvature.ekfac import Ekfac
from explainlib.solvers.remedies import Remedies
from explainlib.solvers.solution import Solution, direct_tolerance, row_statuses, worst_of

CHECKED = 8  # rows whose residual stands for all
REMEDIES = Remedies(shift="pass a larger damping")


def ekfac_solve(ekfac: Ekfac, rhs: Float[Tensor, "k p"], *, damping: int | float = 0.0) -> Solution:
    """Return (EK-FAC + damping I)^-1 b for rows b, the ridge being inside EK-FAC.

    Args:
        ekfac: fitted; it can be used for any number of solves.
        rhs: b [k, p].
        damping: absolute, >= 0.

    Returns:
        Solution, whose residual is the largest of the first 8 rows; rank_deficient where an eigenvalue is at rounding
        level because neither l2 nor damping lifts it, and inaccurate where the residual is above 1e-5 in float64 or
        1e-3 in float32, and above what the rounding of a right answer leaves, 100 eps |A| |x| / |b|.
    """
    value = ekfac.inverse_product(rhs, damping=damping)
    shifted = ekfac.eigenvalues + damping
    # a mean of squares: where it should be zero, rounding leaves the square of what it leaves elsewhere
    null = int((shifted <= torch.finfo(rhs.dtype).eps * shifted.max()).sum())
    if null:
        detail = f"{null} of {ekfac.p} eigenvalues of EK-FAC are at rounding level"
        lost = rhs.new_full((len(rhs),), float("inf"))
        return Solution(value, "rank_deficient", 0, lost, detail, remedies=REMEDIES)
    few = slice(0, CHECKED)  # a check of every row would double the work
    size = rhs[few].norm(dim=1).clamp(min=torch.finfo(rhs.dtype).tiny)
    back = ekfac.product(value[few]) + damping * value[few]
    residual = (back - rhs[few]).norm(dim=1) / size
    stored = 100 * torch.finfo(rhs.dtype).eps * shifted.max() * value[few].norm(dim=1) / size  # a right x, rounded
    worst = torch.where(residual <= stored, 0.0, residual).max().expand(len(rhs))
    rows = row_statuses(value, worst, direct_tolerance(rhs.dtype), otherwise="inaccurate")
    return Solution(value, worst_of(rows), 0, residual.max().expand(len(rhs)), "EK-FAC", remedies=REMEDIES)
