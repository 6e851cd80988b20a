r"""A batch of tasks at their inner solutions, and the derivatives of the outer losses through them.

    J = dtheta/dlam = -H_in^-1 grad_theta grad_lam g                                          eq. (4)
    D f = partial_lam f + J^T partial_theta f                                                 Theorem 4.1
    D D f = [I; J]^T grad^2 L [I; J],   L(lam, theta) = f + u . grad_theta g,   u = -H_in^-1 partial_theta f

The last line is Definition 4.2 in full: the u-term of L is the contribution of d^2 theta/dlam^2 (differentiate
grad_theta g = 0 twice). An extra weight on training example z moves theta by inner = -H_in^-1 grad_theta l(z), and

    d(D f)/d b_z = [I; J]^T ( grad^2 L [0; inner] + grad (u . grad_theta l(z)) ) = -D_lam P          Theorem 4.7

Source: Ren et al., sections 4.1 and 4.2; the Lagrangian L is ours, equal to Remark 4.4.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, grad_and_value, jacrev, jvp, vjp

from explainlib.derivatives import vmap
from explainlib.meta.bilevel.inner import inner_inverse
from explainlib.meta.bilevel.inverse import InnerInverse
from explainlib.meta.bilevel.problem import Problem, Proximal
from explainlib.meta.bilevel.task_weights import WeightedTask

LamRows, ThetaRows = Float[Tensor, "m k q"], Float[Tensor, "m k p"]
ROWS = 64  # basis vectors in one batched product


class InnerState:
    """m tasks at theta_i(lam).

    Args:
        problem: both levels.
        lam: [q].
        theta: the inner solutions [m, p].
        batch: the tasks with their examples' weights.
        inverse: of the inner Hessians; None factors the exact ones. Any ``InnerInverse``.

    Attributes:
        losses: f_i [m].
        partial_lam, partial_theta: the partial derivatives of f_i [m, q] and [m, p].
        adjoint: u [m, p].
    """

    def __init__(
        self,
        problem: Problem,
        lam: Float[Tensor, " q"],
        theta: Float[Tensor, "m p"],
        batch: WeightedTask,
        inverse: InnerInverse | None = None,
    ) -> None:
        self.problem, self.lam, self.theta, self.batch = problem, lam, theta, batch
        self.inverse = inner_inverse(problem, lam, theta, batch) if inverse is None else inverse
        (self.partial_lam, self.partial_theta), self.losses = self._vmap(grad_and_value(problem.outer, argnums=(0, 1)))
        self.adjoint: Float[Tensor, "m p"] = -self.inverse.solve(self.partial_theta[:, None])[:, 0]

    def _vmap(self, function: Callable[..., object], *more: Tensor) -> object:
        """Return function(lam, theta_i, task_i, ...) for every task."""
        return vmap(lambda theta, task, *rest: function(self.lam, theta, task, *rest))(self.theta, self.batch, *more)

    @property
    def _proximal(self) -> bool:
        return isinstance(self.problem, Proximal)

    @property
    def _only_through_theta(self) -> bool:
        """Whether lam enters L by the inner proximity alone, and linearly: its second derivatives in lam are zero."""
        return self._proximal and not self.problem.outer_proximity

    def jvp(self, v: LamRows) -> ThetaRows:
        """Return J v, the change of theta for a change v of lam."""
        if self._proximal:
            return self.problem.strength * self.inverse.solve(v)

        def cross(lam: Tensor, theta: Tensor, task: WeightedTask, rows: Tensor) -> Tensor:
            inner_gradient = lambda at: self.problem.inner_gradient(at, theta, task)  # noqa: E731
            return vmap(lambda row: jvp(inner_gradient, (lam,), (row,))[1])(rows)

        return -self.inverse.solve(self._vmap(cross, v))

    def vjp(self, rows: ThetaRows) -> LamRows:
        """Return J^T rows: a gradient in theta as a gradient in lam."""
        solved = self.inverse.solve(rows)
        if self._proximal:
            return self.problem.strength * solved

        def cross(lam: Tensor, theta: Tensor, task: WeightedTask, rows: Tensor) -> Tensor:
            vjp_function = vjp(lambda at: self.problem.inner_gradient(at, theta, task), lam)[1]
            return vmap(lambda row: vjp_function(row)[0])(rows)

        return -self._vmap(cross, solved)

    def jacobian(self) -> Float[Tensor, "m p q"]:
        """Return J, by vjps along theta, the smaller side."""
        m, p = self.theta.shape
        eye = torch.eye(p, dtype=self.theta.dtype, device=self.theta.device)
        if self._proximal:
            return self.problem.strength * self.inverse.solve(eye.expand(m, -1, -1)).mT

        def cross(lam: Tensor, theta: Tensor, task: WeightedTask) -> Tensor:
            vjp_function = vjp(lambda at: self.problem.inner_gradient(at, theta, task), lam)[1]
            return vmap(lambda row: vjp_function(row)[0])(eye)

        return -self.inverse.solve(self._vmap(cross).mT).mT

    def total_gradients(self) -> Float[Tensor, "m q"]:
        """Return D f_i."""
        return self.partial_lam + self.vjp(self.partial_theta[:, None])[:, 0]

    def lagrangian_products(self, v: LamRows, w: ThetaRows, *, third_order: bool = True) -> tuple[LamRows, ThetaRows]:
        """Return grad^2 L [v; w], or grad^2 f [v; w] without the third-order terms."""
        adjoint = self.adjoint if third_order else torch.zeros_like(self.adjoint)

        def one(lam: Tensor, theta: Tensor, task: WeightedTask, u: Tensor, v: Tensor, w: Tensor) -> tuple:
            function = lambda a, b: self.problem.lagrangian(a, b, u, task)  # noqa: E731
            if not third_order:
                function = lambda a, b: self.problem.outer(a, b, task)  # noqa: E731
            vjp_function = vjp(grad(function, argnums=(0, 1)), lam, theta)[1]
            return vmap(lambda a, b: vjp_function((a, b)))(v, w)

        return self._vmap(one, adjoint, v, w)

    def hessian_products(self, v: LamRows, *, third_order: bool = True) -> LamRows:
        """Return D D f_i v for k rows of every task."""
        partial_lam, partial_theta = self.lagrangian_products(v, self.jvp(v), third_order=third_order)
        return partial_lam + self.vjp(partial_theta)

    def total_hessian(self, weights: Float[Tensor, " m"], *, third_order: bool = True) -> Float[Tensor, "q q"]:
        """Return sum_i weight_i D D f_i, assembled from the blocks of grad^2 L.

        Args:
            weights: of the tasks [m].
            third_order: False drops d^2 theta/dlam^2.
        """
        p, q, eye = self.theta.shape[1], self.lam.numel(), torch.eye(self.theta.shape[1]).to(self.theta)
        mixed_block, theta_block = self.theta.new_empty(len(weights), p, q), self.theta.new_empty(len(weights), p, p)
        for rows in torch.arange(p).split(ROWS):
            basis = eye[rows].expand(len(weights), -1, -1)
            zeros = self.lam.new_zeros(len(weights), len(rows), q)
            mixed_block[:, rows], theta_block[:, rows] = self.lagrangian_products(zeros, basis, third_order=third_order)
        jacobian = self.jacobian()
        weighted = (weights[:, None, None] * jacobian).flatten(0, 1)
        total = weighted.T @ (theta_block @ jacobian).flatten(0, 1)
        if not self._only_through_theta:
            mixed = weighted.T @ mixed_block.flatten(0, 1)
            total = total + mixed + mixed.T + self.direct_hessian(weights, third_order=third_order)
        return (total + total.T) / 2

    def direct_hessian(self, weights: Float[Tensor, " m"], *, third_order: bool = True) -> Float[Tensor, "q q"]:
        """Return sum_i weight_i grad_lam^2 L_i, or of f_i without the third-order terms, in one graph for all tasks.

        Args:
            weights: of the tasks [m].
            third_order: False takes f instead of L.
        """
        total = self.lam.new_zeros(self.lam.numel(), self.lam.numel())
        if self._only_through_theta:
            return total
        adjoint = self.adjoint if third_order else torch.zeros_like(self.adjoint)

        def sum_over_tasks(lam: Tensor) -> Tensor:
            one = self.problem.lagrangian if third_order else lambda a, b, u, task: self.problem.outer(a, b, task)
            return weights @ vmap(lambda b, u, task: one(lam, b, u, task))(self.theta, adjoint, self.batch)

        vjp_function = vjp(grad(sum_over_tasks), self.lam)[1]
        eye = torch.eye(len(total), dtype=total.dtype, device=total.device)
        return torch.cat([vmap(lambda row: vjp_function(row)[0])(part) for part in eye.split(ROWS)])

    def partial_products(self, v: LamRows) -> tuple[LamRows, LamRows]:
        """Return (partial_lam^2 f v, (C + C^T) v), C = partial_lam partial_theta f J: what the paper's Gamma keeps."""
        zeros = torch.zeros_like(self.theta)[:, None].expand(-1, v.shape[1], -1)
        direct, theta_rows = self.lagrangian_products(v, zeros, third_order=False)
        mixed, _ = self.lagrangian_products(torch.zeros_like(v), self.jvp(v), third_order=False)
        return direct, mixed + self.vjp(theta_rows)

    def validation_gradients(self) -> Float[Tensor, "m r q"]:
        """Return D l(z) for every validation example, unweighted."""
        partial_lam, partial_theta = self._vmap(jacrev(self.problem.validation_losses, argnums=(0, 1)))
        return partial_lam + self.vjp(partial_theta)

    def inner_influences(self) -> Float[Tensor, "m s p"]:
        """Return inner = -H_in^-1 grad_theta l(z) for every training example (Theorem 4.6)."""
        return -self.inverse.solve(self._vmap(jacrev(self.problem.training_losses, argnums=1)))

    def training_derivatives(self) -> Float[Tensor, "m s q"]:
        """Return d(D f_i)/d b_z for every training example: the derivative of the total gradient in its weight."""
        inner = self.inner_influences()

        def adjoint_losses(lam: Tensor, theta: Tensor, task: WeightedTask, u: Tensor) -> Tensor:
            return jvp(lambda at: self.problem.training_losses(lam, at, task), (theta,), (u,))[1]

        zeros = self.lam.new_zeros(*inner.shape[:2], self.lam.numel())
        partial_lam, partial_theta = self.lagrangian_products(zeros, inner)
        explicit_lam, explicit_theta = self._vmap(jacrev(adjoint_losses, argnums=(0, 1)), self.adjoint)
        return partial_lam + explicit_lam + self.vjp(partial_theta + explicit_theta)


def sum_over_tasks(
    states: list[tuple[Tensor, InnerState]], one: Callable[[InnerState, Tensor], Tensor]
) -> Callable[[Float[Tensor, "k q"]], Float[Tensor, "k q"]]:
    """Return v -> sum over tasks of weight times one(state, v), in blocks of rows.

    Args:
        states: (weights, state) of each batch of tasks.
        one: (state, rows for every task) -> products.
    """

    def product(v: Tensor) -> Tensor:
        return sum(torch.einsum("m,mkq->kq", c, one(s, v.expand(len(c), -1, -1))) for c, s in states)

    return lambda v: torch.cat([product(part) for part in v.split(ROWS)])
