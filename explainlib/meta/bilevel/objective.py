"""The outer objective of a bilevel problem along a sequence of points, inner problems warm-started.

A strictly convex inner problem has one solution for each lam, for any start, so Newton starts from the solutions
of the previous point. A network's inner problems may have several, so they always start from their centre.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.datasets import Tasks
from explainlib.meta.bilevel.inner import InnerError
from explainlib.meta.bilevel.learner import Bilevel
from explainlib.meta.bilevel.task_weights import TaskWeights


@dataclass(frozen=True, eq=False)
class Point:
    """F and its gradient at one lam.

    Attributes:
        lam: [q].
        value: F, or infinity where an inner problem was not solved.
        gradient: D F [q].
        thetas: the inner solutions [M, p]; None where value is infinite.
    """

    lam: Float[Tensor, " q"]
    value: float
    gradient: Float[Tensor, " q"]
    thetas: Float[Tensor, "M p"] | None = field(repr=False)


class Objective:
    """F and its derivatives for one weighting.

    Args:
        bilevel: the learner.
        tasks: M tasks.
        weights: theirs.
    """

    def __init__(self, bilevel: Bilevel, tasks: Tasks, weights: TaskWeights) -> None:
        present = weights.tasks.nonzero()[:, 0]  # a removed task needs no inner solution
        all_present = len(present) == len(tasks)
        self.bilevel = bilevel
        self.tasks, self.weights = (tasks, weights) if all_present else (tasks[present], weights[present])
        self._previous: Tensor | None = None

    def at(self, lam: Float[Tensor, " q"]) -> Point:
        """Return F and D F.

        Raises:
            InnerError: an inner problem that Newton cannot solve.
        """
        value, gradient = self.bilevel.l2 / 2 * lam @ lam, self.bilevel.l2 * lam
        thetas = []
        start = self._previous if self.bilevel.problem.linear is not None else None
        with torch.no_grad():
            for rows, state in self.bilevel.inner_states(lam, self.tasks, weights=self.weights, start=start):
                value = value + self.weights.tasks[rows] @ state.losses
                gradient = gradient + self.weights.tasks[rows] @ state.total_gradients()
                thetas.append(state.theta)
        self._previous = torch.cat(thetas)
        return Point(lam, float(value), gradient, self._previous)

    def value_or_infinity(self, lam: Float[Tensor, " q"]) -> Point:
        """Return ``at(lam)``, with value infinity where an inner problem was not solved, so that no step accepts it."""
        try:
            return self.at(lam)
        except InnerError:
            return Point(lam, float("inf"), torch.zeros_like(lam), None)

    def hessian(self, point: Point) -> Float[Tensor, "q q"]:
        """Return D D F, ridge included."""
        with torch.no_grad():
            total = self.bilevel.total_hessian(point.lam, self.tasks, weights=self.weights, start=point.thetas)
        total.diagonal().add_(self.bilevel.l2)
        return total

    def loss(self, point: Point) -> float:
        """Return F without its ridge."""
        return point.value - float(self.bilevel.l2 / 2 * point.lam @ point.lam)
