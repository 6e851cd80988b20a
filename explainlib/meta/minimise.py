"""A stationary point of the meta-objective: Newton with the exact Hessian for small networks, L-BFGS for larger ones.

    w <- w - t |H|^+ (grad L(w) + l2 w)

|H| takes absolute eigenvalues, so that saddles repel; the last steps, whose change of the objective is below rounding,
take H itself and reduce the gradient. Directions in which H is flat within rounding (a rotation of an embedding, a
shift of all logits) are not changed. L-BFGS is scipy's; it needs gradients alone and stops far from rounding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib import compute
from explainlib.checks import (
    require_choice,
    require_count,
    require_nonnegative,
    require_positive,
    require_shape,
    warn_caller,
)
from explainlib.datasets import Tasks
from explainlib.meta.hessian import hessian_operator, meta_hessian, require_objective
from explainlib.meta.lbfgs import lbfgs
from explainlib.meta.learner import Learner
from explainlib.meta.trained import Trained

FLAT = 1e-9  # eigenvalues below this share of the largest are flat directions
HALVINGS = 30


@compute.entry
def minimise(
    learner: Learner,
    tasks: Tasks,
    *,
    l2: float = 0.0,
    tolerance: float = 1e-12,
    max_steps: int = 500,
    start: Float[Tensor, " q"] | None = None,
    weights: Float[Tensor, " M"] | None = None,
    method: str = "newton",
) -> Trained:
    """Return a point with |grad| <= tolerance of 1/M sum_i weight_i L_i(w) + l2/2 |w|^2.

    Args:
        learner: smooth (tanh, not ReLU, which has kinks where no gradient vanishes).
        tasks: the M training tasks.
        l2: ridge, >= 0.
        tolerance: on the gradient's norm.
        max_steps: of either method.
        start: initial w; None is ``learner.w0``.
        weights: of the tasks; None is all ones. Tasks of weight 0 cost nothing with "lbfgs".
        method: "newton", whose Hessian is dense, for small learners; or "lbfgs", for larger ones, to a tolerance that
            it can reach.

    Returns:
        Trained with status "converged", or "max_steps" or "stalled" and a warning.

    Raises:
        ValueError: weights or a start of a wrong shape, first-order MAML, another method, weights that
            are all zero with "lbfgs".
    """
    require_choice("method", method, ("newton", "lbfgs"))
    require_nonnegative("l2", l2)
    require_positive("tolerance", tolerance)
    require_count("max_steps", max_steps)
    require_objective(learner).require_tasks(tasks)
    w = learner.require_w(learner.w0 if start is None else start).clone()
    shares = w.new_ones(len(tasks)) if weights is None else require_shape("weights", weights, [len(tasks)]).to(w)
    shares = shares / len(tasks)
    minimiser = _newton if method == "newton" else _lbfgs
    w, gradient, history, status = minimiser(learner, tasks, shares, l2, w, tolerance, max_steps)
    if status != "converged":
        warn_caller(_failure_message(status, float(gradient.norm()), tolerance, w.dtype, method), UserWarning)
    return Trained(w, tuple(history), float(gradient.norm()), status)


Ending = tuple[Tensor, Tensor, list[float], str]  # w, gradient, losses, status


def _newton(
    learner: Learner, tasks: Tasks, shares: Tensor, l2: float, w: Tensor, tolerance: float, max_steps: int
) -> Ending:
    history: list[float] = []
    gradient = _gradient(learner, w, tasks, shares, l2)
    for _ in range(max_steps):
        history.append(float(learner.losses(w, tasks) @ shares))
        if gradient.norm() <= tolerance:
            return w, gradient, history, "converged"
        hessian = _hessian(learner, w, tasks, shares, l2)
        accepted = _line_search(learner, w, hessian, gradient, tasks, shares, l2)
        if accepted is None:
            return w, gradient, history, "stalled"
        w, gradient = accepted
    return w, gradient, history, "max_steps"


class _Point(NamedTuple):
    value: float
    gradient: Float[Tensor, " q"]
    w: Float[Tensor, " q"]


def _lbfgs(
    learner: Learner, tasks: Tasks, shares: Tensor, l2: float, w: Tensor, tolerance: float, max_steps: int
) -> Ending:
    """Return the lowest point that L-BFGS passed."""
    present = shares.nonzero()[:, 0]
    if not len(present):
        raise ValueError("all weights are zero, so that nothing is learned; give one task a weight above zero.")
    kept, shares = tasks[present], shares[present]
    learner.require_derivatives(kept, *learner.gradient_routes)
    history: list[float] = []

    def evaluate(v: Tensor) -> _Point:
        gradients, losses = learner.map_tasks(learner.gradient_one, v, kept)
        history.append(float(shares.double() @ losses.double()))
        return _Point(history[-1] + l2 / 2 * float(v.double() @ v.double()), shares @ gradients + l2 * v, v)

    end, exhausted = lbfgs(evaluate, w, evaluate(w), max_steps=max_steps, least=tolerance)
    status = "max_steps" if exhausted else "stalled"
    return end.w, end.gradient, history, "converged" if end.gradient.norm() <= tolerance else status


def _failure_message(status: str, norm: float, tolerance: float, dtype: torch.dtype, method: str) -> str:
    """Return what happened and what to do: more steps where they ran out, otherwise a larger tolerance."""
    more = ["allow more max_steps"] * (status == "max_steps") + ["use float64"] * (dtype != torch.float64)
    more += ["pass method='newton' if the learner is small"] * (method == "lbfgs")
    remedies = [*more, "pass a larger tolerance", "smooth the activations (tanh, not ReLU)"]
    said = f"minimise ended with status {status}, |gradient| = {norm:.1e} above the tolerance {tolerance:.1e}"
    return f"{said}; {', or '.join(remedies)}."


def _gradient(learner: Learner, w: Tensor, tasks: Tasks, shares: Tensor, l2: float) -> Float[Tensor, " q"]:
    return shares @ learner.gradients(w, tasks) + l2 * w


def _hessian(learner: Learner, w: Tensor, tasks: Tasks, shares: Tensor, l2: float) -> Float[Tensor, "q q"]:
    """Return the Hessian: by the fastest route for tasks of one weight, else by products with the identity."""
    weights = shares[shares != 0]
    if len(weights) and weights[0] > 0 and (weights == weights[0]).all():
        kept = tasks[shares != 0]
        return meta_hessian(learner, w, kept, l2=l2 / float(weights.sum())) * weights.sum()
    eye = torch.eye(learner.q, dtype=w.dtype, device=w.device)
    total = hessian_operator(learner, w, tasks, shares)(eye)
    return (total + total.T) / 2 + l2 * eye


def _line_search(
    learner: Learner, w: Tensor, hessian: Tensor, gradient: Tensor, tasks: Tasks, shares: Tensor, l2: float
) -> tuple[Tensor, Tensor] | None:
    """Return (w, gradient) after the longest step that lowers the objective, or near its rounding the gradient."""
    values, vectors = torch.linalg.eigh(hessian)
    not_flat = values.abs() > FLAT * values.abs().max()
    coordinates = gradient @ vectors[:, not_flat] / values[not_flat]

    def value(v: Tensor) -> Tensor:
        return learner.losses(v, tasks) @ shares + l2 / 2 * v @ v

    def candidates(step: Tensor) -> Iterator[tuple[float, Tensor]]:
        return ((0.5**k, w - 0.5**k * step) for k in range(HALVINGS))

    current_value, descent = value(w), vectors[:, not_flat] @ (coordinates * values[not_flat].sign())
    predicted_decrease = gradient @ descent
    if predicted_decrease > 1e3 * torch.finfo(w.dtype).eps * current_value.abs():
        for t, candidate in candidates(descent):
            if value(candidate) <= current_value - 1e-4 * t * predicted_decrease:
                return candidate, _gradient(learner, candidate, tasks, shares, l2)
    for _, candidate in candidates(vectors[:, not_flat] @ coordinates):
        candidate_gradient = _gradient(learner, candidate, tasks, shares, l2)
        if candidate_gradient.norm() < gradient.norm():
            return candidate, candidate_gradient
    return None
