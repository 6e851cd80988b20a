"""The solve with EK-FAC, by its eigendecomposition."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.curvature.ekfac import Ekfac
from explainlib.solvers.remedies import Remedies
from explainlib.solvers.solution import Solution, direct_tolerance, overall_status, row_statuses

CHECKED_ROWS = 8  # rows for which the residual is computed
REMEDIES = Remedies(shift="pass a larger damping")


def ekfac_solve(ekfac: Ekfac, rhs: Float[Tensor, "k p"], *, damping: int | float = 0.0) -> Solution:
    """Return (EK-FAC + damping I)^-1 b for rows b, the ridge being inside EK-FAC.

    Args:
        ekfac: a fitted approximation.
        rhs: b [k, p].
        damping: absolute, >= 0.

    Returns:
        Solution, whose residual is the largest of the first 8 rows; rank_deficient where an eigenvalue is at rounding
        level (no l2 and no damping), and inaccurate where the residual is above 1e-5 in float64 or 1e-3 in float32, and
        above 100 eps |A| |x| / |b|, the effect of rounding x.
    """
    rhs = ekfac.covered(rhs)
    value = ekfac.inverse_product(rhs, damping=damping)
    shifted = ekfac.eigenvalues + damping
    # a mean of squares: rounding at a zero eigenvalue is squared
    null = int((shifted <= torch.finfo(rhs.dtype).eps * shifted.max()).sum())
    if null:
        detail = f"{null} of {ekfac.p} eigenvalues of EK-FAC are at rounding level"
        infinite = rhs.new_full((len(rhs),), float("inf"))
        return Solution(value, "rank_deficient", 0, infinite, detail, remedies=REMEDIES)
    checked = slice(0, CHECKED_ROWS)  # checking every row would double the cost
    size = rhs[checked].norm(dim=1).clamp(min=torch.finfo(rhs.dtype).tiny)
    back = ekfac.product(value[checked]) + damping * value[checked]
    residual = (back - rhs[checked]).norm(dim=1) / size
    rounding = 100 * torch.finfo(rhs.dtype).eps * shifted.max() * value[checked].norm(dim=1) / size  # of a correct x
    worst = torch.where(residual <= rounding, 0.0, residual).max().expand(len(rhs))
    rows = row_statuses(value, worst, direct_tolerance(rhs.dtype), otherwise="inaccurate")
    return Solution(value, overall_status(rows), 0, residual.max().expand(len(rhs)), "EK-FAC", remedies=REMEDIES)
