r"""Ren et al.: the influence of tasks and of single examples, inner and outer, in bilevel meta-learning.

    task                 dlam/deps_k = -S^-1 D f_k                                   Theorem 4.3
    validation example   dlam/deps   = -S^-1 D l(z), D the TOTAL gradient            Theorem 4.5, corrected
    training example     dlam/deps   = +S^-1 D_lam P,   P = -partial_theta f_k . inner   Theorems 4.6, 4.7
    training, inside     dtheta_k/deps = inner,   df_k/deps = -P at fixed lam         Theorems 4.6, 4.7
    on a new task        df'/deps    = (D f')^T dlam/deps                            Definition 5.2, corrected

S = l2 I + H_total; objectives and symbols: ``xl.meta.Bilevel``. eps is added to one weight c, a or b, and an
example's influence is c_k times that above. Removal is eps = -c_k, -a or -b, -1 without weights, so it subtracts
the influence. Where this differs from the paper: Theorem 4.5 prints the plain gradient; Proposition 4.8 is minus ours
and loses the outer ridge (slip 6); Definition 5.2 drops dtheta'/dlam (``shortcut=True`` does so too).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_choice, require_indices, require_some, warn_caller
from explainlib.datasets import Tasks
from explainlib.influence.bilevel.curvature import (
    HESSIANS,
    INVERSES,
    SOLVERS,
    OuterCurvature,
    solver_of,
    stationarity,
)
from explainlib.influence.bilevel.edits import newton_edit
from explainlib.influence.bilevel.examples import ExampleInfluence
from explainlib.influence.bilevel.outer import OuterSolver
from explainlib.meta.bilevel import Bilevel, InnerState, TaskWeights, require_bilevel
from explainlib.solvers.solution import Solution, SolverWarning


class BilevelInfluence(ExampleInfluence):
    """The influence of M tasks and their examples on the meta-parameters of a bilevel learner.

    Args:
        bilevel: the learner.
        lam: its meta-parameters [q], at a stationary point of these tasks (``xl.meta.solve``).
        tasks: the M training tasks.
        hessian: "exact", or the paper's "gamma", which ranks but is too small for edits (slip 5).
        solver: "dense" (one factorisation), "cg" or "neumann" (products only).
        inner_hessian: "exact"; for networks of Linear and convolution layers "ekfac" (approximate), or "ekfac_cg"
            (exact, by conjugate gradients that EK-FAC preconditions).
        weights: those that lam was solved with, from ``xl.meta.TaskWeights.of``.
        subsample: tasks that S is estimated from, a random subset scaled to all (Ren et al., Algorithms 1 and 2); None
            is all.
        seed: of the subset.
        strict: raise unless lam is stationary; otherwise warn.
        scale: of the Neumann series; None is 1.1 times the largest eigenvalue of S.
        tolerance: relative residual of "cg" and "neumann"; None is their default.
        max_steps: of "cg" and "neumann"; None is 1,000 terms of the series, and the default of ``xl.solvers``' CG.
        on_failure: "raise" or "warn" when a solve fails.

    Attributes:
        gradients: D f_i [M, q].
        gradient_norm: |sum_i c_i D f_i + l2 lam|.
        status: "stationary" or "not_stationary".
        solution: the last solve's ``Solution``, its status, steps and residual; None before the first. Its status is
            "not_positive_definite" where S is indefinite: lam is then a saddle, and influence is the response of that
            stationary point, not the result of retraining. "dense" returns it with a ``SolverWarning``, the others
            raise.

    Raises:
        ValueError: parameters of another learner, a point that is not stationary under ``strict``.
        SolverError: a solve that failed, such as a diverging Neumann series or CG on an indefinite S.

    Source: Ren et al., section 4.
    """

    @compute.entry
    def __init__(
        self,
        bilevel: Bilevel,
        lam: Float[Tensor, " q"],
        tasks: Tasks,
        *,
        hessian: str = "exact",
        solver: str = "dense",
        inner_hessian: str = "exact",
        weights: TaskWeights | None = None,
        subsample: int | None = None,
        seed: int = 0,
        strict: bool = False,
        scale: int | float | None = None,
        tolerance: int | float | None = None,
        max_steps: int | None = None,
        on_failure: str = "raise",
    ) -> None:
        self.hessian = require_choice("hessian", hessian, HESSIANS)
        self.solver = require_choice("solver", solver, SOLVERS)
        self.inner_hessian = require_choice("inner_hessian", inner_hessian, tuple(INVERSES))
        require_choice("on_failure", on_failure, ("raise", "warn"))
        self.bilevel, self.lam = require_bilevel(bilevel), bilevel.require_w(lam)
        self.tasks_given = bilevel.require_tasks(tasks)
        self.weights = TaskWeights.checked(tasks, weights)
        options = {"scale": scale, "tolerance": tolerance, "max_steps": max_steps}
        self._inverse = INVERSES[inner_hessian]
        self.subsample = subsample
        curvature = OuterCurvature(self.bilevel, self.lam, tasks, self.weights, self._inverse).subsampled(
            subsample, seed
        )
        self._outer = OuterSolver(curvature, solver, on_failure, options)
        self._cache: dict[str, object] = {}
        exact_gradients = bilevel.total_gradients(self.lam, tasks, weights=self.weights)
        self.gradient = self.weights.tasks @ exact_gradients + bilevel.l2 * self.lam
        self.gradient_norm = float(self.gradient.norm())
        self.gradients: Float[Tensor, "M q"] = exact_gradients
        if inner_hessian == "ekfac":
            self.gradients = torch.cat([state.total_gradients() for _, state in self._inner_states()])
        self.status = stationarity(self.gradient_norm, float(exact_gradients.norm(dim=1).mean()), strict)

    @classmethod
    def published(cls, bilevel: Bilevel, lam: Float[Tensor, " q"], tasks: Tasks, **options: object) -> BilevelInfluence:
        """Return the influence by the paper's own approximations: EK-FAC inside, Gamma outside, a Neumann series.

        It ranks tasks; for edits Gamma is too large and its steps are too small (slip 5). The study prints its error.

        Args:
            bilevel: the learner; every layer of a task's own parameters is Linear or a convolution.
            lam: its meta-parameters [q].
            tasks: the M training tasks.
            options: of ``BilevelInfluence``: weights, subsample, seed, strict, scale, tolerance, max_steps, on_failure.

        Raises:
            TypeError: hessian, solver or inner_hessian, which are fixed here.

        Source: Ren et al., Algorithms 1 and 3 to 6 and Theorem 5.1, with Theorem 4.5's total gradient.
        """
        return cls(bilevel, lam, tasks, hessian="gamma", solver="neumann", inner_hessian="ekfac", **options)

    @property
    def solution(self) -> Solution | None:
        """The last solve's ``Solution``: status, steps and residual; None before the first."""
        return self._outer.solution

    @compute.entry
    def tasks(self) -> Float[Tensor, "M q"]:
        """Return dlam/deps for every task, one factorisation for all (Theorem 4.3)."""
        if "tasks" not in self._cache:
            self._cache["tasks"] = -self._outer.solve(self.gradients, self.hessian)
        return self._cache["tasks"]

    def task(self, k: int) -> Float[Tensor, " q"]:
        """Return dlam/deps of task k; > 0 means that more of it raises that meta-parameter."""
        return self.tasks()[self._task_index(k)]

    @compute.entry
    def direct_tasks(self) -> Float[Tensor, "M q"]:
        """Return the paper's direct-IF of every task (eq. 2).

        For the proximal problem it is identically zero (slip 4), unless the outer losses have the proximity term too:
        ``Bilevel(outer_proximity=True)``.

        Where l2 I + sum_i partial_lam^2 f_i is indefinite, lam is not a minimum of that problem: a ``SolverWarning`` is
        given, and ``solution.status`` is "not_positive_definite".
        """
        if "direct" not in self._cache:
            rows, states = zip(*self._inner_states(), strict=True)
            c = [self.weights.tasks[k] for k in rows]
            matrix = sum(s.direct_hessian(own, third_order=False) for s, own in zip(states, c, strict=True))
            matrix = (matrix + matrix.T) / 2  # eq. (3) and its ridge
            matrix.diagonal().add_(self.bilevel.l2)
            self._cache["direct"] = solver_of("dense", matrix)(torch.cat([state.partial_lam for state in states]))
        found = self._outer.solution = self._cache["direct"]
        if not found.converged:
            warn_caller(found.sentence, SolverWarning)
        return -found.value

    def direct(self, k: int) -> Float[Tensor, " q"]:
        """Return the paper's direct-IF of task k (eq. 2), a row of ``direct_tasks``."""
        return self.direct_tasks()[self._task_index(k)]

    @compute.entry
    def first_order_tasks(self) -> Float[Tensor, "M q"]:
        """Return -S^-1 partial_theta f_k, S exact: dtheta/dlam taken as I, often called "direct" (slip 4).

        Raises:
            ValueError: inner="head", where theta and lam differ in shape.
        """
        self._require_proximal("first_order")
        if "first order" not in self._cache:
            rows = torch.cat([state.partial_theta for _, state in self._inner_states()])
            self._cache["first order"] = -self._outer.solve(rows, "exact")
        return self._cache["first order"]

    def first_order(self, k: int) -> Float[Tensor, " q"]:
        """Return -S^-1 partial_theta f_k (slip 4), a row of ``first_order_tasks``; proximal only."""
        return self.first_order_tasks()[self._task_index(k)]

    @compute.entry
    def without_tasks(self, indices: list[int] | Int[Tensor, " k"], *, newton: bool = False) -> Float[Tensor, " q"]:
        """Return lam after removing several tasks at once: lam minus their influences, or one leave-out Newton step.

        Args:
            indices: distinct tasks, not all.
            newton: one Newton step of the remaining problem from lam.

        Raises:
            ValueError: all tasks removed, an index outside the tasks; newton with hessian="gamma".
        """
        rows = require_some(indices, len(self.tasks_given), of="training tasks")
        if not newton:
            return self.lam - self.weights.tasks[rows] @ self.tasks()[rows]
        return self._newton(rows, None)

    def without_task(self, k: int, *, newton: bool = False) -> Float[Tensor, " q"]:
        """Return lam after removing task k."""
        return self.without_tasks([self._task_index(k)], newton=newton)

    @compute.entry
    def without_example(self, k: int, i: int, part: str = "training", *, newton: bool = False) -> Float[Tensor, " q"]:
        """Return lam after removing one example of task k.

        Args:
            k: the task.
            i: index of the example in its part.
            part: "training" (support) or "validation" (query).
            newton: one Newton step of the problem without it; for a training example the task is adapted again.
        """
        i = self.example_index(self._task_index(k), i, part)
        if not newton:
            influence = (self.training_example if part == "training" else self.validation_example)(k, i)
            return self.lam - getattr(self.weights, part)[k, i] * influence
        return self._newton([k], self.weights[[k]].without_example(0, i, part))

    def _newton(self, rows: list[int] | Tensor, now: TaskWeights | None) -> Float[Tensor, " q"]:
        if self.hessian != "exact" or self.inner_hessian == "ekfac" or self.subsample is not None:
            raise ValueError(
                "newton=True takes the exact step of the remaining problem; make it with "
                "BilevelInfluence(..., hessian='exact', inner_hessian='exact', subsample=None), or pass newton=False."
            )
        options = {"solver": self.solver, "options": self._outer.options, "before": self.weights[rows], "now": now}
        whole, changed = self._outer.system("exact"), self.tasks_given[rows]
        step = newton_edit(self.bilevel, self.lam, self.gradient, whole, changed, **options)
        return self.lam - self._outer.accept(step)[0]

    @compute.entry
    def subsample_error(self) -> float:
        """Return |S x - b| / |b| with the S of all tasks, for the tasks' solved gradients x; 0 without a subset.

        It costs one product of S with as many rows as there are tasks, and forms no matrix.
        """
        if self.subsample is None:
            return 0.0
        whole = OuterCurvature(self.bilevel, self.lam, self.tasks_given, self.weights, self._inverse)
        residual = whole.operator(self.hessian)(-self.tasks()) - self.gradients
        return float(residual.norm() / self.gradients.norm())

    @compute.entry
    def step_to_rest(self) -> float:
        """Return |S^-1 D F| over the median |S^-1 D f_k|: how far lam is from rest, in units of one task's influence.

        Near 0 at a stationary point. Above 1 an edit by influence is shorter than what training left undone.
        """
        step = self._outer.solve(self.gradient[None], self.hessian)
        return float(step.norm() / self.tasks().norm(dim=1).median())

    @compute.entry
    def performance(self, new_tasks: Tasks, *, shortcut: bool = False) -> Float[Tensor, "T M"]:
        """Return df'/deps: the derivative of each new task's outer loss in the weight of each training task.

        Args:
            new_tasks: T tasks that the learner can read.
            shortcut: the paper's Definition 5.2, which drops dtheta'/dlam; proximal only.

        Returns:
            [T, M]; > 0 is harmful, and minus this predicts the removal.

        Raises:
            ValueError: the shortcut with inner="head", whose shapes differ.
        """
        if shortcut:
            self._require_proximal("performance(shortcut=True)")
            return self.bilevel.partial_gradients(self.lam, new_tasks)[1] @ self.tasks().T
        return self._new_gradients(new_tasks) @ self.tasks().T

    def _new_gradients(self, new_tasks: Tasks) -> Float[Tensor, "T q"]:
        states = self.bilevel.inner_states(self.lam, new_tasks, inverse=self._inverse)
        return torch.cat([state.total_gradients() for _, state in states])

    def _task_index(self, k: int) -> int:
        return int(require_indices([k], len(self.tasks_given), name="k", of="training tasks")[0])

    def _require_proximal(self, name: str) -> None:
        if self.bilevel.inner != "proximal":
            raise ValueError(
                f"{name} multiplies a gradient in theta [{self.bilevel.p}] with lam's shape [{self.bilevel.q}], which "
                "only inner='proximal' of a Bilevel gives; use the total gradient (performance(), task())."
            )

    def _inner_states(self) -> Iterator[tuple[slice, InnerState]]:
        return self.bilevel.inner_states(self.lam, self.tasks_given, weights=self.weights, inverse=self._inverse)

    def _state(self, k: int) -> InnerState:
        row = [self._task_index(k)]
        options = {"weights": self.weights[row], "inverse": self._inverse}
        return next(state for _, state in self.bilevel.inner_states(self.lam, self.tasks_given[row], **options))

    def __repr__(self) -> str:
        """Return one line."""
        return (
            f"BilevelInfluence(M={len(self.tasks_given)}, {self.bilevel}, {self.hessian}, {self.solver}, "
            f"inner {self.inner_hessian}, |gradient| {self.gradient_norm:.1e})"
        )
