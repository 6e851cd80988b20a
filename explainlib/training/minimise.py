"""The minimum of a risk, or of hundreds of reweighted copies of it at once: truncated Newton with line search.

Each step solves H_g d = -grad R_g by conjugate gradients, preconditioned with one shared factorisation of the risk's
own Hessian: removing some examples changes H little, so a few products suffice, and no second matrix is factored.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from explainlib import compute
from explainlib.checks import (
    require_choice,
    require_finite,
    require_positive,
    require_shape,
    require_tensor,
)
from explainlib.risk import Risk
from explainlib.solvers.cg import Operator, cg
from explainlib.solvers.preconditioner import preconditioner
from explainlib.storage import Store, Tensors
from explainlib.training.fingerprints import risk_fingerprint
from explainlib.training.minima import OFFERS, STATUSES, Minima, report
from explainlib.training.weighted import WeightedRisks, weighted_risks

ENTRIES = 2**23  # g x n x C numbers in one batch
KEPT = 64  # problems in one file of a store: what an interruption can lose


@compute.entry
def minimise(
    risk: Risk,
    *,
    weights: Float[Tensor, "g n"] | Float[Tensor, " n"] | None = None,
    tolerance: float = 1e-10,
    max_steps: int = 100,
    on_failure: str = "raise",
    store: str | Path | None = None,
) -> Risk | Minima:
    """Return the risk at a stationary point, |grad R| <= tolerance; with weights [g, n], all g problems in one batch.

    Args:
        risk: the start is its theta.
        weights: None or [n] give one ``Risk``; [g, n] gives ``Minima`` with ``theta [g, p]``. They replace the risk's
            own weights and do not multiply them (``retraining.leave_out`` does); n in 1/n stays.
        tolerance: on the Euclidean norm of the gradient; in float32 never below 1e-5.
        max_steps: Newton steps.
        on_failure: "raise" or "warn" (then the status stays in the result).
        store: None, or a folder that the g problems fill batch by batch; an interrupted call, made again, goes on from
            there. Only with weights [g, n].

    Raises:
        MinimiseError: a problem did not converge; it says how many and why.
        ValueError: weights of a wrong shape, a row that is all zero, or a folder of another computation.

    Example: with a ridge the mean of 1 and 3 shrinks from 2 to 2 / (1 + l2/2).

        >>> from explainlib.datasets import Examples
        >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
        >>> train = Examples(torch.ones(2, 1).double(), torch.tensor([[1.0], [3.0]]).double())
        >>> round(minimise(Risk(model, train, loss="squared_error", l2=2.0)).theta.item(), 9)
        1.0
    """
    return minimise_for(
        risk, weights=weights, tolerance=tolerance, max_steps=max_steps, on_failure=on_failure, store=store
    )


def minimise_for(
    risk: Risk,
    *,
    weights: Float[Tensor, "g n"] | Float[Tensor, " n"] | None = None,
    tolerance: float = 1e-10,
    max_steps: int = 100,
    on_failure: str = "raise",
    store: str | Path | None = None,
    offers: Sequence[str] = OFFERS,
) -> Risk | Minima:
    """Return what ``minimise`` returns, for functions that have not all of its options.

    Args:
        risk: the start, like all that follow as in ``minimise``.
        weights: of the problems.
        tolerance: on the gradients' norms.
        max_steps: of Newton.
        on_failure: "raise" or "warn".
        store: a folder, or None.
        offers: which of ``OFFERS`` the function has that a person called; a message names no other.
    """
    require_choice("on_failure", on_failure, ("raise", "warn"))
    require_positive("tolerance", tolerance)
    if risk.theta.dtype != torch.float64:
        tolerance = max(tolerance, 1e-5)
    if weights is None or require_tensor("weights", weights).ndim == 1:
        if store is not None:
            raise ValueError("store is for many problems and this is one; pass weights of shape [1, n], or drop store.")
        only = risk if weights is None else risk.reweighted(weights)
        minima = _newton(only, only.weights_or_ones()[None], tolerance, max_steps)
        report(minima, on_failure, offers)
        return only.at(minima.theta[0])
    require_shape("weights", weights, [None, risk.n], meaning="(a row per problem, a column per training example)")
    weights = require_finite("weights", weights.to(risk.theta))
    empty = (weights == 0).all(1)
    if empty.any():
        raise ValueError(f"weights row {int(empty.nonzero()[0])} is all zero; leave at least one example to train on.")
    minima = _newton(risk, weights, tolerance, max_steps, store)
    report(minima, on_failure, offers)
    return minima


def _newton(
    risk: Risk, weights: Float[Tensor, "g n"], tolerance: float, max_steps: int, store: str | Path | None = None
) -> Minima:
    """Run the problems in batches that fit in memory, smaller ones where each is kept on disk."""
    batch = max(1, ENTRIES // (risk.n * max(risk.n_outputs, 1 if risk.head is not None else risk.p // 16)))
    kept = None
    if store is not None:
        batch = min(batch, KEPT)
        options = {"work": "minimise", "tolerance": tolerance, "max_steps": max_steps, "batch": batch}
        kept = Store(store, risk_fingerprint(risk, risk.theta, {"start": risk.theta, "weights": weights}, options))
    factored = functools.cache(lambda: preconditioner(risk))  # not at all where every batch is on disk already
    results = []
    with tqdm(total=len(weights), desc="minimise", delay=2.0, leave=False) as bar:
        for k, rows in enumerate(weights.split(batch)):

            def solve(rows: Tensor = rows) -> Tensors:
                return newton_batch(risk, weighted_risks(risk, rows), factored(), tolerance, max_steps)

            results.append(solve() if kept is None else kept.cached(f"batch-{k:05d}", solve, weights.device))
            bar.update(len(rows))
    theta, norms, steps, codes = (
        torch.cat([result[key] for result in results]) for key in ("theta", "gradient_norm", "steps", "status")
    )
    return Minima(risk, weights, theta, tuple(list(STATUSES)[code] for code in codes.tolist()), norms, steps.cpu())


def newton_batch(
    risk: Risk, problems: WeightedRisks, precondition: Operator | None, tolerance: float, max_steps: int
) -> Tensors:
    """Return theta, gradient_norm, steps and status codes of the weighted problems, all begun at the risk's theta.

    Args:
        risk: where they begin, and whose preconditioner serves.
        problems: the weighted risks.
        precondition: rows -> rows, or None.
        tolerance: on the gradients' norms.
        max_steps: of Newton.
    """
    count = len(problems.weights)
    theta = risk.theta.repeat(count, 1)
    gradient = problems.gradients(theta)
    norms, steps = gradient.norm(dim=1), torch.zeros(count, dtype=torch.int64)
    stalled, lengths = torch.zeros(count, dtype=torch.bool, device=theta.device), torch.zeros_like(norms)
    for _ in range(max_steps):
        # a problem that overflows drops out, and the others go on
        live = ((norms > tolerance) & torch.isfinite(norms) & ~stalled).nonzero()[:, 0]
        if not len(live):
            break
        part, start, slope = problems[live], theta[live], gradient[live]
        # loose at first, tight when the goal is near; never tighter than the goal itself asks
        forcing = torch.minimum(norms[live].sqrt(), torch.full_like(norms[live], 0.1)).clamp(min=1e-4)
        forcing = torch.maximum(forcing, 0.1 * tolerance / norms[live]).clamp(max=0.5)
        inner = cg(part.operator(start), -slope, tolerance=forcing, max_steps=500, preconditioner=precondition)
        if count == 1 and precondition is not None and inner.steps > 10:
            precondition = preconditioner(risk.at(start[0])) or precondition
        moved, ok = _line_search(part, start, slope, inner.value)
        theta[live] = moved
        solved = inner.residual <= 0.5  # rounding may leave no curvature to step by; then the step before speaks
        lengths[live] = torch.where(solved, (moved - start).norm(dim=1), lengths[live])
        stalled[live] = ~ok
        gradient[live] = part.gradients(moved)
        norms[live] = gradient[live].norm(dim=1)
        steps[live.cpu()] += 1
    statuses = _statuses(norms, stalled, tolerance)
    if risk.l2 == 0:  # with a ridge the risk grows in every direction, so nothing can run away
        for g in _runaways(problems, theta, gradient, lengths, tolerance, precondition):
            statuses[g] = "unbounded"
    codes = torch.tensor([list(STATUSES).index(status) for status in statuses])
    return {"theta": theta, "gradient_norm": norms, "steps": steps, "status": codes}


def _runaways(
    problems: WeightedRisks,
    theta: Tensor,
    gradient: Tensor,
    lengths: Tensor,
    tolerance: float,
    precondition: Operator | None,
) -> list[int]:
    """Return the rows whose gradient fades only because the parameters run off to infinity.

    At a minimum one more Newton step ends the gradient and hardly moves. Along exp(-t) every step has the same length,
    and divides the gradient by e. Where rounding leaves no positive curvature for that step, the last one that had some
    (``lengths``) has to speak for it.
    """
    norms = gradient.norm(dim=1)
    near = ((norms <= 100 * tolerance) & (norms > tolerance / 100)).nonzero()[:, 0]  # rounding may stop it just above
    if not len(near):
        return []
    part, start, slope = problems[near], theta[near], gradient[near]
    solution = cg(part.operator(start), -slope, tolerance=0.1, max_steps=500, preconditioner=precondition)
    left = part.gradients(start + solution.value).norm(dim=1) / norms[near]
    far = 1e-3 * start.norm(dim=1)
    running = (solution.value.norm(dim=1) > far) & (left > 0.1) & (left < 0.7)
    running |= (solution.residual > 0.1) & (lengths[near] > far)
    return near[running].tolist()


def _line_search(problems: WeightedRisks, theta: Tensor, gradient: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Halve each row's step until the risk falls as Armijo asks; return the new rows and which of them moved."""
    slope = (gradient * direction).sum(1)
    uphill = ~(slope < 0)
    direction = torch.where(uphill[:, None], -gradient, direction)
    slope = torch.where(uphill, -gradient.square().sum(1), slope)
    before = problems.values(theta)
    slack = (
        1e2 * torch.finfo(theta.dtype).eps * before.abs().clamp(min=1.0)
    )  # near the minimum values drown in rounding
    moved, accepted = theta.clone(), torch.zeros_like(uphill)
    step = 1.0
    while not accepted.all() and step > 1e-9:
        open_rows = (~accepted).nonzero()[:, 0]
        trial = theta[open_rows] + step * direction[open_rows]
        after = problems[open_rows].values(trial)
        fine = after <= before[open_rows] + 1e-4 * step * slope[open_rows] + slack[open_rows]
        moved[open_rows[fine]] = trial[fine]
        accepted[open_rows[fine]] = True
        step /= 2
    return moved, accepted


def _statuses(norms: Tensor, stalled: Tensor, tolerance: float) -> list[str]:
    def status(norm: float, stuck: bool) -> str:
        if not math.isfinite(norm):
            return "nonfinite"
        if norm <= tolerance:
            return "converged"
        return "stalled" if stuck else "max_steps"

    return [status(norm, stuck) for norm, stuck in zip(norms.tolist(), stalled.tolist(), strict=True)]
