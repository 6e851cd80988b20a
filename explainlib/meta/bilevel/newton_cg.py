"""The inner problems of networks without a p x p matrix: truncated Newton steps, and H_in^-1 by conjugate gradients.

Every task takes its own steps: of the model g + gradient . s + 1/2 s . H_in s the conjugate gradients go down until the
residual is short, they leave the region of radius rho, or a direction of negative curvature shows, which they follow
to the region's edge (Steihaug 1983). The radius shrinks where the model is poor and doubles where it is good. Products
with H_in are vjps of the gradient through one graph, all tasks and right-hand sides in one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.func import vjp

from explainlib.derivatives import vmap
from explainlib.meta.bilevel.inverse import REMEDIES, InnerInverse
from explainlib.meta.bilevel.problem import Problem
from explainlib.meta.bilevel.task_weights import WeightedTask
from explainlib.solvers.cg import cg

STEPS = 200  # of Newton
CG_STEPS = 500  # in each of them
CURVATURE_TOLERANCE = 1e-3  # of the conjugate gradients that look for negative curvature
FORCING = 0.1  # most of the residual that a step leaves, relative to the gradient
Thetas = Float[Tensor, "m p"]
Product = Callable[[Float[Tensor, "m k p"]], Float[Tensor, "m k p"]]


def gradients_and_products(
    problem: Problem, lam: Float[Tensor, " q"], theta: Thetas, batch: WeightedTask
) -> tuple[Thetas, Product]:
    """Return (grad_theta g of every task, rows [m, k, p] -> H_in rows), with one graph for all products.

    Args:
        problem: both levels.
        lam: meta-parameters [q].
        theta: where [m, p].
        batch: m tasks.
    """
    gradient, vjp_function = vjp(
        lambda at: vmap(lambda t, task: problem.inner_gradient(lam, t, task))(at, batch), theta
    )

    def products(rows: Float[Tensor, "m k p"]) -> Float[Tensor, "m k p"]:
        if rows.shape[1] == 1:
            return vjp_function(rows[:, 0])[0][:, None]
        return vmap(lambda one: vjp_function(one)[0])(rows.transpose(0, 1)).transpose(0, 1)

    return gradient, products


class CgInverse:
    """H_in^-1 of m tasks by conjugate gradients, to rounding; nothing of size p x p.

    Args:
        problem: both levels.
        lam: meta-parameters [q].
        theta: the inner solutions [m, p].
        batch: their tasks.
        preconditioner: an approximate inverse, such as EK-FAC; None is none.

    Raises:
        SolverError: from ``solve``, where an inner Hessian is not positive definite or many steps did not suffice.
    """

    def __init__(
        self,
        problem: Problem,
        lam: Float[Tensor, " q"],
        theta: Thetas,
        batch: WeightedTask,
        preconditioner: InnerInverse | None = None,
    ) -> None:
        self._product = gradients_and_products(problem, lam, theta, batch)[1]
        self._preconditioner = preconditioner
        self.steps = 0  # of the last solve

    def solve(self, rows: Float[Tensor, "m k p"]) -> Float[Tensor, "m k p"]:
        """Return H_in^-1 rows."""
        m, k, p = rows.shape

        def by_task(solve: Product) -> Callable[[Float[Tensor, "n p"]], Float[Tensor, "n p"]]:
            return lambda flat: solve(flat.view(m, k, p)).reshape(m * k, p)

        precondition = None if self._preconditioner is None else by_task(self._preconditioner.solve)
        found = cg(by_task(self._product), rows.reshape(m * k, p), preconditioner=precondition)
        self.steps = found.steps
        return replace(found, remedies=REMEDIES).require_converged("raise").value.view(m, k, p)


def solve_newton_cg(
    problem: Problem, lam: Float[Tensor, " q"], batch: WeightedTask, theta: Thetas, tolerance: float
) -> tuple[Thetas, Tensor]:
    """Return (the inner solutions, the rows without a minimum), by truncated Newton steps in a trust region.

    A gradient vanishes at a saddle too, so conjugate gradients look for negative curvature there, from a random vector.

    Args:
        problem: both levels.
        lam: meta-parameters [q].
        batch: m tasks.
        theta: initial [m, p].
        tolerance: on a gradient's norm, relative to the first one or to 1; below it one accurate step ends at rounding.
    """
    value = vmap(lambda t, task: problem.inner(lam, t, task))
    theta, rows = theta.clone(), torch.arange(len(theta), device=theta.device)
    converged = torch.zeros_like(rows, dtype=torch.bool)
    goal, radius, before = None, None, None
    for _ in range(STEPS):
        part, current = WeightedTask(*(tensor[rows] for tensor in batch)), theta[rows]
        gradient, products = gradients_and_products(problem, lam, current, part)
        norm = gradient.norm(dim=1)
        if goal is None:
            goal, radius, before = tolerance * norm.clamp(min=1.0), norm.clamp(min=1.0), value(current, part)
        last = norm <= goal
        accuracy = torch.where(last, tolerance, norm.sqrt().clamp(max=FORCING))  # the last step squares the gradient
        step, decrease = _steihaug(products, gradient, accuracy, torch.where(last, torch.inf, radius))
        after = value(current + step, part)
        slack = 1e2 * torch.finfo(theta.dtype).eps * before.abs().clamp(min=1.0)  # rounding of the values
        gain = (before - after + slack) / (decrease + slack)
        accepted = last | (gain > 1e-3)
        theta[rows[accepted]] = (current + step)[accepted]
        length = step.norm(dim=1)
        grown = torch.where((gain > 0.75) & (length > 0.9 * radius), 2 * radius, radius)
        radius = torch.where(~accepted | (gain < 0.25), length / 4, grown)
        before = torch.where(accepted, after, before)
        left, converged[rows[last]] = ~last, True
        rows, goal, radius, before = rows[left], goal[left], radius[left], before[left]
        if not len(rows):
            break
    converged[converged.clone()] = ~_has_negative_curvature(problem, lam, theta[converged], batch, converged)
    return theta, (~converged).nonzero()[:, 0]


def _has_negative_curvature(
    problem: Problem, lam: Float[Tensor, " q"], theta: Thetas, batch: WeightedTask, rows: Tensor
) -> Bool[Tensor, " m"]:
    """Return whether conjugate gradients meet a direction of negative curvature of each task's inner Hessian."""
    if not len(theta):
        return torch.zeros(0, dtype=torch.bool, device=theta.device)
    products = gradients_and_products(problem, lam, theta, WeightedTask(*(tensor[rows] for tensor in batch)))[1]
    random = torch.randn(theta.shape, generator=torch.Generator().manual_seed(0), dtype=theta.dtype).to(theta)
    found = cg(lambda v: products(v[:, None])[:, 0], random, tolerance=CURVATURE_TOLERANCE)
    return torch.tensor([status == "not_positive_definite" for status in found.row_status], device=theta.device)


