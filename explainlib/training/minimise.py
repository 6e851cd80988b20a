"""The minimum of a risk, or of many reweighted copies in one batch, by truncated Newton with line search.

Each step solves H_g d = -grad R_g by conjugate gradients, preconditioned with one shared factorisation of the risk's
Hessian: removing some examples changes H little, so a few products suffice and no other matrix is factored.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib import compute
from explainlib.checks import (
    require_choice,
    require_finite,
    require_positive,
    require_shape,
    require_tensor,
)
from explainlib.progress import tqdm
from explainlib.risk import Risk, risk_fingerprint
from explainlib.solvers.cg import Operator, cg
from explainlib.solvers.preconditioner import preconditioner
from explainlib.storage import Store, Tensors
from explainlib.training.minima import OFFERS, STATUSES, Minima, report
from explainlib.training.weighted import WeightedRisks, weighted_risks

ENTRIES = 2**23  # g x n x C numbers in one batch
PROBLEMS_PER_FILE = 64  # of a store; an interruption loses at most so many


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
        store: None, or a folder for the results of each batch; an interrupted call resumes from it. Only with weights
            [g, n].

    Raises:
        MinimiseError: a problem did not converge; the message gives number and status.
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
    """Return what ``minimise`` returns; for callers that lack some of its options.

    Args:
        risk: the start; arguments as in ``minimise``.
        weights: of the problems.
        tolerance: on the gradients' norms.
        max_steps: of Newton.
        on_failure: "raise" or "warn".
        store: a folder, or None.
        offers: which of ``OFFERS`` the called function has; a message names no other.
    """
    require_choice("on_failure", on_failure, ("raise", "warn"))
    require_positive("tolerance", tolerance)
    if risk.theta.dtype != torch.float64:
        tolerance = max(tolerance, 1e-5)
    if weights is None or require_tensor("weights", weights).ndim == 1:
        if store is not None:
            raise ValueError("store is for many problems and this is one; pass weights of shape [1, n], or drop store.")
        single = risk if weights is None else risk.reweighted(weights)
        minima = _newton(single, single.weights_or_ones()[None], tolerance, max_steps)
        report(minima, on_failure, offers)
        return single.at(minima.theta[0])
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
    """Solve the problems in batches that fit in memory, smaller ones with a store."""
    batch = max(1, ENTRIES // (risk.n * max(risk.n_outputs, 1 if risk.head is not None else risk.p // 16)))
    saved = None
    if store is not None:
        batch = min(batch, PROBLEMS_PER_FILE)
        options = {"work": "minimise", "tolerance": tolerance, "max_steps": max_steps, "batch": batch}
        saved = Store(store, risk_fingerprint(risk, risk.theta, {"start": risk.theta, "weights": weights}, options))
    precondition = functools.cache(lambda: preconditioner(risk))  # lazily: not needed if every batch is in the store
    results = []
    with tqdm(total=len(weights), desc="minimise", delay=2.0, leave=False) as bar:
        for k, rows in enumerate(weights.split(batch)):

            def solve(rows: Tensor = rows) -> Tensors:
                return newton_batch(risk, weighted_risks(risk, rows), precondition(), tolerance, max_steps)

            results.append(solve() if saved is None else saved.cached(f"batch-{k:05d}", solve, weights.device))
            bar.update(len(rows))
    theta, norms, steps, codes = (
        torch.cat([result[key] for result in results]) for key in ("theta", "gradient_norm", "steps", "status")
    )
    return Minima(risk, weights, theta, tuple(list(STATUSES)[code] for code in codes.tolist()), norms, steps)


def newton_batch(
    risk: Risk, problems: WeightedRisks, precondition: Operator | None, tolerance: float, max_steps: int
) -> Tensors:
    """Return theta, gradient_norm, steps and status codes of the weighted problems, all started at the risk's theta.

    Args:
        risk: gives the start and the preconditioner.
        problems: the weighted risks.
        precondition: rows -> rows, or None.
        tolerance: on the gradients' norms.
        max_steps: of Newton.
    """
    count = len(problems.weights)
    theta = risk.theta.repeat(count, 1)
    gradient = problems.gradients(theta)
    norms = gradient.norm(dim=1)
    steps = torch.zeros(count, dtype=torch.int64, device=theta.device)
    stalled, lengths = torch.zeros(count, dtype=torch.bool, device=theta.device), torch.zeros_like(norms)
    for _ in range(max_steps):
        # a problem that overflows is dropped
        active = ((norms > tolerance) & torch.isfinite(norms) & ~stalled).nonzero()[:, 0]
        if not len(active):
            break
        part, start, current_gradient = problems[active], theta[active], gradient[active]
        # inexact Newton: the forcing term shrinks with the gradient, not below what the tolerance needs
        forcing = torch.minimum(norms[active].sqrt(), torch.full_like(norms[active], 0.1)).clamp(min=1e-4)
        forcing = torch.maximum(forcing, 0.1 * tolerance / norms[active]).clamp(max=0.5)
        inner = cg(
            part.operator(start), -current_gradient, tolerance=forcing, max_steps=500, preconditioner=precondition
        )
        if count == 1 and precondition is not None and inner.steps > 10:
            precondition = preconditioner(risk.at(start[0])) or precondition
        next_theta, accepted = _line_search(part, start, current_gradient, inner.value)
        theta[active] = next_theta
        usable = inner.residual <= 0.5  # otherwise rounding left no positive curvature: keep the last length
        lengths[active] = torch.where(usable, (next_theta - start).norm(dim=1), lengths[active])
        stalled[active] = ~accepted
        gradient[active] = part.gradients(next_theta)
        norms[active] = gradient[active].norm(dim=1)
        steps[active] += 1
    statuses = _statuses(norms, stalled, tolerance)
    if risk.l2 == 0:  # with a ridge the risk is coercive
        for g in _unbounded(problems, theta, gradient, lengths, tolerance, precondition):
            statuses[g] = "unbounded"
    codes = torch.tensor([list(STATUSES).index(status) for status in statuses])
    return {"theta": theta, "gradient_norm": norms, "steps": steps, "status": codes}


def _unbounded(
    problems: WeightedRisks,
    theta: Tensor,
    gradient: Tensor,
    lengths: Tensor,
    tolerance: float,
    precondition: Operator | None,
) -> list[int]:
    """Return the rows with a vanishing gradient and diverging parameters: no finite minimum.

    At a minimum one more Newton step is short and removes the gradient. Along exp(-t) every step has the same length
    and divides the gradient by e. Where rounding leaves no positive curvature for that step, the length of the last
    step with positive curvature (``lengths``) is used.
    """
    norms = gradient.norm(dim=1)
    # rounding may stop a row just above the tolerance
    near = ((norms <= 100 * tolerance) & (norms > tolerance / 100)).nonzero()[:, 0]
    if not len(near):
        return []
    part, start, current_gradient = problems[near], theta[near], gradient[near]
    solution = cg(part.operator(start), -current_gradient, tolerance=0.1, max_steps=500, preconditioner=precondition)
    gradient_ratio = part.gradients(start + solution.value).norm(dim=1) / norms[near]
    large = 1e-3 * start.norm(dim=1)
    unbounded = (solution.value.norm(dim=1) > large) & (gradient_ratio > 0.1) & (gradient_ratio < 0.7)
    unbounded |= (solution.residual > 0.1) & (lengths[near] > large)
    return near[unbounded].tolist()


def _line_search(problems: WeightedRisks, theta: Tensor, gradient: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Return (rows after backtracking with Armijo's condition, which of them were accepted)."""
    slope = (gradient * direction).sum(1)
    ascending = ~(slope < 0)
    direction = torch.where(ascending[:, None], -gradient, direction)
    slope = torch.where(ascending, -gradient.square().sum(1), slope)
    before = problems.values(theta)
    slack = 1e2 * torch.finfo(theta.dtype).eps * before.abs().clamp(min=1.0)  # rounding of the values
    next_theta, accepted = theta.clone(), torch.zeros_like(ascending)
    step = 1.0
    while not accepted.all() and step > 1e-9:
        active = (~accepted).nonzero()[:, 0]
        candidate = theta[active] + step * direction[active]
        after = problems[active].values(candidate)
        lower = after <= before[active] + 1e-4 * step * slope[active] + slack[active]
        next_theta[active[lower]] = candidate[lower]
        accepted[active[lower]] = True
        step /= 2
    return next_theta, accepted


def _statuses(norms: Tensor, stalled: Tensor, tolerance: float) -> list[str]:
    def status(norm: float, no_step: bool) -> str:
        if not math.isfinite(norm):
            return "nonfinite"
        if norm <= tolerance:
            return "converged"
        return "stalled" if no_step else "max_steps"

    return [status(norm, no_step) for norm, no_step in zip(norms.tolist(), stalled.tolist(), strict=True)]
