"""Solves with A^T A + shift I through the smaller side of A: the Woodbury identity, exact and direct.

A [r, p] holds one row per example and output direction. Its eigenvectors come from the r x r Gram matrix A A^T when
r < p, from the p x p matrix otherwise; on their span the inverse divides by (lambda + shift), outside it by shift.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_nonnegative
from explainlib.solvers.dense import Keep, kept_eigenvalues, require_keep
from explainlib.solvers.solution import Solution


class LowRank:
    """The eigenpairs of A^T A, ready for solves with A^T A + shift I.

    Args:
        factor: A [r, p] with r < p; or, with ``square=True``, the symmetric matrix A^T A [p, p] itself.
        shift: ridge and damping together, >= 0; without it only ``keep`` gives an answer.
        keep: as for ``Factor``, on the eigenvalues of A^T A + shift I; None inverts everything.

    Source: Woodbury 1950; for influence, Schioppa et al. 2022 use the same form with Arnoldi vectors.

    Example:
        >>> LowRank(torch.tensor([[2.0, 0.0]]), shift=1.0).solve(torch.tensor([[5.0, 5.0]])).value
        tensor([[1., 5.]])
    """

    def __init__(self, factor: Float[Tensor, "r p"], *, shift: float, keep: Keep = None, square: bool = False) -> None:
        self.shift = require_nonnegative("shift", shift)
        self.keep = require_keep(keep)
        self.p, self.outside = factor.shape[1], keep is None
        gram = factor if square else factor @ factor.T
        values, vectors = torch.linalg.eigh((gram + gram.T) / 2)
        real = values > len(gram) * torch.finfo(values.dtype).eps * values.abs().max()
        values, vectors = values[real], vectors[:, real]
        rows = vectors.T if square else (vectors / values.sqrt()).T @ factor
        if keep is not None:
            complement = values.new_full((self.p - len(values),), shift)
            kept = kept_eigenvalues(torch.cat([complement, values + shift]), keep)
            # equal eigenvalues have no order: a count that reaches into the complement keeps none of it
            self.outside = len(complement) > 0 and bool(kept[: len(complement)].all())
            kept = kept[len(complement) :]
            values, rows = values[kept], rows[kept]
        self.values: Float[Tensor, " r"] = values
        self.rows: Float[Tensor, "r p"] = rows

    @property
    def singular(self) -> bool:
        """Whether an inverse was asked for that does not exist."""
        return self.keep is None and self.shift == 0 and len(self.values) < self.p

    def solve(self, rhs: Float[Tensor, "k p"]) -> Solution:
        """Return (A^T A + shift I)^-1 b for rows b [k, p]; with ``keep``, on the kept span only."""
        inside = rhs @ self.rows.T
        span = (inside / (self.values + self.shift)) @ self.rows
        if self.singular:
            detail = f"rank {len(self.values)} of {self.p}, and neither ridge nor damping"
            return Solution(span, "rank_deficient", 0, rhs.new_full((len(rhs),), float("inf")), detail)
        projected = inside @ self.rows
        outside = (rhs - projected) / self.shift if self.outside and self.shift > 0 else 0.0
        value = span + outside
        goal = rhs if self.outside else projected
        back = (value @ self.rows.T * self.values) @ self.rows + self.shift * value
        residual = (back - goal).norm(dim=1) / goal.norm(dim=1).clamp(min=torch.finfo(rhs.dtype).tiny)
        status = "converged" if torch.isfinite(value).all() else "nonfinite"
        return Solution(value, status, 0, residual, f"rank {len(self.values)} of {self.p}")
