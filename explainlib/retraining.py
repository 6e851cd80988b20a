"""Ground truth: what really happens when data are removed. The oracle of tests, studies and panels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_choice, require_groups
from explainlib.influence.removal import Removal, removal_weights
from explainlib.risk import Risk, require_minimum
from explainlib.training import minimise


@dataclass(frozen=True)
class Retrained(Removal):
    """Parameters after each of g groups was removed, found by retraining; ``change`` is from ``risk.theta``."""

    gradient_norm: Float[Tensor, " g"] | None = None


@compute.entry
def leave_out(
    risk: Risk,
    groups: Sequence[Sequence[int] | Int[Tensor, " _"]],
    *,
    method: str = "newton",
    weighting: str = "preserve",
    tolerance: float = 1e-10,
    strict: bool = False,
    on_failure: str = "raise",
) -> Retrained:
    """Return the retrained parameters without each group: g problems solved to a stationary point in one batch.

    Args:
        risk: at a minimum, from where each problem starts; otherwise a warning, or with ``strict`` an error.
        groups: g lists of distinct training examples, none empty, none all of them.
        method: "newton" iterates truncated Newton with line search from ``risk.theta`` to ``tolerance``.
        weighting: "preserve": the mean over the examples that remain, same ridge; "plain": every other weight stays
            1/n. Predictions and truth have to use the same one: otherwise every test point's change is shifted by about
            l2 H^-1 theta/(n-1), the same for every removal.
        tolerance: on the gradient's norm; in float32 never below 1e-5.
        strict: raise where the risk is not at a minimum.
        on_failure: "raise" or "warn" when a problem does not converge; its status stays in the result.

    Returns:
        Retrained, with a status per group.

    Raises:
        MinimiseError: a problem did not converge.
        ValueError: a bad group or option.
    """
    require_choice("method", method, ("newton",), later=("finetune", "scratch"))
    checked = require_groups(groups, risk.n)
    weights = removal_weights(risk, checked, weighting)
    require_minimum(risk, strict=strict, user="a change from retraining")
    minima = minimise(risk, weights=weights, tolerance=tolerance, on_failure=on_failure)
    return Retrained(
        risk, checked, minima.theta, weighting, minima.status, "retrained", gradient_norm=minima.gradient_norm
    )
