"""The inner solutions of many tasks in one batch, to rounding, by Newton's method; nothing is unrolled.

Linear heads under cross-entropy or squared error are convex: Newton with line search. Networks are not: Levenberg's
damped steps (H + mu I)^-1 g, mu raised where the quadratic model is poor and lowered to 0 near the end; where H is too
large, truncated steps (``newton_cg``).
Without ``start`` every task begins at its centre, so its solution is a function of lam alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad_and_value, jacrev

from explainlib.derivatives import vmap
from explainlib.memory import require_memory
from explainlib.meta.bilevel.inverse import DenseInverse, InnerInverse, head_inverse
from explainlib.meta.bilevel.newton_cg import CgInverse, solve_newton_cg
from explainlib.meta.bilevel.problem import Problem
from explainlib.meta.bilevel.task_weights import WeightedTask

MAX_STEPS = 200
SMALLER = "take inner='head', or learn fewer parameters with parameters=[...]"
MATRIX_FREE = f"pass inner_solver='cg' to the Bilevel, {SMALLER}"
Thetas = Float[Tensor, "m p"]


def quadratic_tolerance(dtype: torch.dtype) -> float:
    """Return the relative gradient norm from which one more Newton step, which squares it, ends at rounding."""
    return torch.finfo(dtype).eps ** 0.5


class InnerError(RuntimeError):
    """An inner problem that was not solved."""


def inner_solutions(
    problem: Problem, lam: Float[Tensor, " q"], batch: WeightedTask, start: Thetas | None = None
) -> Thetas:
    """Return theta_i(lam) [m, p], the inner gradients at rounding.

    Args:
        problem: both levels.
        lam: meta-parameters [q].
        batch: m tasks with weights.
        start: initial theta [m, p]; None is the centre.

    Raises:
        InnerError: some task did not converge.
    """
    theta = problem.centre(lam).expand(len(batch.support_y), -1) if start is None else start
    if problem.convex:
        return _solve_heads(problem, lam, batch, theta.clone())
    if problem.matrix_free:
        theta, left = solve_newton_cg(problem, lam, batch, theta, quadratic_tolerance(theta.dtype))
        if len(left):
            raise InnerError(_unsolved_error(left, problem))
        return theta
    return _solve_networks(problem, lam, batch, theta.clone())


def inner_inverse(problem: Problem, lam: Float[Tensor, " q"], theta: Thetas, batch: WeightedTask) -> InnerInverse:
    """Return H_in^-1 of every task of a batch: factored, or by products where the problem is matrix-free.

    Args:
        problem: both levels.
        lam: meta-parameters [q].
        theta: the inner solutions.
        batch: their tasks.

    Raises:
        SolverError: an inner Hessian that is not positive definite.
    """
    if problem.matrix_free and not problem.convex:
        return CgInverse(problem, lam, theta, batch)
    if not problem.convex:
        return DenseInverse(_hessians(problem, lam, theta, batch))
    phi = features(problem, lam, batch.support_x)
    outputs = phi @ problem.linear.matrix(theta).mT
    return head_inverse(problem.linear, problem.loss, phi, outputs, batch.training, problem.strength)


def features(problem: Problem, lam: Float[Tensor, " q"], x: Tensor) -> Float[Tensor, "m n d"]:
    """Return the features that the heads of m tasks read from x [m, n, ...], by one forward pass of the body.

    Args:
        problem: gives the body.
        lam: its meta-parameters.
        x: examples of m tasks.
    """
    with torch.no_grad():
        return problem.features(lam, x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _solve_heads(problem: Problem, lam: Tensor, batch: WeightedTask, theta: Tensor) -> Tensor:
    head, strength, centre = problem.linear, problem.strength, problem.centre(lam)
    phi = features(problem, lam, batch.support_x)

    def by_example(function: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, rows: Tensor) -> Tensor:
        """Return a function of single examples for those of all tasks at once."""
        flat = function(outputs.flatten(0, 1), batch.support_y[rows].flatten(0, 1))
        return flat.unflatten(0, outputs.shape[:2])

    def values(rows: Tensor, theta: Tensor) -> Tensor:
        outputs = phi[rows] @ head.matrix(theta).mT
        losses = by_example(problem.loss.value, outputs, rows)
        return (batch.training[rows] * losses).sum(1) + strength / 2 * (theta - centre).square().sum(1)

    def gradients(rows: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
        outputs = phi[rows] @ head.matrix(theta).mT
        errors = by_example(problem.loss.gradient, outputs, rows)
        loss_gradient = head.flat((batch.training[rows][..., None] * errors).mT @ phi[rows])
        return loss_gradient + strength * (theta - centre), outputs

    def steps(rows: Tensor, gradient: Tensor, outputs: Tensor) -> Tensor:
        inverse = head_inverse(head, problem.loss, phi[rows], outputs, batch.training[rows], strength)
        return inverse.solve(gradient[:, None])[:, 0]

    rows = torch.arange(len(theta), device=theta.device)
    tolerance = quadratic_tolerance(theta.dtype) * (
        (batch.training * phi.norm(dim=2)).sum(1) + strength * centre.norm()
    )
    for _ in range(MAX_STEPS):
        gradient, outputs = gradients(rows, theta[rows])
        step = steps(rows, gradient, outputs)
        last = gradient.norm(dim=1) <= tolerance[rows]
        theta[rows[last]] -= step[last]  # after it values differ by rounding only, so no line search
        rows, gradient, step = rows[~last], gradient[~last], step[~last]
        if not len(rows):
            return theta
        theta[rows] = _line_search(values, rows, theta[rows], gradient, step)
    raise InnerError(_unsolved_error(rows, problem))


def _line_search(
    values: Callable[[Tensor, Tensor], Tensor], rows: Tensor, theta: Tensor, gradient: Tensor, step: Tensor
) -> Tensor:
    """Return the parameters after backtracking: each task's step is halved until Armijo's condition holds."""
    before, predicted_decrease = values(rows, theta), (gradient * step).sum(1)
    slack = 1e2 * torch.finfo(theta.dtype).eps * before.abs().clamp(min=1.0)
    next_theta, active, step_size = theta.clone(), torch.ones_like(rows, dtype=torch.bool), 1.0
    while active.any() and step_size > 1e-9:
        active_rows = active.nonzero()[:, 0]
        candidate = theta[active_rows] - step_size * step[active_rows]
        accepted = (
            values(rows[active_rows], candidate)
            <= before[active_rows] - 1e-4 * step_size * predicted_decrease[active_rows] + slack[active_rows]
        )
        next_theta[active_rows[accepted]] = candidate[accepted]
        active[active_rows[accepted]] = False
        step_size /= 2
    return next_theta


def _hessians(problem: Problem, lam: Tensor, theta: Tensor, batch: WeightedTask) -> Tensor:
    """Return the dense inner Hessians, reverse over reverse."""
    return vmap(lambda t, task: jacrev(lambda v: problem.inner_gradient(lam, v, task))(t))(theta, batch)


def _solve_networks(problem: Problem, lam: Tensor, batch: WeightedTask, theta: Tensor) -> Tensor:
    value = vmap(lambda t, task: problem.inner(lam, t, task))
    model = vmap(lambda t, task: _quadratic(lambda v: problem.inner(lam, v, task), t))
    m, p = theta.shape
    what, size = f"the inner Hessians of {m} tasks, p = {p:,} parameters", 6 * m * p**2 * theta.element_size()
    require_memory(what, size, theta.device, otherwise=MATRIX_FREE)
    eye = torch.eye(p, dtype=theta.dtype, device=theta.device)
    rows = torch.arange(len(theta), device=theta.device)
    mu = theta.new_full((len(theta),), 0.1 * problem.strength)
    tolerance = None
    for _ in range(MAX_STEPS):
        part = WeightedTask(*(tensor[rows] for tensor in batch))
        current = theta[rows]
        hessian, (gradient, before) = model(current, part)
        tolerance = (
            quadratic_tolerance(theta.dtype) * gradient.norm(dim=1).clamp(min=1.0) if tolerance is None else tolerance
        )
        last = gradient.norm(dim=1) <= tolerance[rows]
        damping = torch.where(last | (mu[rows] < 1e-4 * problem.strength), 0.0, mu[rows])
        triangle, failed = torch.linalg.cholesky_ex(hessian + damping[:, None, None] * eye)
        not_definite = failed != 0
        triangle = torch.where(not_definite[:, None, None], eye, triangle)  # it only raises its damping now
        step = torch.cholesky_solve(gradient[..., None], triangle)[..., 0]
        predicted_decrease = (gradient * step).sum(1) - torch.einsum("mp,mpk,mk->m", step, hessian, step) / 2
        slack = 1e2 * torch.finfo(theta.dtype).eps * before.abs().clamp(min=1.0)  # rounding of the values
        gain_ratio = (before - value(current - step, part) + slack) / (predicted_decrease + slack)
        accepted = ~not_definite & (last | (gain_ratio > 1e-3))
        theta[rows[accepted]] = (current - step)[accepted]
        mu[rows] = torch.where(
            not_definite | (gain_ratio < 0.25), 4 * mu[rows].clamp(min=1e-4 * problem.strength),
            torch.where(gain_ratio > 0.75, mu[rows] / 8, mu[rows]),
        )  # fmt: skip
        rows = rows[~(last & accepted)]
        if not len(rows):
            return theta
    raise InnerError(_unsolved_error(rows, problem))


def _quadratic(function: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return (Hessian, (gradient, value)) from one forward pass."""

    def gradient_with_value(v: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        gradient, value = grad_and_value(function)(v)
        return gradient, (gradient, value)

    return jacrev(gradient_with_value, has_aux=True)(at)


def _unsolved_error(rows: Tensor, problem: Problem) -> str:
    precise = "" if problem.lam0.dtype == torch.float64 else "use float64, "
    return (
        f"{len(rows)} inner problems, the first of task {int(rows[0])} of its batch, did not converge to a minimum in "
        f"{MAX_STEPS} Newton steps; build the Bilevel with a strength above {problem.strength:.3g}, scale the "
        f"examples, {precise}or smooth the activations (tanh, not ReLU: at a kink no gradient vanishes)."
    )
