"""Direct solves with a dense symmetric matrix: its inverse, or a pseudo-inverse that keeps chosen eigenvalues.

A = Q diag(lambda) Q^T,     A^+ b = sum over kept k of q_k (q_k . b) / (lambda_k + damping).

The computation is in float64 for any dtype, so the solve adds no rounding to that of A and b. Eigenvalues
that this rounding leaves undetermined, below p eps of the largest with eps of A's dtype and at least 100 eps, are never
inverted: an inverse at 100 eps has two digits.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_nonnegative, require_shape
from explainlib.solvers.remedies import Remedies
from explainlib.solvers.solution import Solution, direct_solution

LEAST_EPS = 100  # rounding level of small matrices, in eps of the largest eigenvalue
REMEDIES = Remedies(shift="pass a larger damping", pruned="pass keep=1e-9 for the pseudo-inverse")
Keep = int | float | str | None


def require_keep(keep: Keep) -> Keep:
    """Return ``keep`` if it is None, a count >= 1, a relative threshold in (0, 1), or "positive".

    Raises:
        ValueError: anything else; 1 is a count, 1.0 would keep no eigenvalue.
    """
    counted = isinstance(keep, int) and not isinstance(keep, bool) and keep >= 1
    threshold = isinstance(keep, float) and 0 < keep < 1
    if keep is None or keep == "positive" or counted or threshold:
        return keep
    raise ValueError(
        f"keep={keep!r} has to be None (invert), a whole number of eigenvalues, a relative threshold between 0 and 1 "
        "such as 1e-9, or 'positive'."
    )


def rounding_share(dtype: torch.dtype, size: int) -> float:
    """Return the rounding level of a size x size matrix of this dtype, relative to its largest eigenvalue."""
    return max(LEAST_EPS, size) * torch.finfo(dtype).eps


def kept_eigenvalues(values: Float[Tensor, " p"], keep: Keep, *, floor: float | None = None) -> Tensor:
    """Return the mask [p] of eigenvalues (in ascending order) that ``keep`` inverts.

    An int keeps that many algebraically largest; a float keeps those above it relative to the largest absolute value;
    "positive" those above zero. None of the three keeps an eigenvalue at rounding level. None keeps all.

    Args:
        values: all eigenvalues.
        keep: see above.
        floor: rounding level relative to the largest absolute value; None is ``rounding_share`` of their dtype.
    """
    if keep is None:
        return torch.ones_like(values, dtype=torch.bool)
    largest = values.abs().max()
    rounding = (rounding_share(values.dtype, values.numel()) if floor is None else floor) * largest
    if keep == "positive":
        return values > rounding
    if isinstance(keep, float):
        return values.abs() > torch.maximum(keep * largest, rounding)
    top = torch.arange(values.numel(), device=values.device) >= values.numel() - keep
    return top & (values > rounding)


class Factor:
    """One factorisation of (A + damping I), many solves.

    Args:
        matrix: A [p, p], symmetric.
        damping: added to the diagonal, >= 0, in the unit of A.
        keep: None inverts everything, and a singular matrix is an error; otherwise see ``kept_eigenvalues``, applied
            to A + damping I.

    Attributes:
        matrix: A + damping I [p, p], in float64.
        rank: number of inverted eigenvalues.
        null: number of eigenvalues at rounding level (0 when keep is given).

    Example:
        >>> Factor(torch.diag(torch.tensor([2.0, 4.0]))).solve(torch.tensor([[2.0, 2.0]])).value
        tensor([[1.0000, 0.5000]])
    """

    def __init__(self, matrix: Float[Tensor, "p p"], *, damping: float = 0.0, keep: Keep = None) -> None:
        require_shape("matrix", matrix, [matrix.shape[0], matrix.shape[0]], meaning="(square)")
        self.floor = rounding_share(matrix.dtype, len(matrix))
        self.matrix = matrix.to(torch.float64, copy=True)
        self.matrix.diagonal().add_(require_nonnegative("damping", damping))
        self.keep, self.null, self.rank = require_keep(keep), 0, matrix.shape[0]
        self._triangle = self._values = self._vectors = None
        if keep is None and bool(torch.isfinite(self.matrix).all()) and self._cholesky():
            return
        if not torch.isfinite(self.matrix).all():
            return  # eigh would fail without a message; ``solve`` returns nonfinite
        self._values, self._vectors = torch.linalg.eigh(self.matrix)
        if keep is None:
            self.null = int((self._values.abs() <= self.floor * self._values.abs().max()).sum())
        kept = kept_eigenvalues(self._values, keep, floor=self.floor)
        self.rank = int(kept.sum()) - self.null
        self._values, self._vectors = self._values[kept], self._vectors[:, kept]

    def _cholesky(self) -> bool:
        """Whether a Cholesky factor exists with all pivots above rounding level."""
        triangle, failed = torch.linalg.cholesky_ex(self.matrix)
        pivots = triangle.diagonal().square()
        if int(failed) or not (pivots > 10 * self.floor * self.matrix.diagonal().max()).all():
            return False
        self._triangle = triangle
        return True

    @property
    def definite(self) -> bool:
        """Whether the matrix is positive definite, so that it can be a preconditioner."""
        return self._triangle is not None

    @property
    def lowest(self) -> float | None:
        """The smallest inverted eigenvalue of A + damping I; None with a Cholesky factor (all are positive)."""
        return None if self._values is None or not len(self._values) else float(self._values[0])

    @property
    def triangle(self) -> Float[Tensor, "p p"] | None:
        """The Cholesky factor of A + damping I, lower, in float64; None where not positive definite."""
        return self._triangle

    def solve(self, rhs: Float[Tensor, "k p"]) -> Solution:
        """Return A^+ b for rows b [k, p].

        The status is rank_deficient if keep is None and A is singular, and inaccurate if the residual, in float64
        before x is rounded to b's dtype, is above 1e-5.
        """
        b = rhs.double()
        if self._triangle is not None:
            value = torch.cholesky_solve(b.T, self._triangle).T
            projected = b
        elif self._values is None:
            nan = torch.full_like(rhs, float("nan"))
            return Solution(nan, "nonfinite", 0, nan[:, 0], "the curvature itself holds NaN or infinity")
        else:
            coordinates = b @ self._vectors
            value = (coordinates / self._values) @ self._vectors.T
            projected = coordinates @ self._vectors.T
        if self.null:
            detail = f"{self.null} of {len(self.matrix)} eigenvalues are at rounding level"
            infinite = rhs.new_full((len(rhs),), float("inf"))
            return Solution(value.to(rhs), "rank_deficient", 0, infinite, detail, remedies=REMEDIES)
        size = projected.norm(dim=1).clamp(min=torch.finfo(b.dtype).tiny)
        residual = (value @ self.matrix - projected).norm(dim=1) / size
        detail = f"{self.rank} of {len(self.matrix)} eigenvalues inverted"
        return direct_solution(value, residual, detail, rhs, remedies=REMEDIES)
