"""The minima of weighted problems, and the report on those that did not converge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import warn_caller
from explainlib.risk import Risk

STATUSES = {
    "converged": "the gradient is below the tolerance",
    "max_steps": "the gradient is still above the tolerance; without a ridge separable data have no finite minimum, "
    "and a network with ReLU kinks may have no stationary point nearby",
    "unbounded": "the gradient vanishes while the parameters diverge: there is no finite minimum, as always for "
    "separable data without a ridge",
    "stalled": "no step along the search direction lowers the risk; likely rounding, or a kink of the model",
    "nonfinite": "NaN or infinity appeared; look for overflow in the model's outputs and losses",
}
OFFERS = ("tolerance", "max_steps")  # options that a remedy may name


class MinimiseError(RuntimeError):
    """A minimisation that did not converge; ``minima`` holds the last parameters."""

    def __init__(self, message: str, minima: Minima) -> None:
        super().__init__(message)
        self.minima = minima


class MinimiseWarning(UserWarning):
    """A minimisation that did not converge, returned on request."""


@dataclass(frozen=True)
class Minima:
    """The minima of g weighted problems.

    Attributes:
        risk: the unweighted problem.
        weights: [g, n].
        theta: [g, p].
        status: a key of ``STATUSES`` for each problem.
        gradient_norm: |grad R_g| [g].
        steps: Newton steps [g].
    """

    risk: Risk
    weights: Float[Tensor, "g n"]
    theta: Float[Tensor, "g p"]
    status: tuple[str, ...]
    gradient_norm: Float[Tensor, " g"]
    steps: Tensor

    def __len__(self) -> int:
        """The number of problems."""
        return len(self.theta)

    def __getitem__(self, g: int) -> Risk:
        """Return problem g as a risk at its own minimum."""
        return self.risk.reweighted(self.weights[g]).at(self.theta[g])


def report(minima: Minima, on_failure: str, offers: Sequence[str] = OFFERS) -> None:
    """Return nothing; raise, or with "warn" only warn, where a problem did not converge.

    Args:
        minima: of all problems.
        on_failure: "raise" or "warn".
        offers: which of ``OFFERS`` the called function has; the message names no other.
    """
    failed = [g for g, status in enumerate(minima.status) if status != "converged"]
    if not failed:
        return
    first = failed[0]
    message = (
        f"{len(failed)} of {len(minima)} problems did not converge; the first, number {first}, {minima.status[first]}: "
        f"{STATUSES[minima.status[first]]}{_remedy(minima.risk, minima.status[first], offers)} "
        f"(|gradient| = {float(minima.gradient_norm[first]):.1e})."
    )
    if on_failure == "raise":
        raise MinimiseError(message, minima)
    warn_caller(message, MinimiseWarning)


def _remedy(risk: Risk, status: str, offers: Sequence[str]) -> str:
    """Return the remedies as the end of a sentence, the most likely first."""
    ridge = ["add l2 to the Risk"] * (risk.l2 == 0 and getattr(risk, "has_ridge", True))
    steps = ["allow more max_steps"] * ("max_steps" in offers)
    tolerance = ["pass a larger tolerance"] * ("tolerance" in offers)
    precise = ["use float64"] * (risk.theta.dtype != torch.float64)
    remedies = {
        "max_steps": [*steps, *ridge, *precise, *tolerance],
        "unbounded": ridge,
        "stalled": [*precise, *tolerance],
        "nonfinite": precise,
    }[status]
    return "; " + ", or ".join(remedies) if remedies else ""
