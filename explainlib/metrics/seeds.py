"""Intervals that count seeds: the tests of one seed share one network, so they are one observation and not many."""

from __future__ import annotations

import math

from jaxtyping import Float
from scipy import stats
from torch import Tensor

from explainlib.checks import require_shape, require_table, require_tensor
from explainlib.metrics.agreement import Estimate


def clustered_mean(values: Float[Tensor, "s t"]) -> Estimate:
    """Return the mean over seeds of the means over tests, with its 95% t interval over the s seeds.

    The tests of one seed share one network and are not independent, so the seeds are the sample; one seed gives
    no interval.

    Raises:
        ValueError: NaN, no seeds or no tests.

    Example: the means 1 and 3 of two seeds; t = 12.706 with one degree of freedom, times a standard error of 1.

        >>> import torch
        >>> clustered_mean(torch.tensor([[0.0, 2.0], [3.0, 3.0]]))
        2.000 [-10.706, 14.706]
    """
    require_float_table("values", values)
    seeds = values.double().mean(1)
    s = len(seeds)
    half = float(stats.t.ppf(0.975, s - 1)) * float(seeds.std()) / math.sqrt(s) if s > 1 else math.nan
    centre = float(seeds.mean())
    return Estimate(centre, centre - half, centre + half)


def paired_difference(a: Float[Tensor, "s t"], b: Float[Tensor, "s t"]) -> Estimate:
    """Return by how much ``a`` exceeds ``b`` on the same seeds and tests, with a 95% interval clustered by seed.

    Args:
        a: [seed, test], for instance ``deletion_auc`` of one method, a row per seed.
        b: the same of the other method.

    Raises:
        ValueError: unequal shapes, or NaN.
    """
    require_float_table("a", a)
    require_float_table("b", b)
    require_shape("b", b, a.shape, meaning="like a: the same seeds and the same tests")
    return clustered_mean(a - b)


def curve_intervals(changes: Float[Tensor, "s t k"]) -> tuple[Estimate, ...]:
    """Return the deletion curve with its 95% interval at each share, clustered by seed; paired: pass a difference.

    Args:
        changes: [seed, test, share], ``deletion_curve`` of each seed; or one method's minus another's.

    Raises:
        ValueError: NaN, or not three dimensions.
    """
    require_shape("changes", changes, [None, None, None], meaning="(seed, test, share)")
    return tuple(clustered_mean(changes[:, :, j]) for j in range(changes.shape[2]))


def require_float_table(name: str, value: object) -> Tensor:
    """Return ``value`` if it is a finite floating-point table that holds something."""
    if not require_tensor(name, value).is_floating_point():
        raise TypeError(f"{name} has dtype {value.dtype}, expected floating point; pass it with .double().")
    require_table(name, value)
    if not value.numel():
        raise ValueError(f"{name} has shape {list(value.shape)} and holds nothing; pass at least one row and column.")
    return value
