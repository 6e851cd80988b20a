r"""Bilevel meta-learning: each task solves an inner problem, and lam minimises the outer losses of the solutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from explainlib import compute
from explainlib.checks import (
    require_choice,
    require_finite,
    require_nonnegative,
    require_same_kind,
    require_shape,
    require_tensor,
    symmetrised,
)
from explainlib.datasets import Tasks
from explainlib.derivatives import vmap
from explainlib.gate import FORWARD_HESSIAN, GRADIENT, HESSIAN, THIRD
from explainlib.losses import Loss, LossFunction, require_loss
from explainlib.memory import require_numbers
from explainlib.meta.bilevel.batches import tasks_per_batch
from explainlib.meta.bilevel.inner import SMALLER, inner_solutions
from explainlib.meta.bilevel.inverse import InnerInverse
from explainlib.meta.bilevel.problem import Head, Problem, Proximal
from explainlib.meta.bilevel.softmax import softmax_products, softmax_total_hessian
from explainlib.meta.bilevel.state import InnerState, sum_over_tasks
from explainlib.meta.bilevel.task_weights import TaskWeights, WeightedTask
from explainlib.meta.learner import query_accuracy, require_task_set
from explainlib.modules import private_copy

INNER: dict[str, type[Problem]] = {"proximal": Proximal, "head": Head}
DENSE = 300  # task parameters up to which an inner Hessian is materialised
MakeInverse = Callable[[Problem, Tensor, Tensor, WeightedTask], InnerInverse]


class Bilevel:
    """A bilevel learner with a loss l on both levels.

        theta_i(lam) = argmin_theta g_i(lam, theta)
        g_i(lam, theta) = sum over training b_iz l(z; lam, theta) + strength/2 |theta - centre(lam)|^2
        F(lam) = sum_i c_i f_i(lam, theta_i(lam)) + l2/2 |lam|^2,   f_i = sum over validation a_iz l(z; lam, theta)

    Sums over M tasks i and over a task's training (support) or validation (query) examples z. All weights c, a, b are
    one unless a ``TaskWeights`` says otherwise; zero removes. D is the total derivative in lam, through theta_i;
    H_in = grad_theta^2 g_i, H_total = sum_i c_i D D f_i. The inner problems are solved to rounding and differentiated
    implicitly, not unrolled. The paper writes delta for both ``strength`` and ``l2`` (slip 8).

    Args:
        model: from x [n, ...] to outputs [n, C], each example independently, three times differentiable; copied.
        inner: "proximal" (theta is shaped like lam, centre(lam) = lam) or "head" (lam is all but the last Linear layer,
            theta that layer, centre = 0).
        strength: of the inner proximity or ridge, > 0.
        l2: the outer ridge, >= 0.
        loss: l, "cross_entropy" of labels, "squared_error" of targets [M, n, C] (without 1/2), or a callable (outputs
            [n, C], y) -> [n], three times differentiable.
        outer_proximity: add strength/2 |theta_i - centre|^2 to f_i, as the proofs of the paper's appendix B.8 do.
        inner_solver: of inner problems that are networks: "dense" (Newton with p x p Hessians), "cg" (products alone),
            or "auto", which is "cg" above 300 task parameters. All end at rounding.
        parameters: "all" (those that require a gradient) or a list of names: what is learned, the last layer of a
            "head" apart; the rest stays as it is.

    Attributes:
        lam0: the model's own q meta-parameters [q]; ``w0`` is the same.
        q, p, loss: the number of meta-parameters and of task parameters, and l as a ``Loss``.

    Raises:
        ValueError: no strength, an unknown inner problem, a model without a head where one is needed.

    Source: Ren et al., section 3.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        inner: str = "proximal",
        strength: int | float,
        l2: int | float,
        loss: str | LossFunction | Loss = "cross_entropy",
        outer_proximity: bool = False,
        inner_solver: str = "auto",
        parameters: str | Sequence[str] = "all",
    ) -> None:
        kind = INNER[require_choice("inner", inner, tuple(INNER))]
        if not strength > 0:
            raise ValueError(
                f"strength={strength} has to be above zero: without it the inner problem has no unique solution "
                "(separable tasks have none at all); pass strength=1.0, say."
            )
        self.inner, self.strength, self.l2 = inner, float(strength), float(require_nonnegative("l2", l2))
        with compute.settings():
            self.problem = kind(model, self.strength, parameters)
            self.loss = self.problem.loss = require_loss(loss)
            self.problem.outer_proximity = outer_proximity
            self.given = private_copy(model)
        self.lam0: Float[Tensor, " q"] = require_finite("the model's parameters", self.problem.lam0)
        self.w0, self.q, self.p = self.lam0, self.lam0.numel(), self.problem.theta0.numel()
        require_choice("inner_solver", inner_solver, ("auto", "dense", "cg"))
        self.problem.matrix_free = inner_solver == "cg" or (inner_solver == "auto" and self.p > DENSE)

    @compute.entry
    def inner_solution(
        self,
        lam: Float[Tensor, " q"],
        tasks: Tasks,
        *,
        weights: TaskWeights | None = None,
        start: Float[Tensor, "M p"] | None = None,
    ) -> Float[Tensor, "M p"]:
        """Return theta_i(lam) for every task, the inner gradients at rounding.

        Args:
            lam: meta-parameters [q].
            tasks: M tasks.
            weights: from ``TaskWeights.of``.
            start: initial theta [M, p]; None is the centre, so that the solution is a function of lam alone.

        Raises:
            InnerError: an inner problem that Newton cannot solve.
            ValueError: a wrong length, dtype or device; tasks that the model cannot read.
        """
        return torch.cat([theta for _, theta, _ in self._solutions(lam, tasks, weights, start)])

    @compute.entry
    def outer_losses(
        self,
        lam: Float[Tensor, " q"],
        tasks: Tasks,
        *,
        weights: TaskWeights | None = None,
        start: Float[Tensor, "M p"] | None = None,
    ) -> Float[Tensor, " M"]:
        """Return f_i(lam, theta_i(lam)), the SUM of each task's validation losses; see ``inner_solution``."""
        outer = vmap(lambda theta, task: self.problem.outer(lam, theta, task))
        with torch.no_grad():
            return torch.cat([outer(theta, batch) for _, theta, batch in self._solutions(lam, tasks, weights, start)])

    @compute.entry
    def total_gradients(
        self,
        lam: Float[Tensor, " q"],
        tasks: Tasks,
        *,
        weights: TaskWeights | None = None,
        start: Float[Tensor, "M p"] | None = None,
    ) -> Float[Tensor, "M q"]:
        """Return D f_i for every task, without the outer ridge (Ren et al., Theorem 4.1); task weights do not enter."""
        states = self.inner_states(lam, tasks, weights=weights, start=start)
        return torch.cat([state.total_gradients() for _, state in states])

    @compute.entry
    def partial_gradients(
        self, lam: Float[Tensor, " q"], tasks: Tasks
    ) -> tuple[Float[Tensor, "M q"], Float[Tensor, "M p"]]:
        """Return (partial_lam f_i, partial_theta f_i); the first is zero for the proximal problem (slip 4)."""
        parts = [(state.partial_lam, state.partial_theta) for _, state in self.inner_states(lam, tasks)]
        return tuple(torch.cat(column) for column in zip(*parts, strict=True))

    @compute.entry
    def inner_jacobian(self, lam: Float[Tensor, " q"], tasks: Tasks) -> Float[Tensor, "M p q"]:
        """Return dtheta_i/dlam for every task (eq. 4); M p q numbers."""
        M, p, q = len(tasks), self.p, self.q
        require_numbers(f"Jacobians of {M:,} tasks, {p:,} x {q:,} each", 2 * M * p * q, lam, otherwise="pass fewer")
        return torch.cat([state.jacobian() for _, state in self.inner_states(lam, tasks)])

    @compute.entry
    def total_hessian(
        self,
        lam: Float[Tensor, " q"],
        tasks: Tasks,
        *,
        weights: TaskWeights | None = None,
        third_order: bool = True,
        inverse: MakeInverse | None = None,
        start: Float[Tensor, "M p"] | None = None,
    ) -> Float[Tensor, "q q"]:
        """Return sum_i c_i D D f_i [q, q], symmetric, exact, without the outer ridge.

        Args:
            lam: meta-parameters [q].
            tasks: M tasks.
            weights: as in ``inner_solution``.
            third_order: False drops d^2 theta/dlam^2: not exact, for comparison.
            inverse: as in ``hessian_operator``.
            start: of the inner problems, as in ``inner_solution``.

        Source: Ren et al., Definition 4.2. Closed form for proximal softmax regression, otherwise q products.
        """
        self.require_derivatives(tasks, GRADIENT, HESSIAN, FORWARD_HESSIAN, THIRD)
        blocks = 0 if self.has_closed_form else 4 * min(len(tasks), self._chunk(tasks)) * self.p * (self.p + self.q)
        what = f"the total Hessian of q = {self.q:,} parameters"
        require_numbers(what, 4 * self.q**2 + blocks, lam, otherwise=SMALLER)
        total = lam.new_zeros(self.q, self.q)
        c = (weights or TaskWeights.of(tasks)).tasks
        for rows, state in self.inner_states(lam, tasks, weights=weights, inverse=inverse, start=start):
            if self.has_closed_form:
                total += softmax_total_hessian(state, c[rows], third_order=third_order)
            else:
                total += state.total_hessian(c[rows], third_order=third_order)
        return symmetrised("the total Hessian", total) if third_order else (total + total.T) / 2

    @compute.entry
    def hessian_operator(
        self,
        lam: Float[Tensor, " q"],
        tasks: Tasks,
        *,
        weights: TaskWeights | None = None,
        third_order: bool = True,
        inverse: MakeInverse | None = None,
    ) -> Callable[[Float[Tensor, "k q"]], Float[Tensor, "k q"]]:
        """Return v -> sum_i c_i D D f_i v on rows [k, q]; the q x q matrix is not materialised.

        Args:
            lam: meta-parameters [q].
            tasks: M tasks; solved and factored once, when this is called.
            weights: as in ``inner_solution``.
            third_order: as in ``total_hessian``.
            inverse: makes H_in^-1 of a batch; None is exact.
        """
        self.require_derivatives(tasks, GRADIENT, HESSIAN, FORWARD_HESSIAN, THIRD)
        c = (weights or TaskWeights.of(tasks)).tasks
        states = [(c[rows], s) for rows, s in self.inner_states(lam, tasks, weights=weights, inverse=inverse)]
        if self.has_closed_form:
            return sum_over_tasks(states, lambda s, v: softmax_products(s, v, third_order=third_order))
        return sum_over_tasks(states, lambda s, v: s.hessian_products(v, third_order=third_order))

    def inner_states(
        self,
        lam: Float[Tensor, " q"],
        tasks: Tasks,
        *,
        weights: TaskWeights | None = None,
        inverse: MakeInverse | None = None,
        start: Float[Tensor, "M p"] | None = None,
    ) -> Iterator[tuple[slice, InnerState]]:
        """Return an iterator of (rows of tasks, these tasks at their inner solutions), batch by batch as memory allows.

        Args:
            lam: meta-parameters [q].
            tasks: M tasks.
            weights: as in ``inner_solution``.
            inverse: makes H_in^-1 of a batch from (problem, lam, theta, batch); None is exact.
            start: of the inner problems, as in ``inner_solution``.
        """
        for rows, theta, batch in self._solutions(lam, tasks, weights, start):
            batch_inverse = None if inverse is None else inverse(self.problem, lam, theta, batch)
            yield rows, InnerState(self.problem, lam, theta, batch, batch_inverse)

    def adapted(self, w: Float[Tensor, " q"], tasks: Tasks) -> Float[Tensor, "M p"]:
        """Return theta_i(w): the inner solutions are the adapted parameters."""
        return self.inner_solution(w, tasks)

    @compute.entry
    def outputs(self, w: Float[Tensor, " q"], tasks: Tasks) -> Float[Tensor, "M r C"]:
        """Return the query's logits for every task after adaptation."""
        logits = vmap(lambda theta, x: self.problem.outputs(w, theta, x))
        with torch.no_grad():
            return torch.cat([logits(theta, batch.query_x) for _, theta, batch in self._solutions(w, tasks, None)])

    def losses(self, w: Float[Tensor, " q"], tasks: Tasks) -> Float[Tensor, " M"]:
        """Return the MEAN query loss of every task, as other learners do."""
        return vmap(self.problem.loss.value)(self.outputs(w, tasks), tasks.query_y).mean(1)

    def accuracy(self, w: Float[Tensor, " q"], tasks: Tasks) -> Float[Tensor, " M"]:
        """Return the share of the query that every task gets right; regression tasks raise a ``TypeError``."""
        return query_accuracy(self.outputs(w, tasks), tasks)

    def options(self) -> dict[str, object]:
        """Return the settings that determine the results, the model apart, for fingerprints."""
        options = {"kind": "bilevel", "inner": self.inner, "strength": self.strength, "l2": self.l2}
        return options | self.problem.objective_options()

    def require_w(self, lam: Float[Tensor, " q"]) -> Float[Tensor, " q"]:
        """Return lam if it can be this learner's meta-parameters."""
        require_shape("lam", require_tensor("lam", lam), [self.q], meaning="(this learner's meta-parameters)")
        require_same_kind("lam", lam, "the learner", self.lam0)
        return require_finite("lam", lam)

    def require_tasks(self, tasks: Tasks) -> Tasks:
        """Return tasks if this learner can read them."""
        require_task_set(tasks, self.lam0)
        self._outputs = self.problem.require_tasks(tasks)
        return tasks

    def require_derivatives(self, tasks: Tasks, *routes: str) -> None:
        """Return nothing, or raise, once the network's derivatives were compared on the support of a task."""
        self.require_tasks(tasks)
        if not self.has_closed_form:
            self.problem.require_derivatives(tasks.support_x[0], routes)

    @property
    def has_closed_form(self) -> bool:
        """Whether the total Hessian has a closed form; known once ``require_tasks`` has seen a task."""
        return self.inner == "proximal" and self.problem.linear is not None and not self.problem.objective_options()

    def _solutions(
        self, lam: Tensor, tasks: Tasks, weights: TaskWeights | None, start: Tensor | None = None
    ) -> Iterator[tuple[slice, Tensor, WeightedTask]]:
        lam = self.require_w(lam)
        self.require_derivatives(tasks, *((GRADIENT, HESSIAN) if self.inner == "proximal" else ()))
        weights = weights or TaskWeights.of(tasks)
        size = self._chunk(tasks)
        for first in range(0, len(tasks), size):
            rows = slice(first, first + size)
            batch = weights.batch(tasks, rows)
            yield rows, inner_solutions(self.problem, lam, batch, None if start is None else start[rows]), batch

    def _chunk(self, tasks: Tasks) -> int:
        return tasks_per_batch(self.problem, tasks, self._outputs, closed_form=self.has_closed_form)

    def __repr__(self) -> str:
        """Return one line."""
        return f"Bilevel({self.inner}, q={self.q}, p={self.p}, strength={self.strength:g}, l2={self.l2:g})"
