"""An inverse by the Neumann series, truncated at a tolerance or at a given depth.

    A^-1 b = 1/scale sum_{j=0}^inf (I - A/scale)^j b,      A = curvature + damping I,
    h_0 = b/scale,      h_{d+1} = h_d + (b - A h_d)/scale.

h_d is the sum up to j = d, and b - A h_d = (I - A/scale)^(d+1) b is the remainder. The series converges when every
eigenvalue of A/scale lies in (0, 2). For a symmetric A the squared length of the remainder is a convex function of d:
once it rises it keeps rising, so divergence is detected early. A growing remainder converges to the eigenvector
with the eigenvalue outside (0, 2 scale), which its Rayleigh quotient estimates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_count, require_nonnegative, require_positive
from explainlib.curvature.spectrum import lanczos
from explainlib.progress import tqdm
from explainlib.solvers.remedies import Remedies
from explainlib.solvers.solution import Solution, row_statuses

Operator = Callable[[Float[Tensor, "k p"]], Float[Tensor, "k p"]]
Scale = int | float | Float[Tensor, " k"]
SCALE_TOLERANCE = 1e-3  # of that eigenvector's residual, far within the margin
MARGIN = 1.1  # the automatic scale is this many times the top eigenvalue
GROWTH = 10  # growth of the remainder that counts as divergence; far above rounding
POWER_STEPS = 50  # most power iterations to estimate the diverging eigenvalue
REMEDIES = Remedies(shift="pass a larger damping", longer="allow more max_steps", scale="pass scale=...")


def neumann(
    product: Operator,
    rhs: Float[Tensor, "k p"],
    *,
    scale: Scale | None = None,
    damping: int | float = 0.0,
    tolerance: int | float = 1e-6,
    max_steps: int = 20_000,
    steps: int | None = None,
    name: str = "Neumann series",
) -> Solution:
    """Return (curvature + damping I)^-1 b by the truncated Neumann series.

    Args:
        product: v -> curvature times v on rows [k, p], symmetric; it may differ from row to row if ``scale`` is given.
        rhs: b [k, p].
        scale: above half the largest eigenvalue of the damped curvature, one for all rows or one a row; None takes 1.1
            times that eigenvalue, found by Lanczos on single rows.
        damping: added to the curvature, >= 0.
        tolerance: on |A x - b| / |b|.
        max_steps: about log(1/tolerance) scale / (smallest eigenvalue) are needed.
        steps: truncate at this depth instead, at any remainder; 0 is the single term b/scale.
        name: of the progress bar.

    Returns:
        Solution. With ``steps`` the status is "converged" and the residual is that of the depth. With "diverged" comes
        an estimate of the eigenvalue outside (0, 2 scale).

    Raises:
        ValueError: a scale that is not above zero, a negative damping, or steps that are not a count.

    Source: Lorraine et al. 2020, who take a fixed depth and the scale as a learning rate.

    Example: 1/2 as 1/4 (1 + 1/2 + 1/4 + ...).

        >>> neumann(lambda v: 2 * v, torch.tensor([[1.0]]), scale=4.0, steps=2).value.item()
        0.4375
    """
    require_nonnegative("damping", damping)
    damped: Operator = lambda v: product(v) + damping * v  # noqa: E731
    width = _scales(scale, damped, rhs)
    last = max_steps if steps is None else require_count("steps", steps, least=0)
    size = rhs.norm(dim=1).clamp(min=torch.finfo(rhs.dtype).tiny)
    smallest = torch.full_like(size, math.inf)
    with tqdm(total=last, desc=name, delay=2.0, leave=False) as bar:
        for depth, (h, remainder) in enumerate(_sums(damped, rhs, width)):  # noqa: B007 - the last h is the answer
            residual = remainder.norm(dim=1) / size
            smallest = torch.minimum(smallest, residual)
            status = _divergence_status(residual, smallest, depth)
            if status is None and steps is None and (residual <= tolerance).all():
                status = "converged"
            elif status is None and depth == last:
                status = "max_steps" if steps is None else "converged"
            if status is not None:
                break
            bar.update()
    detail = f"scale {float(width.max()):.3g}"
    outside = _diverging_eigenvalue(damped, remainder, residual / smallest, width) if status == "diverged" else None
    if outside is not None:
        detail += f", and the damped curvature has an eigenvalue near {outside:.3g}"
    elif steps is not None:
        detail += f", cut at depth {steps} as asked"
    rows = () if steps is not None else row_statuses(h, residual, tolerance, otherwise=status)
    return Solution(h, status, depth, residual, detail, rows=rows, eigenvalue=outside, remedies=REMEDIES)


def neumann_sums(
    product: Operator,
    rhs: Float[Tensor, "k p"],
    depths: Sequence[int],
    *,
    scale: Scale | None = None,
    damping: int | float = 0.0,
) -> Float[Tensor, "d k p"]:
    """Return the partial sums h_d of the series at several depths, in one pass; convergence is not checked.

    Args:
        product: as in ``neumann``, like the other arguments.
        rhs: b [k, p].
        depths: increasing, from 0 or more; the last is the number of products.
        scale: see ``neumann``.
        damping: see ``neumann``.

    Returns:
        [d, k, p], one for each depth; infinite or NaN where a series diverges.

    Raises:
        ValueError: depths that are empty or not increasing.
    """
    if not depths or list(depths) != sorted(set(depths)) or min(depths) < 0:
        raise ValueError(f"depths={list(depths)} have to rise from 0 or more; pass e.g. [0, 1, 2, 5, 10].")
    require_nonnegative("damping", damping)
    damped: Operator = lambda v: product(v) + damping * v  # noqa: E731
    wanted = set(depths)
    sums = zip(range(depths[-1] + 1), _sums(damped, rhs, _scales(scale, damped, rhs), residuals=False), strict=False)
    return torch.stack([h for depth, (h, _) in sums if depth in wanted])


def _sums(
    damped: Operator, rhs: Tensor, width: Tensor, *, residuals: bool = True
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield h_d and b - A h_d for d = 0, 1, ...; without residuals the last product is saved."""
    h = rhs / width
    while True:
        if not residuals:
            yield h, None
        remainder = rhs - damped(h)
        if residuals:
            yield h, remainder
        h = h + remainder / width


