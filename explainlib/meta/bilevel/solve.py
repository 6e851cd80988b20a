"""A stationary point of a bilevel problem: Newton with the exact total Hessian, or L-BFGS where that is too large.

    lam <- lam - t |l2 I + H_total|^-1 D F,      symbols as in ``Bilevel``

|.| takes absolute eigenvalues, so that saddles repel. Where the full step does not lower F the quadratic model is poor,
and some steps of L-BFGS, which need no Hessian, follow instead. With weights it is the problem without a task or an
example: the ground truth of bilevel influence.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_choice, require_count, require_positive, warn_caller
from explainlib.datasets import Tasks
from explainlib.meta.bilevel.learner import Bilevel
from explainlib.meta.bilevel.objective import Objective, Point
from explainlib.meta.bilevel.task_weights import TaskWeights
from explainlib.meta.lbfgs import lbfgs
from explainlib.meta.learner import Learner
from explainlib.meta.trained import Trained

DENSE = 1200  # meta-parameters up to which the Hessian is materialised
HALVINGS = 30
LBFGS_STEPS = 100  # steps of L-BFGS between two Hessians,
GRADIENT_DROP = 1e-2  # or as many as shorten the gradient to this share


class SolveError(RuntimeError):
    """An outer problem that did not converge; ``trained`` holds the last point."""

    def __init__(self, message: str, trained: Trained) -> None:
        super().__init__(message)
        self.trained = trained


@compute.entry
def solve(
    bilevel: Bilevel,
    tasks: Tasks,
    *,
    tolerance: int | float = 1e-8,
    weights: Float[Tensor, " M"] | None = None,
    training_weights: Float[Tensor, "M s"] | None = None,
    validation_weights: Float[Tensor, "M r"] | None = None,
    start: Float[Tensor, " q"] | None = None,
    method: str = "auto",
    max_steps: int | None = None,
    on_failure: str = "raise",
) -> Trained:
    """Return lam with |D F| <= tolerance; ``.w`` is lam.

    Args:
        bilevel: the learner; smooth.
        tasks: the M training tasks.
        tolerance: on the gradient's norm. F is a sum over tasks: 1e-11 is near rounding for a hundred small ones.
        weights: c of ``TaskWeights`` [M].
        training_weights: b [M, s].
        validation_weights: a [M, r].
        start: initial lam; None is ``bilevel.lam0``.
        method: "newton", "lbfgs", or "auto": Newton up to 1,200 meta-parameters.
        max_steps: default 200 Newton steps, or 5,000 of L-BFGS.
        on_failure: "raise" or "warn".

    Returns:
        Trained with status "converged", or with "warn" also "max_steps" or "stalled".

    Raises:
        SolveError: no stationary point was reached.
        ValueError: weights of a wrong shape or below zero, or all tasks removed.
    """
    require_positive("tolerance", tolerance)
    require_choice("on_failure", on_failure, ("raise", "warn"))
    require_choice("method", method, ("auto", "newton", "lbfgs"))
    require_bilevel(bilevel).require_tasks(tasks)
    lam = bilevel.require_w(bilevel.lam0 if start is None else start).clone()
    task_weights = TaskWeights.of(tasks, weights=weights, training=training_weights, validation=validation_weights)
    newton = method == "newton" or (method == "auto" and bilevel.q <= DENSE)
    step_limit = require_count("max_steps", max_steps) if max_steps is not None else (200 if newton else 5000)
    objective = Objective(bilevel, tasks, task_weights)
    trained = (_newton if newton else _lbfgs)(objective, lam, float(tolerance), step_limit)
    if trained.status != "converged":
        more = "allow more max_steps, " if trained.status == "max_steps" else ""
        precise = "" if lam.dtype == torch.float64 else "use float64, "
        message = (
            f"solve ended with status {trained.status}, |gradient| = {trained.gradient_norm:.1e} above the tolerance "
            f"{tolerance:.1e}; {more}{precise}build the Bilevel with a larger strength, so that no inner problem has "
            "two solutions, a larger l2 or a smooth network (tanh, not ReLU), or pass a larger tolerance."
        )
        if on_failure == "raise":
            raise SolveError(message, trained)
        warn_caller(message, UserWarning)
    return trained


def require_bilevel(bilevel: Bilevel) -> Bilevel:
    """Return the learner if it is a bilevel one.

    Raises:
        TypeError: another learner, or a network.
    """
    if isinstance(bilevel, Bilevel):
        return bilevel
    remedy = "pass xl.meta.Bilevel(model, strength=..., l2=...)"
    if isinstance(bilevel, Learner):
        remedy = "Maml and ProtoNet have xl.meta.train and xl.influence.TaskInfluence"
    elif type(bilevel).__module__.startswith("learn2learn"):
        remedy = "pass the network in it as xl.meta.Bilevel(bilevel.module, strength=..., l2=...)"
    raise TypeError(f"bilevel is a {type(bilevel).__name__}, expected xl.meta.Bilevel; {remedy}.")


def _newton(objective: Objective, lam: Tensor, tolerance: float, max_steps: int) -> Trained:
    point = objective.at(lam)
    history: list[float] = []
    status = "max_steps"
    for _ in range(max_steps):
        if point.gradient.norm() <= tolerance:
            break
        history.append(objective.loss(point))
        next_point = _damped_step(objective, point, tolerance)
        if next_point is None:
            status = "stalled"
            break
        point = next_point
    norm = float(point.gradient.norm())
    return Trained(point.lam, tuple(history), norm, "converged" if norm <= tolerance else status)


def _damped_step(objective: Objective, point: Point, tolerance: float) -> Point | None:
    """Return a lower point: by Newton's step or its half, else by L-BFGS, else by a shorter step; None if none."""
    values, vectors = torch.linalg.eigh(objective.hessian(point))
    floor = 1e-12 * values.abs().max()
    coordinates = point.gradient @ vectors
    step = vectors @ (coordinates / values.abs().clamp(min=floor))
    predicted_decrease = float(point.gradient @ step)

    if predicted_decrease <= 1e4 * torch.finfo(values.dtype).eps * abs(point.value):  # below rounding of the values
        return _final_step(objective, point, vectors @ (coordinates / torch.where(values.abs() < floor, floor, values)))

    def first_decrease(sizes: Iterable[float]) -> Point | None:
        candidates = ((t, objective.value_or_infinity(point.lam - t * step)) for t in sizes)
        return next(
            (
                candidate
                for t, candidate in candidates
                if candidate.value <= point.value - 1e-4 * t * predicted_decrease
            ),
            None,
        )

    full_step = first_decrease((1.0, 0.5))
    if full_step is not None:
        return full_step
    lbfgs_point = _lbfgs_steps(objective, point, tolerance, least=GRADIENT_DROP * float(point.gradient.norm()))
    return lbfgs_point if lbfgs_point.value < point.value else first_decrease(0.5**k for k in range(2, HALVINGS))


