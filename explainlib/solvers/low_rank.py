"""Solves with A^T A + shift I through the smaller side of A: the Woodbury identity, exact and direct.

A [r, p] holds one row per example and output direction. Its eigenvectors come from the r x r Gram matrix A A^T when
r < p, from the p x p matrix otherwise; on their span the inverse divides by (lambda + shift), outside it by shift.

The work is done in float64. What b and A were rounded to before shows in two ways. An eigenvalue of the Gram matrix is
a singular value squared, so below ``gram_floor`` of the largest it is rounding, and its direction counts as outside. A
part of b outside the span that is no longer than b's own rounding is none: divided by a small shift it would be all one
sees. One that is longer, but whose own rounding, divided by the shift, is a hundredth of the answer, is refused.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from explainlib.checks import require_nonnegative
from explainlib.solvers.dense import Keep, kept_eigenvalues, require_keep, rounding_share
from explainlib.solvers.remedies import Remedies
from explainlib.solvers.solution import Solution, direct_solution

NOISE = 32  # eps of a row's length that may be rounding; gradients seen were off by 1 to 10
REMEDIES = Remedies(shift="pass a larger shift", pruned="pass keep=1e-9 for the pseudo-inverse")
INDEFINITE = Remedies(definite="use xl.solvers.Factor, which inverts negative eigenvalues as they are")
DIGITS = 1e-2  # an answer of whose length rounding may be this share


def gram_floor(dtype: torch.dtype, size: int) -> float:
    """Return the share of the largest eigenvalue of A A^T [size, size] below which another is the rounding of A.

    A's rounding moves singular values by eps of the largest, so eigenvalues at (100 eps)^2 have two digits; the Gram
    matrix, formed in float64, has a rounding of its own. No other dimension of A enters.

    Args:
        dtype: of A.
        size: of the Gram matrix.
    """
    return max((100 * torch.finfo(dtype).eps) ** 2, size * torch.finfo(torch.float64).eps)


class LowRank:
    """The eigenpairs of A^T A, ready for solves with A^T A + shift I.

    Args:
        factor: A [r, p] with r < p; or, with ``square=True``, the symmetric matrix A^T A [p, p] itself.
        shift: ridge and damping together, >= 0; without it only ``keep`` gives an answer.
        keep: as for ``Factor``, on the eigenvalues of A^T A + shift I; None inverts everything.
        square: whether the product is given instead of the factor.
        floor: the share of the largest eigenvalue of A^T A that is rounding; None goes by the dtype.

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
        given = square and floor_given is None and self.shift > float(rounding)  # the shift lifts all of them clear
        real = values > (-rounding if given else rounding)
        values, vectors = values[real], vectors[:, real]
        hidden = size - len(values)  # eigenvalues between zero and the rounding: which, is not known
        self.rank, self.unresolved = len(values), hidden > 0 and self.shift <= float(rounding)
        self.outside = len(values) < self.p
        if keep is not None:
            complement = values.new_full((self.p - len(values),), self.shift)
            kept = kept_eigenvalues(torch.cat([complement, values + self.shift]), keep)
            # equal eigenvalues have no order: a count that reaches into the complement keeps none of it
            self.outside = len(complement) > 0 and bool(kept[: len(complement)].all())
            kept = kept[len(complement) :]
            values, vectors = values[kept], vectors[:, kept]
        self.values: Float[Tensor, " r"] = values
        self._basis = vectors if square else vectors / values.sqrt()

    @property
    def singular(self) -> bool:
        """Whether an inverse was asked for that does not exist."""
        return self.keep is None and self.rank < self.p and (self.shift == 0 or self.unresolved)

    def solve(self, rhs: Float[Tensor, "k p"]) -> Solution:
        """Return (A^T A + shift I)^-1 b for rows b [k, p]; with ``keep``, on the kept span only.

        The residual is taken with A itself, in float64, before x is rounded to b's dtype; above 1e-5 the status is
        inaccurate. It is rank_deficient for a singular matrix, and not_positive_definite for a square one that is.
        """
        b = rhs.double()
        inside = self._coordinates(b)
        value = self._from_coordinates(inside / (self.values + self.shift))
        if not self._finite or self.indefinite or self.singular:
            return self._failed(value.to(rhs))
        projected = self._from_coordinates(inside)
        unsure = None
        if self.outside and self.shift > 0:
            away = self._outside_range(b - projected, b, torch.finfo(rhs.dtype).eps)
            value = value + away / self.shift
            unsure = self._uncertain_rows(away, b, value, torch.finfo(rhs.dtype).eps)
        goal = b if self.outside else projected
        back = (value @ self._factor if self._square else value @ self._factor.T @ self._factor) + self.shift * value
        residual = (back - goal).norm(dim=1) / goal.norm(dim=1).clamp(min=torch.finfo(b.dtype).tiny)
        detail = f"rank {len(self.values)} of {self.p}"
        return direct_solution(value, residual, detail, rhs, failed=unsure, remedies=REMEDIES)

    def _coordinates(self, b: Float[Tensor, "k p"]) -> Float[Tensor, "k r"]:
        return (b if self._square else b @ self._factor.T) @ self._basis

    def _from_coordinates(self, inside: Float[Tensor, "k r"]) -> Float[Tensor, "k p"]:
        rows = inside @ self._basis.T
        return rows if self._square else rows @ self._factor

    def _outside_range(self, away: Tensor, b: Tensor, eps: float) -> Float[Tensor, "k p"]:
        """Return the part of b outside the span, projected twice, and zero where it is no longer than b's rounding."""
        away = away - self._from_coordinates(self._coordinates(away))
        real = away.norm(dim=1) > NOISE * eps * b.norm(dim=1)
        return torch.where(real[:, None], away, 0.0)

    def _uncertain_rows(self, away: Tensor, b: Tensor, value: Tensor, eps: float) -> Bool[Tensor, " k"]:
        """Return the rows where the rounding of a part outside, divided by the shift, shows in the answer."""
        rounding = 4 * eps * b.norm(dim=1) / self.shift
        return (away.norm(dim=1) > 0) & (rounding > DIGITS * value.norm(dim=1))

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
