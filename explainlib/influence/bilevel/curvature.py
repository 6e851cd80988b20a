"""The outer curvature S of bilevel influence, and its inverse.

Exact (Ren et al., Definition 4.2), and their Gamma (Theorem 5.1) with C_i = partial_lam partial_theta f_i dtheta/dlam:

    exact   S = l2 I + sum_i c_i D D f_i
    gamma   S = l2 I + sum_i c_i ( partial_lam^2 f_i + C_i + C_i^T + |partial_theta f_i|_1 I )

c_i are the tasks' weights, 1 unless given. For the proximal problem the second is a multiple of I (slip 5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_count, warn_caller
from explainlib.curvature.ekfac import Ekfac
from explainlib.curvature.kronecker import UncoveredError
from explainlib.datasets import Examples, Tasks
from explainlib.meta.bilevel import ROWS, Bilevel, CgInverse, MakeInverse, Problem, Proximal, TaskWeights, WeightedTask
from explainlib.risk import NotAtMinimumWarning, Risk
from explainlib.solvers.cg import cg
from explainlib.solvers.dense import Factor
from explainlib.solvers.remedies import Remedies
from explainlib.solvers.series import neumann
from explainlib.solvers.solution import Solution

Operator = Callable[[Float[Tensor, "k q"]], Float[Tensor, "k q"]]
STATIONARY = 1e-6  # relative to a single task's gradient norm: below it lam counts as stationary
REMEDIES = Remedies(shift="solve a Bilevel with a larger l2")
TERMS = 1000  # most of a Neumann series, unless the caller allows more
ITERATIVE = {
    "definite": "pass solver='dense', which solves at a saddle too, with a warning",
    "longer": "pass a larger max_steps or tolerance",
    "scale": "pass scale=...",
    "direct": "pass solver='dense'",
}
HESSIANS, SOLVERS = ("exact", "gamma"), ("dense", "cg", "neumann")


def stationarity(gradient: float, size: float, strict: bool) -> str:
    """Return "stationary" or, with a warning, "not_stationary".

    Args:
        gradient: |D F|.
        size: mean gradient norm of a single task.
        strict: raise instead of warning.

    Raises:
        ValueError: not stationary and ``strict``.
    """
    if gradient <= STATIONARY * size:
        return "stationary"
    finding = (
        f"lam is not a stationary point of these tasks: |gradient| = {gradient:.1e}, a single task's is {size:.1e}. "
        "Influence then says how a Newton step would move, not where retraining ends"
    )
    if strict:
        remedy = "use xl.meta.solve, and pass its weights here too (weights=xl.meta.TaskWeights.of(...))"
        raise ValueError(f"{finding}; {remedy}, or pass strict=False.")
    warn_caller(f"{finding}.", NotAtMinimumWarning)
    return "not_stationary"


@dataclass(frozen=True, eq=False)
class OuterCurvature:
    """S at lam, as products or as a matrix.

    Attributes:
        bilevel: the learner.
        lam: meta-parameters [q].
        tasks: M tasks.
        weights: of tasks and examples.
        inverse: builds the inner inverses; None is exact.

    Source: Ren et al., Definition 4.2 and Theorem 5.1.
    """

    bilevel: Bilevel
    lam: Float[Tensor, " q"]
    tasks: Tasks
    weights: TaskWeights
    inverse: MakeInverse | None = None

    def subsampled(self, count: int | None, seed: int) -> OuterCurvature:
        """Return S estimated from a random subset of the tasks, their weights scaled to the sum of all.

        Args:
            count: of tasks; None is all.
            seed: of the subset.

        Raises:
            ValueError: fewer than one task or more than there are.
        """
        if count is None:
            return self
        m = len(self.tasks)
        if require_count("subsample", count) > m:
            raise ValueError(f"subsample={count} is more than the {m} tasks there are; pass {m} or fewer, or None.")
        generator = torch.Generator().manual_seed(require_count("seed", seed, least=0))
        chosen = torch.randperm(m, generator=generator)[:count].sort().values
        some = self.weights[chosen]
        share = some.tasks.sum() / self.weights.tasks.sum()
        if not share > 0:
            raise ValueError(f"all {count} tasks of subsample={count} have weight 0; pass a larger subsample.")
        return replace(self, tasks=self.tasks[chosen], weights=replace(some, tasks=some.tasks / share))

    def operator(self, hessian: str) -> Operator:
        """Return v -> S v on rows [k, q], ``hessian`` "exact" or "gamma"."""
        options = {"weights": self.weights, "inverse": self.inverse}
        if hessian == "exact":
            total = self.bilevel.hessian_operator(self.lam, self.tasks, **options)
            return lambda v: total(v) + self.bilevel.l2 * v
        c = self.weights.tasks
        states = [(c[rows], state) for rows, state in self.bilevel.inner_states(self.lam, self.tasks, **options)]
        shift = self.bilevel.l2 + sum(float(own @ state.partial_theta.abs().sum(1)) for own, state in states)  # Thm 5.1
        if self.bilevel.inner == "proximal" and not self.bilevel.problem.outer_proximity:
            return lambda v: shift * v

        def product(v: Tensor) -> Tensor:
            total = shift * v
            for own, state in states:
                direct, mixed = state.partial_products(v.expand(len(state.theta), -1, -1))
                total = total + torch.einsum("m,mkq->kq", own, direct + mixed)
            return total

        return product

    def matrix(self, hessian: str) -> Float[Tensor, "q q"]:
        """Return S [q, q], ``hessian`` "exact" or "gamma"."""
        if hessian == "exact":
            total = self.bilevel.total_hessian(self.lam, self.tasks, weights=self.weights, inverse=self.inverse)
            total.diagonal().add_(self.bilevel.l2)
            return total
        total = dense(self.operator(hessian), self.lam)
        return (total + total.T) / 2


def dense(product: Operator, like: Float[Tensor, " q"]) -> Float[Tensor, "q q"]:
    """Return the matrix of an operator, a row for each basis vector."""
    eye = torch.eye(like.numel(), dtype=like.dtype, device=like.device)
    return torch.cat([product(part) for part in eye.split(ROWS)])


def solver_of(
    solver: str, product: Operator | Float[Tensor, "q q"], **options: int | float | None
) -> Callable[[Float[Tensor, "k q"]], Solution]:
    """Return b -> S^-1 b on rows, from a factored matrix or from products.

    Args:
        solver: "dense" (``product`` is the matrix), "cg" or "neumann".
        product: S.
        options: ``scale`` (Neumann), ``tolerance`` and ``max_steps`` (both); None is the solver's own.

    Returns:
        A function of rows [k, q] that returns a Solution. An indefinite S has the status not_positive_definite: by its
        lowest eigenvalue for "dense", which returns the solution all the same, and by a direction of negative curvature
        for "cg"; a Neumann series diverges.
    """
    given = {key: value for key, value in options.items() if value is not None}
    if solver == "dense":
        solve, remedies = _checked_solver(Factor(product)), REMEDIES
    else:
        operator = product if callable(product) else lambda v: v @ product
        remedies = replace(REMEDIES, **ITERATIVE)
        if solver == "cg":
            given.pop("scale", None)
        series = neumann if solver == "neumann" else cg
        if solver == "neumann":
            given.setdefault("max_steps", TERMS)
            remedies = replace(remedies, direct="pass solver='dense', or solver='cg', which needs far fewer products")
        solve = lambda rhs: series(operator, rhs, **given)  # noqa: E731
    return lambda rhs: replace(solve(rhs), remedies=remedies)


def _checked_solver(factor: Factor) -> Callable[[Float[Tensor, "k q"]], Solution]:
    """Return a solve with status not_positive_definite where the matrix has a negative eigenvalue."""

    def solve(rhs: Float[Tensor, "k q"]) -> Solution:
        solution = factor.solve(rhs)
        if not solution.converged or factor.lowest is None or factor.lowest > 0:
            return solution
        detail = f"the lowest eigenvalue is {factor.lowest:.2g}, so this is a saddle and not a minimum"
        return replace(solution, status="not_positive_definite", detail=detail, rows=(), eigenvalue=factor.lowest)

    return solve


def _fit_ekfac(risk: Risk) -> Ekfac:
    """Return EK-FAC of a task's risk; an uncovered layer raises with remedies for the learner."""
    try:
        return Ekfac(risk)
    except UncoveredError as error:
        options = {"learner": "Bilevel(...)", "otherwise": "pass inner_hessian='exact'"}
        raise UncoveredError(error.outside, error.covered, **options) from None