def _steihaug(
    products: Product, gradient: Thetas, accuracy: Float[Tensor, " m"], radius: Float[Tensor, " m"]
) -> tuple[Thetas, Float[Tensor, " m"]]:
    """Return (steps within the radius, the decrease that the quadratic model predicts), for every task."""
    step, moved = torch.zeros_like(gradient), torch.zeros_like(gradient)  # s, H s
    residual, direction = -gradient, -gradient
    rr = residual.square().sum(1)
    goal, live = (accuracy * gradient.norm(dim=1)) ** 2, rr > 0
    for _ in range(CG_STEPS):
        if not live.any():
            break
        product = products(direction[:, None])[:, 0]
        curvature = (direction * product).sum(1)
        length = rr / torch.where(curvature > 0, curvature, 1.0)
        inside = (curvature > 0) & ((step + length[:, None] * direction).norm(dim=1) <= radius)
        length = torch.where(inside, length, _to_edge(step, direction, radius))
        length = torch.where(live, length, 0.0)
        step, moved = step + length[:, None] * direction, moved + length[:, None] * product
        residual = residual - length[:, None] * product
        next_rr = residual.square().sum(1)
        live = live & inside & (next_rr > goal)
        direction = residual + (next_rr / rr.clamp(min=torch.finfo(rr.dtype).tiny))[:, None] * direction
        rr = next_rr
    return step, -(gradient * step).sum(1) - (step * moved).sum(1) / 2


def _to_edge(step: Thetas, direction: Thetas, radius: Float[Tensor, " m"]) -> Float[Tensor, " m"]:
    """Return the t >= 0 with |step + t direction| = radius; 0 where the radius is infinite (a last step)."""
    a, b = direction.square().sum(1).clamp(min=torch.finfo(step.dtype).tiny), (step * direction).sum(1)
    c = radius.square() - step.square().sum(1)
    t = (-b + (b.square() + a * c.clamp(min=0.0)).sqrt()) / a
    return torch.where(radius.isfinite(), t, 0.0)
