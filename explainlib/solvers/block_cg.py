"""Block conjugate gradients: many right-hand sides of one matrix share their search directions.

    minimise over X:  1/2 tr X A X^T - tr B X^T   on the span of the directions P of every step,
    X <- X + a^T P,   R <- R - a^T A P,   a = (P A P^T)^-1 P R^T,
    P <- orth( R + b^T P ),               b = -(P A P^T)^-1 (A P) R^T,

so that every row is minimised over what all rows have searched, and fewer products are needed than row by row. P is
orthonormalised, and directions that depend on others are dropped: without either the block breaks down.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from explainlib.memory import slices
from explainlib.solvers.cg import REMEDIES, Operator, cg
from explainlib.solvers.solution import Solution, overall_status, row_statuses

BLOCK = 32  # rows of a block: its own work grows with their square


def block_cg(
    product: Operator, rhs: Float[Tensor, "k p"], *, tolerance: float | None = None, max_steps: int | None = None
) -> Solution:
    """Return x with |A x - b| <= tolerance |b| for every row, one A for all rows.

    What the blocks leave (a direction of zero or negative curvature, a residual that rounding has moved away from its
    recurrence) is finished by ``cg``, whose statuses these are.

    Args:
        product: v -> A v on rows [k, p], the same A for every row.
        rhs: b [k, p].
        tolerance: as for ``cg``.
        max_steps: as for ``cg``; a step is one product for each row of a block.

    Source: O'Leary 1980; dropping dependent directions: Ji and Li 2017.
    """
    if tolerance is None:
        tolerance = 1e-10 if rhs.dtype == torch.float64 else 1e-5
    most = min(10 * rhs.shape[1], 5000) if max_steps is None else max_steps
    x, steps, size = torch.zeros_like(rhs), [0], rhs.norm(dim=1)
    done = size == 0
    if len(rhs) > 1:
        for rows in slices(len(rhs), BLOCK):
            x[rows], done[rows], taken = _solve_block(product, rhs[rows], tolerance * size[rows], most)
            steps.append(taken)
    r = rhs - product(x) if max(steps) else rhs
    left = ~done | (r.norm(dim=1) > 10 * tolerance * size)  # as ``cg`` accepts it
    residual = r.norm(dim=1) / size.clamp(min=torch.finfo(rhs.dtype).tiny)
    rows = list(row_statuses(x, residual, 10 * tolerance, otherwise="max_steps"))
    if left.any() and max(steps) < most:
        goal = tolerance * size[left] / r[left].norm(dim=1).clamp(min=torch.finfo(rhs.dtype).tiny)
        rest = cg(product, r[left], tolerance=goal, max_steps=most - max(steps))
        x[left] += rest.value
        residual[left] = rest.residual * residual[left]
        for at, status in zip(left.nonzero()[:, 0].tolist(), rest.row_status, strict=True):
            rows[at] = status
        steps.append(max(steps) + rest.steps)
    made = Solution(x, overall_status(tuple(rows)), max(steps), residual, rows=tuple(rows))
    return replace(made, remedies=REMEDIES)


def _solve_block(
    product: Operator, rhs: Float[Tensor, "k p"], goal: Float[Tensor, " k"], max_steps: int
) -> tuple[Float[Tensor, "k p"], Bool[Tensor, " k"], int]:
    """Return x, which rows are solved, and the steps taken, up to a direction of zero or negative curvature."""
    x, r, live = torch.zeros_like(rhs), rhs, (rhs.norm(dim=1) > 0).nonzero()[:, 0]
    directions, steps = _orthonormal(rhs[live]), 0
    while len(directions) and steps < max_steps:
        moved = product(directions)
        triangle, failed = torch.linalg.cholesky_ex(_symmetric(directions.double() @ moved.double().T))
        if failed:
            break
        a = _solved(triangle, directions @ r[live].T)
        x[live] += a.T @ directions
        r = torch.index_add(r, 0, live, -(a.T @ moved))
        steps += 1
        live = live[r[live].norm(dim=1) > goal[live]]
        b = _solved(triangle, moved @ r[live].T)
        directions = _orthonormal(r[live] - b.T @ directions)
    done = torch.ones(len(rhs), dtype=torch.bool, device=rhs.device)
    done[live] = False
    return x, done, steps


def _solved(triangle: Float[Tensor, "d d"], right: Float[Tensor, "d k"]) -> Float[Tensor, "d k"]:
    """Return (P A P^T)^-1 of the right-hand sides, in float64 and back."""
    return torch.cholesky_solve(right.double(), triangle).to(right)


def _orthonormal(rows: Float[Tensor, "k p"]) -> Float[Tensor, "d p"]:
    """Return orthonormal rows with the span of the given ones, without directions at rounding level."""
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
    for _ in range(2):  # the second time for what the square of the condition number has lost
        values, vectors = torch.linalg.eigh(_symmetric(rows.double() @ rows.double().T))
        kept = values > len(rows) * 10 * torch.finfo(rows.dtype).eps * values[-1:].clamp(min=0)
        rows = (vectors[:, kept] / values[kept].sqrt()).T.to(rows) @ rows
    return rows


def _symmetric(matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    return (matrix + matrix.T) / 2