def _final_step(objective: Objective, point: Point, step: Tensor) -> Point | None:
    """Return the point after a step that shortens the gradient, the only criterion at rounding level."""
    for t in (1.0, 0.5, 0.1):
        candidate = objective.value_or_infinity(point.lam - t * step)
        if candidate.thetas is not None and candidate.gradient.norm() < 0.9 * point.gradient.norm():
            return candidate
    return None


def _lbfgs_steps(
    objective: Objective,
    point: Point,
    tolerance: float,
    *,
    steps: int = LBFGS_STEPS,
    least: float = 0.0,
    history: list[float] | None = None,
) -> Point:
    """Return the lowest point of some steps of L-BFGS, fewer once the gradient is as short as ``least``."""

    def evaluate(lam: Tensor) -> Point:
        found = objective.value_or_infinity(lam)
        if history is not None and found.thetas is not None:
            history.append(objective.loss(found))
        return found

    options = {"max_steps": steps, "least": least, "gradient_tolerance": tolerance / len(point.lam) ** 0.5}
    return lbfgs(evaluate, point.lam, point, **options)[0]


def _lbfgs(objective: Objective, lam: Tensor, tolerance: float, max_steps: int) -> Trained:
    history: list[float] = []
    end = _lbfgs_steps(objective, objective.at(lam), tolerance, steps=max_steps, history=history)
    norm = float(end.gradient.norm())
    status = "converged" if norm <= tolerance else ("max_steps" if len(history) >= max_steps else "stalled")
    return Trained(end.lam, tuple(history), norm, status)
