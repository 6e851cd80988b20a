"""The inverse on the span of the dominant eigenvectors, by Arnoldi iteration.

    A = curvature + damping I,   A V = V T + remainder,   T = S diag(lambda) S^T,   q_i = V s_i,
    x = sum_{i <= k} q_i (q_i . b) / lambda_i.

V [p, m] is an orthonormal basis of the span of v, A v, A^2 v, ... from a random start v (Arnoldi; for a symmetric A it
is Lanczos, and T is symmetric). Its extreme eigenvalues converge first, so k of them are accurate long before m reaches
p.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_count
from explainlib.solvers.remedies import Remedies
from explainlib.solvers.solution import Solution, overall_status, row_statuses
from explainlib.storage import Store

Operator = Callable[[Float[Tensor, "k p"]], Float[Tensor, "k p"]]
REORTHOGONALISE = 0.7  # a vector shortened below this is orthogonalised a second time (lost digits)
EVERY = 10  # steps between two looks at the accuracy
ROWS = 8  # of a right-hand side, whose product is in memory at a time
TOLERANCE = 1e-2  # relative residual of a solve on the kept span
REMEDIES = Remedies(shift="add a multiple of the identity to the product", longer="pass more steps")


@dataclass(frozen=True)
class DominantEigenpairs:
    """The dominant eigenpairs of a symmetric operator, ready for solves on their span.

    Attributes:
        values: the k algebraically largest eigenvalues [k], all above zero, largest first.
        vectors: orthonormal eigenvectors, as rows [k, p].
        accuracy: |A q - lambda q| / (largest lambda) for each of them [k]; near 0 once converged.
        steps: products used.
    """

    product: Operator
    values: Float[Tensor, " k"]
    vectors: Float[Tensor, "k p"]
    accuracy: Float[Tensor, " k"]
    steps: int

    def solve(self, rhs: Float[Tensor, "b p"]) -> Solution:
        """Return A^-1 b on the span of the eigenvectors, zero outside it, for rows b [b, p].

        The residual |A x - b| / |b| includes the part of b outside the kept span and the error of the pairs. The status
        is that of the solve on the kept span, |A x - P b| / |P b| with P b the projection of b: max_steps above 1%,
        not_positive_definite where no eigenvalue is above zero.
        """
        inside = rhs @ self.vectors.T
        value = (inside / self.values) @ self.vectors
        tiny = torch.finfo(rhs.dtype).tiny
        moved, size = torch.cat([self.product(part) for part in value.split(ROWS)]), rhs.norm(dim=1)
        residual = (moved - rhs).norm(dim=1) / size.clamp(min=tiny)
        detail = f"{len(self.values)} of {rhs.shape[1]} eigenvalues inverted; the residual is what was dropped"
        if len(self.values) == 0:
            return Solution(value, "not_positive_definite", self.steps, residual, detail, remedies=REMEDIES)
        detail += f", and the least accurate pair is off by {float(self.accuracy.max()):.1e}"
        off = (moved - inside @ self.vectors).norm(dim=1)
        rounding = 100 * torch.finfo(rhs.dtype).eps * size  # of a b orthogonal to the span
        rows = row_statuses(value, off, torch.maximum(TOLERANCE * inside.norm(dim=1), rounding), otherwise="max_steps")
        return Solution(value, overall_status(rows), self.steps, residual, detail, rows=rows, remedies=REMEDIES)


def dominant_eigenpairs(
    product: Operator,
    like: Float[Tensor, " p"],
    k: int,
    *,
    steps: int | None = None,
    seed: int = 0,
    saved: Store | None = None,
) -> DominantEigenpairs:
    """Return the k algebraically largest eigenpairs of a symmetric operator, never one <= 0, by Arnoldi iteration.

    Args:
        product: v -> A v on rows [k, p], the same A for every row.
        like: gives p, dtype and device; its values are not used.
        k: number of eigenpairs; at least 1, at most the steps.
        steps: iterations, m products and (m + k) p numbers in memory; None takes max(2 k + 20, 4 k), never more than p,
            and from 2 k + 20 on stops as soon as all k pairs are accurate to rounding.
        seed: of the start vector.
        saved: an opened ``Store`` of this product, for the vectors found so far; an interrupted iteration goes on.

    Returns:
        DominantEigenpairs; exact to rounding with steps = p, otherwise see ``accuracy``.

    Raises:
        ValueError: k or steps outside their range.

    Source: Schioppa et al. 2022. Deviations: A is symmetric, so T is made symmetric; eigenvalues are
    ordered by value, not by absolute value, and none <= 0 is inverted; a start that spans an invariant subspace is
    followed by another one, so that repeated eigenvalues are all found.

    Example:
        >>> diagonal = torch.tensor([4.0, 1.0, 2.0])
        >>> found = dominant_eigenpairs(lambda v: v * diagonal, diagonal, 2, steps=3).values
        >>> [round(value, 4) for value in found.tolist()]
        [4.0, 2.0]
    """
    p = like.numel()
    if require_count("k", k) > p:
        raise ValueError(f"k={k} eigenvalues were asked of a {p} x {p} curvature; ask for at most {p}.")
    m = min(p, max(2 * k + 20, 4 * k)) if steps is None else min(p, require_count("steps", steps))
    if m < k:
        raise ValueError(f"steps={steps} iterations cannot find k={k} eigenvalues; pass steps of at least k.")
    make = lambda: _eigenpairs(*_krylov(product, like, m, seed, k if steps is None else None, saved), k)  # noqa: E731
    found = make() if saved is None else saved.cached("eigenpairs", make, like.device)
    return DominantEigenpairs(product, found["values"], found["vectors"], found["accuracy"], int(found["steps"]))


def _eigenpairs(
    basis: Float[Tensor, "m p"], projected: Float[Tensor, "m m"], remainder: float, k: int
) -> dict[str, Tensor]:
    """Return the k largest eigenpairs on the span of a basis, with their accuracy and the steps taken."""
    m = len(basis)
    values, small = torch.linalg.eigh((projected + projected.T) / 2)
    top = values[-1].clamp(min=torch.finfo(values.dtype).tiny)
    # eigh sorts in ascending order; eigenvalues at rounding level are dropped
    kept = torch.arange(m - 1, m - 1 - k, -1, device=values.device)
    kept = kept[values[kept] > m * torch.finfo(values.dtype).eps * values.abs().max()]
    values, small = values[kept], small[:, kept]
    # A V s - lambda V s = V (T s - lambda s) + remainder s_m, and the remainder is orthogonal to V
    inside, outside = (projected @ small - small * values).norm(dim=0), remainder * small[-1].abs()
    accuracy = torch.hypot(inside, outside) / top
    return {"values": values, "vectors": small.T @ basis, "accuracy": accuracy, "steps": torch.tensor(m)}


def _krylov(
    product: Operator, like: Tensor, m: int, seed: int, pairs: int | None, store: Store | None
) -> tuple[Float[Tensor, "m p"], Float[Tensor, "m m"], float]:
    """Return the orthonormal rows V, V A V^T, and the length of what A makes of the last row outside the span.

    A v_j is a combination of v_1 .. v_{j+1}, whose coefficients are known from orthogonalising it; only V is stored.
    With ``pairs`` it may stop before m rows, once so many pairs are accurate.
    """
    generator = torch.Generator().manual_seed(seed)
    draw = lambda: torch.randn(like.numel(), generator=generator, dtype=torch.float64).to(like)  # noqa: E731
    basis, projected = like.new_zeros(m, like.numel()), like.new_zeros(m, m)
    eps = torch.finfo(like.dtype).eps
    start = draw()
    basis[0] = start / start.norm()
    first, largest, restarts = _resumed(store, basis, projected)
    for _ in range(restarts):
        draw()
    for j in range(first, m):
        moved = product(basis[j : j + 1])[0]
        size = float(moved.norm())
        if not math.isfinite(size):
            raise ValueError("the curvature's product holds NaN or infinity; look for overflow in the model's outputs.")
        largest = max(largest, size)
        following, projected[: j + 1, j], length = _orthogonal(moved, basis[: j + 1])
        # a repeated eigenvalue may be missing from pairs that look accurate
        wanted = None if restarts else pairs
        if j + 1 == m or (wanted is not None and _accurate(projected[: j + 1, : j + 1], length, wanted)):
            break
        if length > 10 * like.numel() ** 0.5 * eps * largest:
            projected[j + 1, j] = length
        else:  # the span is invariant: restart orthogonal to it
            following, _, length = _orthogonal(draw(), basis[: j + 1])
            restarts += 1
        basis[j + 1] = following / length
        if store is not None and (j + 1) % EVERY == 0:
            new = {"rows": basis[j + 2 - EVERY : j + 2], "projected": projected[: j + 2, : j + 2]}
            state = torch.tensor([largest, restarts], dtype=torch.float64)
            store.save(f"arnoldi-{j + 1:06d}", {**new, "state": state})
    return basis[: j + 1], projected[: j + 1, : j + 1], length


def _resumed(store: Store | None, basis: Float[Tensor, "m p"], projected: Float[Tensor, "m m"]) -> tuple:
    """Fill basis and projection as far as they are stored; return (next step, largest product, restarts)."""
    done, largest, restarts = 0, 0.0, 0
    while store is not None and done + EVERY < len(basis) and f"arnoldi-{done + EVERY:06d}" in store:
        done += EVERY
        found = store.load(f"arnoldi-{done:06d}", basis.device)
        basis[done + 1 - EVERY : done + 1] = found["rows"]
        projected[: done + 1, : done + 1] = found["projected"]
        largest, restarts = float(found["state"][0]), int(found["state"][1])
    return done, largest, restarts


def _accurate(projected: Float[Tensor, "m m"], remainder: float, pairs: int) -> bool:
    """Return whether the residual of every one of the largest pairs is rounding; looked at every ``EVERY`` steps."""
    m = len(projected)
    if m < 2 * pairs + 20 or m % EVERY:
        return False
    values, small = torch.linalg.eigh((projected + projected.T) / 2)
    rounding = 10 * torch.finfo(values.dtype).eps * float(values.abs().max())
    return 0 < remainder and bool((remainder * small[-1, -pairs:].abs() <= rounding).all())


def _orthogonal(v: Tensor, basis: Float[Tensor, "k p"]) -> tuple[Tensor, Float[Tensor, " k"], float]:
    """Return v minus its projection on the basis, the projection's coordinates, and the remaining length."""
    before, coordinates = float(v.norm()), v.new_zeros(len(basis))
    for _ in range(3):
        part = basis @ v
        coordinates += part
        v = v - part @ basis
        after = float(v.norm())
        if after > REORTHOGONALISE * before:
            break
        before = after
    return v, coordinates, after
