"""Conjugate gradients for many right-hand sides at once, with products alone.

minimise over x:  1/2 x^T A x - b^T x,   each step conjugate to the ones before (Hestenes & Stiefel 1952).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.solvers.remedies import Remedies
from explainlib.solvers.solution import Solution, overall_status, row_statuses, steps_between_checks

Operator = Callable[[Float[Tensor, "k p"]], Float[Tensor, "k p"]]
REMEDIES = Remedies(shift="add a multiple of the identity to the product", longer="allow more max_steps")


def cg(
    product: Operator,
    rhs: Float[Tensor, "k p"],
    *,
    tolerance: float | Float[Tensor, " k"] | None = None,
    max_steps: int | None = None,
    preconditioner: Operator | None = None,
) -> Solution:
    """Return x with |A x - b| <= tolerance |b| for every row.

    Args:
        product: v -> A v on rows [k, p]; A may differ from row to row.
        rhs: b [k, p].
        tolerance: relative, one for all rows or one a row; default 1e-10 in float64, 1e-5 in float32.
        max_steps: default min(10 p, 5000).
        preconditioner: r -> M^-1 r, symmetric positive definite, close to A^-1.

    Returns:
        Solution; a row with a direction of zero or negative curvature keeps its last iterate and has the status
        not_positive_definite. The residual is computed from its definition, not by the recurrence.
    """
    if tolerance is None:
        tolerance = 1e-10 if rhs.dtype == torch.float64 else 1e-5
    max_steps = min(10 * rhs.shape[1], 5000) if max_steps is None else max_steps
    precondition = preconditioner or (lambda r: r)
    size = rhs.norm(dim=1)
    goal = tolerance * size
    x, r = torch.zeros_like(rhs), rhs.clone()
    z = precondition(r)
    direction, rz = z.clone(), (r * z).sum(1)
    live, indefinite = size > 0, torch.zeros_like(size, dtype=torch.bool)
    steps, every, used = 0, steps_between_checks(rhs), torch.zeros((), dtype=torch.int64, device=rhs.device)
    while steps < max_steps and (steps % every or live.any()):
        used += live.any()
        moved = product(direction)
        curvature = (direction * moved).sum(1)
        indefinite |= live & (curvature <= 0)
        live = live & (curvature > 0)
        step = torch.where(live, rz / torch.where(live, curvature, 1.0), 0.0)
        x = x + step[:, None] * direction
        r = r - step[:, None] * moved
        live = live & (r.norm(dim=1) > goal)
        z = precondition(r)
        rz, before = (r * z).sum(1), rz
        ratio = torch.where(live, rz / torch.where(before == 0, 1.0, before), 0.0)
        direction = z + ratio[:, None] * direction
        steps += 1
    residual = (product(x) - rhs).norm(dim=1) / size.clamp(min=torch.finfo(rhs.dtype).tiny)
    # the recurrence's residual and the true one differ by rounding: up to ten times the tolerance is accepted
    rows = row_statuses(x, residual, 10 * tolerance, otherwise="max_steps", failed=indefinite)
    return Solution(x, overall_status(rows), int(used), residual, rows=rows, remedies=REMEDIES)
