"""Solves with A^T A + shift I through the smaller side of A: the Woodbury identity, exact and direct.

A [r, p] holds one row per example and output direction. Its eigenvectors come from the r x r Gram matrix A A^T when
r < p, from the p x p matrix otherwise; on their span the inverse divides by (lambda + shift), outside it by shift.

The computation is in float64. The rounding of b and A has two effects. An eigenvalue of the Gram matrix is a squared
singular value, so below ``gram_floor`` of the largest it is rounding, and its direction counts as outside the span. A
part of b outside the span that is not longer than the rounding of b is set to zero: divided by a small shift it would
dominate. If it is longer, but its rounding, divided by the shift, is a hundredth of the result, the solve fails.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from explainlib.checks import require_nonnegative
from explainlib.solvers.dense import Keep, kept_eigenvalues, require_keep, rounding_share
from explainlib.solvers.remedies import Remedies
from explainlib.solvers.solution import Solution, direct_solution

ROUNDING = 32  # assumed rounding of a row, in eps of its length; 1 to 10 were measured
REMEDIES = Remedies(shift="pass a larger shift", pruned="pass keep=1e-9 for the pseudo-inverse")
INDEFINITE = Remedies(definite="use xl.solvers.Factor, which inverts negative eigenvalues as they are")
RELATIVE_ERROR = 1e-2  # share of the result that rounding may be


def gram_floor(dtype: torch.dtype, size: int) -> float:
    """Return the share of the largest eigenvalue of A A^T [size, size] below which eigenvalues are rounding of A.

    A's rounding changes singular values by eps of the largest, so eigenvalues at (100 eps)^2 have two digits; the Gram
    matrix, computed in float64, adds its own rounding. The other dimension of A does not enter.

    Args:
        dtype: of A.
        size: of the Gram matrix.
    """
    return max((100 * torch.finfo(dtype).eps) ** 2, size * torch.finfo(torch.float64).eps)


class LowRank:
    """The eigenpairs of A^T A, ready for solves with A^T A + shift I.

    Args:
        factor: A [r, p] with r < p; or, with ``square=True``, the symmetric matrix A^T A [p, p] itself.
        shift: ridge plus damping, >= 0; 0 needs ``keep``.
        keep: as for ``Factor``, on the eigenvalues of A^T A + shift I; None inverts everything.
        square: whether the product is given instead of the factor.
        floor: rounding level relative to the largest eigenvalue of A^T A; None is that of the dtype.

    Attributes:
        values: eigenvalues of A^T A that are inverted, without the shift [r].

    Source: Woodbury 1950; for influence, Schioppa et al. 2022 use the same form with Arnoldi vectors.

    Example:
        >>> LowRank(torch.tensor([[2.0, 0.0]]), shift=1.0).solve(torch.tensor([[5.0, 5.0]])).value
        tensor([[1., 5.]])
    """

    def __init__(
        self,
        factor: Float[Tensor, "r p"],
        *,
        shift: float,
        keep: Keep = None,
        square: bool = False,
        floor: float | None = None,
    ) -> None:
        self.shift = require_nonnegative("shift", shift)
        self.keep, self.p, self._square = require_keep(keep), factor.shape[1], square
        size, floor_given = len(factor), floor
        if floor is None:
            floor = (rounding_share if square else gram_floor)(factor.dtype, size)
        self._factor = factor.double()
        gram = self._factor if square else self._factor @ self._factor.T
        self._finite = bool(torch.isfinite(gram).all())
        values, vectors = torch.linalg.eigh((gram + gram.T) / 2 if self._finite else torch.zeros_like(gram))
        rounding = floor * values.abs().max()
        self.indefinite = bool(values[0] < -rounding)
        given = square and floor_given is None and self.shift > float(rounding)  # the shift is above rounding
        real = values > (-rounding if given else rounding)
        values, vectors = values[real], vectors[:, real]
        hidden = size - len(values)  # eigenvalues between zero and rounding level, undetermined
        self.rank, self.unresolved = len(values), hidden > 0 and self.shift <= float(rounding)
        self.outside = len(values) < self.p
        if keep is not None:
            complement = values.new_full((self.p - len(values),), self.shift)
            kept = kept_eigenvalues(torch.cat([complement, values + self.shift]), keep)
            # a count that reaches into the complement, where all eigenvalues are equal, keeps none of it
            self.outside = len(complement) > 0 and bool(kept[: len(complement)].all())
            kept = kept[len(complement) :]
            values, vectors = values[kept], vectors[:, kept]
        self.values: Float[Tensor, " r"] = values
        self._basis = vectors if square else vectors / values.sqrt()

    @property
    def singular(self) -> bool:
        """Whether keep is None and the matrix has no inverse."""
        return self.keep is None and self.rank < self.p and (self.shift == 0 or self.unresolved)

    def solve(self, rhs: Float[Tensor, "k p"]) -> Solution:
        """Return (A^T A + shift I)^-1 b for rows b [k, p]; with ``keep``, on the kept span only.

        The residual is computed with A, in float64, before x is rounded to b's dtype; above 1e-5 the status is
        inaccurate. It is rank_deficient for a singular matrix, and not_positive_definite for a square one that is.
        """
        b = rhs.double()
        coordinates = self._coordinates(b)
        value = self._from_coordinates(coordinates / (self.values + self.shift))
        if not self._finite or self.indefinite or self.singular:
            return self._failed(value.to(rhs))
        projected = self._from_coordinates(coordinates)
        unsure = None
        if self.outside and self.shift > 0:
            outside = self._outside_range(b - projected, b, torch.finfo(rhs.dtype).eps)
            value = value + outside / self.shift
            unsure = self._uncertain_rows(outside, b, value, torch.finfo(rhs.dtype).eps)
        goal = b if self.outside else projected
        back = (value @ self._factor if self._square else value @ self._factor.T @ self._factor) + self.shift * value
        residual = (back - goal).norm(dim=1) / goal.norm(dim=1).clamp(min=torch.finfo(b.dtype).tiny)
        detail = f"rank {len(self.values)} of {self.p}"
        return direct_solution(value, residual, detail, rhs, failed=unsure, remedies=REMEDIES)

    def _coordinates(self, b: Float[Tensor, "k p"]) -> Float[Tensor, "k r"]:
        return (b if self._square else b @ self._factor.T) @ self._basis

    def _from_coordinates(self, coordinates: Float[Tensor, "k r"]) -> Float[Tensor, "k p"]:
        rows = coordinates @ self._basis.T
        return rows if self._square else rows @ self._factor

    def _outside_range(self, outside: Tensor, b: Tensor, eps: float) -> Float[Tensor, "k p"]:
        """Return the part of b outside the span, projected twice; zero where it is only rounding of b."""
        outside = outside - self._from_coordinates(self._coordinates(outside))
        real = outside.norm(dim=1) > ROUNDING * eps * b.norm(dim=1)
        return torch.where(real[:, None], outside, 0.0)

    def _uncertain_rows(self, outside: Tensor, b: Tensor, value: Tensor, eps: float) -> Bool[Tensor, " k"]:
        """Return the rows where the rounding of the outside part, divided by the shift, dominates the result."""
        rounding = 4 * eps * b.norm(dim=1) / self.shift
        return (outside.norm(dim=1) > 0) & (rounding > RELATIVE_ERROR * value.norm(dim=1))

    def _failed(self, value: Float[Tensor, "k p"]) -> Solution:
        residual = value.new_full((len(value),), float("inf"))
        if not self._finite:
            nothing = torch.full_like(value, float("nan"))
            return Solution(nothing, "nonfinite", 0, residual, "the curvature itself holds NaN or infinity")
        if self.indefinite:
            detail = "A^T A has a negative eigenvalue"
            return Solution(value, "not_positive_definite", 0, residual, detail, remedies=INDEFINITE)
        lack = "neither ridge nor damping" if self.shift == 0 else "ridge and damping below its rounding"
        detail = f"rank {self.rank} of {self.p}, and {lack}"
        return Solution(value, "rank_deficient", 0, residual, detail, remedies=REMEDIES)