def _scales(scale: Scale | None, damped: Operator, rhs: Tensor) -> Float[Tensor, "k 1"]:
    """Return one scale a row, as a column."""
    if scale is None:
        top = float(lanczos(damped, rhs[0], 1, tolerance=SCALE_TOLERANCE))
        scale = MARGIN * top if top > 0 else 1.0  # not positive definite: the series diverges
    if not isinstance(scale, Tensor):
        scale = rhs.new_full((len(rhs),), require_positive("scale", scale))
    if scale.shape != (len(rhs),) or not (scale > 0).all():
        raise ValueError(f"scale has to be one number above zero, or one for each of the {len(rhs)} rows; got {scale}.")
    return scale[:, None]


def _divergence_status(residual: Tensor, smallest: Tensor, depth: int) -> str | None:
    """Return the status of a diverging series: a remainder far above its minimum and above rounding."""
    if not torch.isfinite(residual).all():
        return "nonfinite" if depth == 0 else "diverged"
    grown = (residual > GROWTH * smallest) & (residual > 1e4 * torch.finfo(residual.dtype).eps)
    return "diverged" if grown.any() else None


def _diverging_eigenvalue(damped: Operator, remainder: Tensor, growth: Tensor, width: Tensor) -> float | None:
    """Return the eigenvalue of the growing remainder by power iteration; None after overflow."""
    at = int(torch.where(growth.isfinite(), growth, 0.0).argmax())
    v, value = _unit(remainder), torch.zeros_like(width)
    if not torch.isfinite(v).all():
        return None
    for _ in range(POWER_STEPS):  # the map of the series, so the same eigenvector dominates
        moved = damped(v)
        before, value = value, (v * moved).sum(1, keepdim=True)
        if not torch.isfinite(moved).all() or (value[at] - before[at]).abs() <= 1e-3 * value[at].abs():
            break
        v = _unit(v - moved / width)
    return float(value[at])


def _unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
