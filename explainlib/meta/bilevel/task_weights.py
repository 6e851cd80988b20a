"""The weights c of tasks, b of training and a of validation examples in the two objectives of ``Bilevel``.

All ones is the problem as it is, and what None means wherever weights are taken. c_i = 0 removes a task, a_iz = 0 or
b_iz = 0 a single example; an extra weight eps is one of these numbers changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor

from explainlib.checks import require_finite, require_indices, require_shape, require_tensor
from explainlib.datasets import Tasks


class WeightedTask(NamedTuple):
    """One task, or a batch of them, with the weights of its examples, as tensors that a batched function maps over."""

    support_x: Tensor
    support_y: Tensor
    query_x: Tensor
    query_y: Tensor
    training: Tensor
    validation: Tensor


@dataclass(frozen=True, eq=False)
class TaskWeights:
    """Weights of M tasks, of their training (support) and of their validation (query) examples; none is below zero.

    Attributes:
        tasks: c [M].
        training: b [M, s].
        validation: a [M, r].
    """

    tasks: Float[Tensor, " M"]
    training: Float[Tensor, "M s"]
    validation: Float[Tensor, "M r"]

    @staticmethod
    def of(
        tasks: Tasks,
        *,
        weights: Float[Tensor, " M"] | None = None,
        training: Float[Tensor, "M s"] | None = None,
        validation: Float[Tensor, "M r"] | None = None,
    ) -> TaskWeights:
        """Return checked weights for these tasks; None is all ones.

        Args:
            tasks: M tasks.
            weights: of the tasks [M].
            training: of the support's examples [M, s].
            validation: of the query's examples [M, r].

        Raises:
            ValueError: another shape, a negative weight, NaN, or nothing left to learn from.
        """
        m, like = len(tasks), tasks.support_x
        shapes = {
            "weights": (weights, [m]),
            "training": (training, list(tasks.support_y.shape[:2])),
            "validation": (validation, list(tasks.query_y.shape[:2])),
        }
        checked = []
        for name, (given, shape) in shapes.items():
            value = like.new_ones(shape) if given is None else require_tensor(name, given).to(like)
            require_finite(name, require_shape(name, value, shape))
            if (value < 0).any():
                raise ValueError(f"{name} holds {float(value.min()):.3g}; weights are zero (removed) or more.")
            checked.append(value)
        if not (checked[0][:, None] * checked[2]).any():
            raise ValueError(f"all {m} tasks are removed; leave at least one, or there is nothing to learn from.")
        return TaskWeights(*checked)

    @staticmethod
    def checked(tasks: Tasks, given: TaskWeights | None) -> TaskWeights:
        """Return ``given`` if it belongs to these tasks, or all ones for None.

        Raises:
            TypeError: something else than a TaskWeights.
            ValueError: as ``of``.
        """
        if given is None:
            return TaskWeights.of(tasks)
        if not isinstance(given, TaskWeights):
            raise TypeError(f"weights is a {type(given).__name__}; pass xl.meta.TaskWeights.of(tasks, weights=...).")
        return TaskWeights.of(tasks, weights=given.tasks, training=given.training, validation=given.validation)

    def without_tasks(self, indices: Sequence[int] | Int[Tensor, " k"]) -> TaskWeights:
        """Return these weights with some tasks at zero.

        Raises:
            ValueError: an index outside the tasks, or all tasks removed.
        """
        m = len(self.tasks)
        chosen = require_indices(indices, m, name="indices", of="training tasks")
        left = self.tasks.clone()
        left[chosen] = 0
        if not left.any():
            raise ValueError(f"all {m} tasks are removed; leave at least one, or there is nothing to learn from.")
        return TaskWeights(left, self.training, self.validation)

    def without_example(self, k: int, i: int, part: str) -> TaskWeights:
        """Return these weights with example i of one part of task k at zero."""
        changed = getattr(self, part).clone()
        changed[k, i] = 0
        return TaskWeights(
            **{"tasks": self.tasks, "training": self.training, "validation": self.validation, part: changed}
        )

    def batch(self, tasks: Tasks, rows: slice) -> WeightedTask:
        """Return the chosen tasks and their examples' weights as tensors."""
        parts = [part[rows] for part in tasks.arrays()]
        return WeightedTask(*parts, self.training[rows], self.validation[rows])

    def __getitem__(self, rows: list[int] | Tensor) -> TaskWeights:
        """Return the weights of the chosen tasks."""
        return TaskWeights(self.tasks[rows], self.training[rows], self.validation[rows])
