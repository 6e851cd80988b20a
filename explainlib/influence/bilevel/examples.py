"""Influence of single examples: on the meta-parameters, on their own task at fixed lam, and on new tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_choice, require_indices
from explainlib.datasets import Tasks
from explainlib.influence.bilevel.outer import OuterSolver
from explainlib.meta.bilevel import InnerState, TaskWeights


class ExampleInfluence(ABC):
    """The part of ``BilevelInfluence`` that is about examples; its attributes are there.

    Attributes:
        tasks_given: the M training tasks.
        weights: theirs, and their examples'.
        hessian: "exact" or "gamma".
    """

    tasks_given: Tasks
    weights: TaskWeights
    hessian: str
    _outer: OuterSolver

    @abstractmethod
    def _state(self, k: int) -> InnerState:
        """Return task k at its inner solution."""

    @abstractmethod
    def _inner_states(self) -> Iterator[tuple[slice, InnerState]]:
        """Return all tasks at their inner solutions, in batches."""

    @abstractmethod
    def _new_gradients(self, new_tasks: Tasks) -> Float[Tensor, "T q"]:
        """Return D f' of new tasks."""

    @compute.entry
    def validation_examples(self, k: int) -> Float[Tensor, "r q"]:
        """Return dlam/deps for every validation (query) example of task k (Theorem 4.5 with the total gradient)."""
        state = self._state(k)
        return -self._outer.solve(self.weights.tasks[k] * state.validation_gradients()[0], self.hessian)

    def validation_example(self, k: int, i: int) -> Float[Tensor, " q"]:
        """Return dlam/deps of validation example i of task k."""
        return self.validation_examples(k)[self.example_index(k, i, "validation")]

    @compute.entry
    def training_examples(self, k: int) -> Float[Tensor, "s q"]:
        """Return dlam/deps for every training (support) example of task k: +S^-1 D_lam P (Theorems 4.6, 4.7)."""
        rows = self._state(k).training_derivatives()[0]  # d(D f)/db = -D_lam P
        return -self._outer.solve(self.weights.tasks[k] * rows, self.hessian)

    def training_example(self, k: int, i: int) -> Float[Tensor, " q"]:
        """Return dlam/deps of training example i of task k."""
        return self.training_examples(k)[self.example_index(k, i, "training")]

    @compute.entry
    def example_performance(self, new_tasks: Tasks, *, part: str = "training") -> Float[Tensor, "T M e"]:
        """Return df'/deps for every example of every task: a solve for each new task, none for an example.

        Args:
            new_tasks: T tasks that the learner can read.
            part: "training" (support) or "validation" (query).

        Returns:
            [T, M, s or r]; > 0 is harmful, and minus this predicts the removal of the example.

        Source: Ren et al., Theorems 4.5 to 4.7 and Definition 5.2, with S^-1 on the other side.
        """
        require_choice("part", part, ("training", "validation"))
        solved = self._outer.solve(self._new_gradients(new_tasks), self.hessian)  # S is symmetric
        found = []
        for rows, state in self._inner_states():
            examples = state.training_derivatives() if part == "training" else state.validation_gradients()
            found.append(-torch.einsum("m,meq,tq->tme", self.weights.tasks[rows], examples, solved))
        return torch.cat(found, dim=1)

    @compute.entry
    def inner_influence(self, k: int, i: int) -> Float[Tensor, " p"]:
        """Return dtheta_k/deps at fixed lam of training example i of task k (Theorem 4.6)."""
        return self._state(k).inner_influences()[0, self.example_index(k, i, "training")]

    @compute.entry
    def inner_performance(self, k: int) -> Float[Tensor, " s"]:
        """Return df_k/deps at fixed lam for every training example of task k, -P of Theorem 4.7; > 0 is harmful."""
        state = self._state(k)
        return state.inner_influences()[0] @ state.partial_theta[0]

    def example_index(self, k: int, i: int, part: str) -> int:
        """Return i if task k has such an example."""
        require_choice("part", part, ("training", "validation"))
        count = (self.tasks_given.support_y if part == "training" else self.tasks_given.query_y).shape[1]
        of = f"{part} examples of task {k}; every task counts its own"
        return int(require_indices([i], count, name="i", of=of)[0])