class EkfacInverse:
    """H_in^-1 of m tasks by EK-FAC, ``strength`` as its damping: s G + strength I = s (G + strength/s I).

    Args:
        problem: both levels; every layer that theta holds is Linear or a convolution.
        lam: meta-parameters [q].
        theta: the inner solutions [m, p].
        batch: their tasks.

    Source: Ren et al., appendix B.3; G replaces the Hessian of the training losses.
    """

    def __init__(
        self, problem: Problem, lam: Float[Tensor, " q"], theta: Float[Tensor, "m p"], batch: WeightedTask
    ) -> None:
        self._size = batch.support_y.shape[1]
        self._fits = []
        for k, at in enumerate(theta):
            x, y = batch.support_x[k], batch.support_y[k]
            chosen: str | tuple[str, ...] = "all"
            if isinstance(problem, Proximal):
                model, chosen = problem.parameters.model_at(at), problem.parameters.names
            else:
                model = problem.head_at(at)
                x = problem.features(lam, x)[:, : model.in_features].detach()
            risk = Risk(model, Examples(x, y), loss=problem.loss, l2=problem.strength / self._size, parameters=chosen)
            self._fits.append(_fit_ekfac(risk.reweighted(batch.training[k])))

    def solve(self, rows: Float[Tensor, "m k p"]) -> Float[Tensor, "m k p"]:
        """Return the approximate H_in^-1 rows."""
        pairs = zip(self._fits, rows, strict=True)
        return torch.stack([fit.inverse_product(part.contiguous()) for fit, part in pairs]) / self._size


def preconditioned_inverse(
    problem: Problem, lam: Float[Tensor, " q"], theta: Float[Tensor, "m p"], batch: WeightedTask
) -> CgInverse:
    """Return the exact H_in^-1 by conjugate gradients, with EK-FAC as their preconditioner.

    Args:
        problem: both levels; every layer that theta holds is Linear or a convolution.
        lam: meta-parameters [q].
        theta: the inner solutions [m, p].
        batch: their tasks.
    """
    return CgInverse(problem, lam, theta, batch, EkfacInverse(problem, lam, theta, batch))


INVERSES: dict[str, MakeInverse | None] = {"exact": None, "ekfac": EkfacInverse, "ekfac_cg": preconditioned_inverse}
