"""The result of a solve: a value and a status.

A status is a sentence for the user: what happened, the likely causes, what to pass instead (``remedies``, which are
those of the function that was called). A solve that failed raises by default; ``on_failure="warn"`` returns the
value, with the same sentence as a warning.

Every status comes from the residual |A x - b| / |b|, computed with the operator, not with its factorisation.
An iterative solver has a tolerance of its own. A direct one may leave 1e-5 where it works in float64 and 1e-3 where it
works in float32: about the error at a condition number of 1e10, or 1e4. Direct solves through a factorisation work in
float64 in any dtype, and are checked before rounding: rounding a correct x may leave a residual of eps times the
condition number.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from explainlib.checks import require_choice, warn_caller
from explainlib.solvers.remedies import Remedies

CHECKED_STEPS = 8  # of an iteration on a GPU: each check waits for the device
NONE = Remedies()
TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-3}  # of a direct solve, by its working dtype

STATUSES = {
    "converged": "solved to its tolerance",
    "not_positive_definite": "a direction of zero or negative curvature was met, which this solver cannot invert; "
    "likely the parameters are not at a minimum or have flat directions",
    "max_steps": "stopped before reaching its tolerance; likely the system is ill-conditioned (a small ridge) or the "
    "dtype is too coarse",
    "diverged": "the iteration grew without bound; either its scale is below half the largest eigenvalue of the "
    "curvature, or that curvature has a negative eigenvalue",
    "nonfinite": "NaN or infinity appeared; look for overflow in the model's outputs and losses",
    "rank_deficient": "the curvature is singular, so it has no inverse",
    "inaccurate": "rounding dominates the result; the system is too ill-conditioned for the dtype",
}


class SolverError(RuntimeError):
    """A solve that failed; ``solution`` holds the last value."""

    def __init__(self, message: str, solution: Solution) -> None:
        super().__init__(message)
        self.solution = solution


class SolverWarning(UserWarning):
    """A solve that failed, returned on request."""


@dataclass(frozen=True)
class Solution:
    """The rows x [k, p] of A x = b, and how the solve ended.

    Attributes:
        value: x [k, p].
        status: a key of ``STATUSES``.
        steps: matrix products or iterations used; 0 for a direct solve.
        residual: |A x - b| / |b| for each row [k]; for a pruned inverse b is first projected on the kept span.
        detail: details beyond the status.
        standard_error: of each entry [k, p], for a stochastic solver with repeats.
        rows: the status of each row, if the solver has one per row; ``row_status`` is never empty.
        eigenvalue: one that the solver could not invert, if known: see ``Remedies.for_status``.
        remedies: what the caller can change; of a solver called directly, its arguments.
    """

    value: Float[Tensor, "k p"]
    status: str
    steps: int
    residual: Float[Tensor, " k"]
    detail: str = ""
    standard_error: Float[Tensor, "k p"] | None = None
    rows: tuple[str, ...] = ()
    eigenvalue: float | None = None
    remedies: Remedies = NONE

    @property
    def converged(self) -> bool:
        """Whether the value may be used."""
        return self.status == "converged"

    @property
    def row_status(self) -> tuple[str, ...]:
        """The status of each row; where the solver has one for all, that one."""
        return self.rows or (self.status,) * len(self.value)

    @property
    def sentence(self) -> str:
        """The status in words: what happened, why, and what to do."""
        remedy = "" if self.converged else self.remedies.for_status(self.status, self.value.dtype, self.eigenvalue)
        numbers = f"largest relative residual {float(self.residual.max()):.1e} after {self.steps} steps"
        text = f"{self.status}: {STATUSES[self.status]}{'; ' + remedy if remedy else ''}"
        return f"{text} ({numbers}{'; ' + self.detail if self.detail else ''})."

    def require_converged(self, on_failure: str = "raise") -> Solution:
        """Return this solution if it converged; otherwise raise ``SolverError``, or with "warn" only warn."""
        require_choice("on_failure", on_failure, ("raise", "warn"))
        if not self.converged:
            if on_failure == "raise":
                raise SolverError(self.sentence, self)
            warn_caller(self.sentence, SolverWarning)
        return self


def steps_between_checks(like: Tensor) -> int:
    """Return at which step an iteration asks whether it has ended: each on the CPU, every eighth elsewhere.

    The question waits for the device; between two of them the host runs ahead. Rows that have ended stay as they are.

    Args:
        like: a tensor on the device of the iteration.
    """
    return 1 if like.device.type == "cpu" else CHECKED_STEPS


def row_statuses(
    value: Float[Tensor, "k p"],
    residual: Float[Tensor, " k"],
    tolerance: float | Float[Tensor, " k"],
    *,
    otherwise: str,
    failed: Bool[Tensor, " k"] | None = None,
    why: str = "not_positive_definite",
) -> tuple[str, ...]:
    """Return the status of each row: "nonfinite", ``why`` where it failed, "converged" within tolerance, or otherwise.

    Args:
        value: x.
        residual: |A x - b| / |b|.
        tolerance: one for all rows or one a row.
        otherwise: the status of a finite row above its tolerance.
        failed: rows that failed, at any residual.
        why: their status.
    """
    finite = torch.isfinite(value).all(1) & torch.isfinite(residual)
    bad = torch.zeros_like(finite) if failed is None else failed
    judged = zip(finite.tolist(), bad.tolist(), (residual <= tolerance).tolist(), strict=True)
    return tuple(
        "nonfinite" if not whole else why if lost else "converged" if near else otherwise
        for whole, lost, near in judged
    )


def overall_status(rows: tuple[str, ...]) -> str:
    """Return the status of the whole solve: nonfinite first, then the first that is not converged."""
    failed = [status for status in rows if status != "converged"]
    return "nonfinite" if "nonfinite" in failed else (failed or ["converged"])[0]


def direct_tolerance(dtype: torch.dtype) -> float:
    """Return ``TOLERANCE`` of the working dtype of a direct solve."""
    return TOLERANCE.get(dtype, TOLERANCE[torch.float32])


def direct_solution(
    value: Float[Tensor, "k p"],
    residual: Float[Tensor, " k"],
    detail: str,
    like: Tensor,
    *,
    failed: Bool[Tensor, " k"] | None = None,
    remedies: Remedies = NONE,
) -> Solution:
    """Return a direct solve, checked row by row in its working dtype and then rounded.

    Args:
        value: x, as computed.
        residual: |A x - b| / |b|, in the working dtype.
        detail: what the solver knows.
        like: gives the dtype to return.
        failed: rows that are inaccurate, at any residual.
        remedies: what the caller can change.
    """
    options = {"otherwise": "inaccurate", "failed": failed, "why": "inaccurate"}
    rows = row_statuses(value, residual, direct_tolerance(residual.dtype), **options)
    return Solution(value.to(like), overall_status(rows), 0, residual.to(like), detail, rows=rows, remedies=remedies)
