"""Euclidean projections onto the two sets over which group selection is relaxed.

    capped simplex   { 0 <= w_i <= 1, sum_i w_i = k }        the convex hull of the groups of k examples
    L1 ball          { sum_i |w_i| <= k }                    the published one: single weights may be as large as k

Both are max(x - tau, 0) up to a cap or a sign, for one threshold tau a row that sorting finds exactly: O(n log n).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_finite, require_positive


def capped_simplex_projection(x: Float[Tensor, "*s n"], total: int | float) -> Float[Tensor, "*s n"]:
    """Return the point of { 0 <= w <= 1, sum w = total } nearest to each row of x.

    It is w = clip(x - tau, 0, 1), and sum clip(x - tau, 0, 1) is piecewise linear and decreasing in tau: between two
    neighbouring breakpoints x_i, x_i - 1 its slope is minus the number of coordinates inside the box.

    Args:
        x: finite, any number of rows.
        total: 0 < total <= n.

    Returns:
        [*s, n], each row summing to total.

    Raises:
        ValueError: NaN or infinite values, or a total outside (0, n].

    Example: of a total of 2, the large coordinate gets no more than 1.

        >>> capped_simplex_projection(torch.tensor([9.0, 0.5, 0.5]), 2.0)
        tensor([1.0000, 0.5000, 0.5000])
    """
    require_finite("x", x)
    n = x.shape[-1]
    if not 0 < total <= n:
        raise ValueError(f"total={total} cannot be reached by {n} weights between 0 and 1; pass 0 < total <= {n}.")
    breaks, order = torch.cat([x, x - 1], dim=-1).sort(dim=-1, descending=True)
    in_box = torch.where(order < n, 1, -1).cumsum(-1)  # coordinates strictly in the box just below each breakpoint
    increments = (breaks[..., :-1] - breaks[..., 1:]) * in_box[..., :-1]
    sums = increments.cumsum(-1)  # of w, at every breakpoint but the first, where it is 0
    at = (sums < total).sum(-1, keepdim=True).clamp(max=2 * n - 2)
    middle = (breaks.gather(-1, at) + breaks.gather(-1, at + 1)) / 2
    full, free = x - 1 >= middle, (x > middle) & (x - 1 < middle)
    # tau from the equation of its linear piece, without the rounding of the cumulative sum
    tau = (torch.where(free, x, 0.0).sum(-1, keepdim=True) + full.sum(-1, keepdim=True) - total) / free.sum(
        -1, keepdim=True
    ).clamp(min=1)
    return torch.where(free.any(-1, keepdim=True), (x - tau).clamp(0, 1), full.to(x.dtype))


def l1_ball_projection(x: Float[Tensor, "*s n"], radius: int | float) -> Float[Tensor, "*s n"]:
    """Return the point of { sum |w| <= radius } nearest to each row of x.

    Args:
        x: finite, any number of rows.
        radius: above zero.

    Returns:
        [*s, n]; a row inside the ball is returned unchanged, others are soft-thresholded.

    Raises:
        ValueError: NaN or infinite values, or a radius that is not above zero.

    Source: Duchi et al. 2008, Figure 1 and eq. (4) of "Efficient projections onto the L1-ball for learning in high
    dimensions".

    Example: lowering both magnitudes by 1 leaves a sum of 2.

        >>> l1_ball_projection(torch.tensor([3.0, -1.0]), 2.0)
        tensor([2., -0.])
    """
    require_finite("x", x)
    require_positive("radius", float(radius))
    size = x.abs()
    sorted_size = size.sort(dim=-1, descending=True).values
    count = torch.arange(1, x.shape[-1] + 1, device=x.device)
    thresholds = (sorted_size.cumsum(-1) - radius) / count
    last = (sorted_size > thresholds).sum(-1, keepdim=True) - 1  # the largest count that keeps its smallest positive
    shrunk = x.sign() * (size - thresholds.gather(-1, last)).clamp(min=0)
    return torch.where(size.sum(-1, keepdim=True) <= radius, x, shrunk)
