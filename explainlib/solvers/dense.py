"""Direct solves with a dense symmetric matrix: its inverse, or a pseudo-inverse that keeps chosen eigenvalues.

A = Q diag(lambda) Q^T,     A^+ b = sum over kept k of q_k (q_k . b) / (lambda_k + damping).

The work is done in float64 whatever the dtype, so the solve itself adds nothing to the rounding that A and b came with.
What that rounding leaves undetermined, eigenvalues below p eps of the largest with eps of A's own dtype, is never
inverted: at least 100 eps, where two digits would be left of a small system's answer.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_nonnegative, require_shape
from explainlib.solvers.remedies import Remedies
from explainlib.solvers.solution import Solution, direct_solution

FEWEST = 100  # eigenvalues below this many eps of the largest are rounding, however small the matrix
REMEDIES = Remedies(shift="pass a larger damping", pruned="pass keep=1e-9 for the pseudo-inverse")
Keep = int | float | str | None


def require_keep(keep: Keep) -> Keep:
    """Return ``keep`` if it is None, a count >= 1, a relative threshold in (0, 1), or "positive".

    Raises:
        ValueError: anything else; 1 is a count, 1.0 keeps nothing and is refused.
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
    """Return the share of the largest eigenvalue below which a size x size matrix of this dtype determines none."""
    return max(FEWEST, size) * torch.finfo(dtype).eps


def kept_eigenvalues(values: Float[Tensor, " p"], keep: Keep, *, floor: float | None = None) -> Tensor:
    """Return the mask [p] of eigenvalues (sorted upwards) that ``keep`` inverts.

    An int keeps that many algebraically largest; a float keeps those above it relative to the largest absolute value;
    "positive" those above zero. None of the three keeps an eigenvalue at rounding level, whose inverse would be made
    of rounding. None keeps all.

    Args:
        values: all eigenvalues.
        keep: see above.
        floor: the share of the largest absolute value that is rounding; None is ``rounding_share`` of their dtype.
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
        keep: None inverts everything, and a singular matrix is an error; otherwise see ``kept_eigenvalues``, which
            judges the eigenvalues of A + damping I.

    Attributes:
        matrix: A + damping I [p, p], in float64.
        rank: how many eigenvalues are inverted.
        null: how many eigenvalues lie at rounding level (0 when keep is given).

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
            return  # eigh would fail without a word; solve says nonfinite
        self._values, self._vectors = torch.linalg.eigh(self.matrix)
        if keep is None:
            self.null = int((self._values.abs() <= self.floor * self._values.abs().max()).sum())
        kept = kept_eigenvalues(self._values, keep, floor=self.floor)
        self.rank = int(kept.sum()) - self.null
        self._values, self._vectors = self._values[kept], self._vectors[:, kept]

    def _cholesky(self) -> bool:
        """Whether a triangle was found whose pivots all stand clear of rounding."""
        triangle, failed = torch.linalg.cholesky_ex(self.matrix)
        pivots = triangle.diagonal().square()
        if int(failed) or not (pivots > 10 * self.floor * self.matrix.diagonal().max()).all():
            return False
        self._triangle = triangle
        return True

    @property
    def definite(self) -> bool:
        """Whether the matrix was found positive definite, so that it can serve as a preconditioner."""
        return self._triangle is not None

    @property
    def lowest(self) -> float | None:
        """The smallest eigenvalue of A + damping I that is inverted; None where a Cholesky factor shows it positive."""
        return None if self._values is None or not len(self._values) else float(self._values[0])

    @property
    def triangle(self) -> Float[Tensor, "p p"] | None:
        """The Cholesky factor of A + damping I, lower, in float64; None where it is not clearly positive definite."""
        return self._triangle

    def solve(self, rhs: Float[Tensor, "k p"]) -> Solution:
        """Return A^+ b for rows b [k, p].

        The status is rank_deficient when keep is None and A is singular, and inaccurate where the residual, taken in
        float64 before x is rounded to b's dtype, is above 1e-5.
        """
        b = rhs.double()
        if self._triangle is not None:
            value = torch.cholesky_solve(b.T, self._triangle).T
            projected = b
        elif self._values is None:
            nothing = torch.full_like(rhs, float("nan"))
            return Solution(nothing, "nonfinite", 0, nothing[:, 0], "the curvature itself holds NaN or infinity")
        else:
            inside = b @ self._vectors
            value = (inside / self._values) @ self._vectors.T
            projected = inside @ self._vectors.T
        if self.null:
            detail = f"{self.null} of {len(self.matrix)} eigenvalues are at rounding level"
            lost = rhs.new_full((len(rhs),), float("inf"))
            return Solution(value.to(rhs), "rank_deficient", 0, lost, detail, remedies=REMEDIES)
        size = projected.norm(dim=1).clamp(min=torch.finfo(b.dtype).tiny)
        residual = (value @ self.matrix - projected).norm(dim=1) / size
        detail = f"{self.rank} of {len(self.matrix)} eigenvalues inverted"
        return direct_solution(value, residual, detail, rhs, remedies=REMEDIES)
