"""L-BFGS on an objective whose points carry what it takes to go on, by scipy.

The line search of scipy needs finite numbers: where an objective has none, as an inner problem that was not solved or a
loss that overflows, it is told a large value, and backtracks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

MEMORY = 30  # pairs of steps and gradients
HIGH = 1e3  # times the best value and 1: what the line search is told where there is none


@runtime_checkable
class Evaluated(Protocol):
    """An objective at one point.

    Attributes:
        value: of the objective; infinite or NaN where there is none.
        gradient: its gradient [q].
    """

    value: float
    gradient: Tensor


Point = TypeVar("Point", bound=Evaluated)


def lbfgs(
    evaluate: Callable[[Float[Tensor, " q"]], Point],
    start: Float[Tensor, " q"],
    first: Point,
    *,
    max_steps: int,
    least: float,
    gradient_tolerance: float = 0.0,
) -> tuple[Point, bool]:
    """Return (the lowest point that was passed, whether the steps ran out).

    Args:
        evaluate: the objective.
        start: where to begin [q].
        first: the objective there.
        max_steps: at most; twice as many evaluations.
        least: stop once the gradient of the lowest point is as short.
        gradient_tolerance: stop once no entry of the gradient is larger.
    """
    from scipy.optimize import minimize  # a third of a second that importing this package would take

    best = first

    def value_and_gradient(x: np.ndarray) -> tuple[float, np.ndarray]:
        nonlocal best
        found = evaluate(torch.as_tensor(x.copy()).to(start))
        if not math.isfinite(found.value) or not torch.isfinite(found.gradient).all():
            return HIGH * (1 + abs(best.value)), best.gradient.double().cpu().numpy()
        best = found if found.value <= best.value else best
        return found.value, found.gradient.double().cpu().numpy()

    def stop_when_small(_: np.ndarray) -> None:
        if best.gradient.norm() <= least:
            raise StopIteration

    options = {"maxiter": max_steps, "maxfun": 2 * max_steps, "gtol": gradient_tolerance, "ftol": 0.0, "maxcor": MEMORY}
    at = start.double().cpu().numpy()
    ended = minimize(value_and_gradient, at, jac=True, method="L-BFGS-B", callback=stop_when_small, options=options)
    return best, ended.status == 1
