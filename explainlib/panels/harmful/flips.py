"""Spoiled tasks: labels flipped, the learner solved on them, the suspects, and what leaving them out does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from explainlib.checks import require_count
from explainlib.datasets import Tasks, flip_task_labels
from explainlib.influence import BilevelInfluence
from explainlib.meta import Bilevel
from explainlib.meta.bilevel import solve

EDITS = ("formula", "Newton step")  # the two ways that need no solving


@dataclass(frozen=True)
class Flips:
    """What was spoiled: a share of the tasks, a share of the labels in each of them, and the seed of both."""

    tasks: float | int
    labels: float | int
    seed: int


class Outcome(NamedTuple):
    """The judging tasks at some meta-parameters: mean summed loss, and accuracy."""

    loss: float
    accuracy: float


class FlippedLearner:
    """A learner solved on tasks of which some have flipped labels.

    Args:
        bilevel: the learner.
        tasks: the M training tasks with their true labels.
        score_by: new tasks for whose sake suspects are sought.
        judge_by: other new tasks, for losses and accuracies.
        flips: what is spoiled.

    Attributes:
        tasks: the training tasks with the flipped labels.
        hit: which of them have any [M].
        lam: the meta-parameters solved on them, from the learner's own.

    Raises:
        ValueError: a share outside 0 to 1, more support labels than can be flipped, or flips that leave no task whole
            or none spoiled.
        SolveError: a learner that did not come to rest.
    """

    def __init__(self, bilevel: Bilevel, tasks: Tasks, score_by: Tasks, judge_by: Tasks, flips: Flips) -> None:
        self.bilevel, self.score_by, self.judge_by, self.flips = bilevel, score_by, judge_by, flips
        spoiled, hit = flip_task_labels(
            tasks, tasks_fraction=flips.tasks, labels_fraction=flips.labels, seed=flips.seed
        )
        self.tasks: Tasks = spoiled
        self.hit: Bool[Tensor, " M"] = hit.cpu()
        if not hit.any() or hit.all():
            raise ValueError(
                f"{int(hit.sum())} of {len(hit)} tasks would be spoiled; choose shares that spoil some and not all."
            )
        self.lam: Float[Tensor, " q"] = solve(bilevel, spoiled).w
        self._edited: dict[tuple[str, frozenset[int]], Outcome] = {}
        self._truths: dict[frozenset[int], Outcome] = {}

    @cached_property
    def influence(self) -> BilevelInfluence:
        """Of the spoiled tasks, at ``lam``."""
        return BilevelInfluence(self.bilevel, self.lam, self.tasks)

    @cached_property
    def now(self) -> Outcome:
        """What the judging tasks say at ``lam``."""
        return self._judged(self.lam)

    def scores(self, method: str) -> Float[Tensor, " M"]:
        """Return how suspicious a method finds each task, the most suspicious highest."""
        if method not in self._scores:
            self._scores[method] = METHODS[method](self)
        return self._scores[method]

    @cached_property
    def _scores(self) -> dict[str, Tensor]:
        return {}

    def order(self, method: str) -> list[int]:
        """Return the tasks, the most suspicious first."""
        return self.scores(method).argsort(descending=True, stable=True).tolist()

    def edit(self, suspects: list[int], how: str) -> Outcome:
        """Return the judging tasks after removing the suspects by "formula" or "Newton step"."""
        key = how, frozenset(suspects)
        if key not in self._edited:
            self._edited[key] = self._judged(self.influence.without_tasks(suspects, newton=how == EDITS[1]))
        return self._edited[key]

    def solve_without(self, suspects: list[int]) -> Outcome:
        """Return the judging tasks after solving without the suspects, from ``lam`` on."""
        weights = torch.ones(len(self.tasks), dtype=self.lam.dtype, device=self.lam.device)
        weights[suspects] = 0
        self._truths[frozenset(suspects)] = self._judged(
            solve(self.bilevel, self.tasks, weights=weights, start=self.lam).w
        )
        return self._truths[frozenset(suspects)]

    def truth(self, suspects: list[int]) -> Outcome | None:
        """Return the same if it is known already."""
        return self._truths.get(frozenset(suspects))

    def forget(self) -> None:
        """Drop the truths."""
        self._truths.clear()

    def total_gradients(self, tasks: Tasks) -> Float[Tensor, "M q"]:
        """Return D f of some tasks at ``lam``."""
        return self.bilevel.total_gradients(self.lam, tasks)

    def _judged(self, lam: Float[Tensor, " q"]) -> Outcome:
        losses, right = self.bilevel.outer_losses(lam, self.judge_by), self.bilevel.accuracy(lam, self.judge_by)
        return Outcome(float(losses.mean()), float(right.mean()))


def _random_scores(spoiled: FlippedLearner) -> Float[Tensor, " M"]:
    generator = torch.Generator().manual_seed(spoiled.flips.seed)
    return torch.rand(len(spoiled.tasks), generator=generator, dtype=torch.float64).to(spoiled.lam.device)


METHODS: dict[str, Callable[[FlippedLearner], Tensor]] = {
    "task influence": lambda s: s.influence.performance(s.score_by).sum(0),
    "gradient product": lambda s: -s.influence.gradients @ s.total_gradients(s.score_by).sum(0),
    "raw loss": lambda s: s.bilevel.outer_losses(s.lam, s.tasks),
    "random": _random_scores,
}


def split_in_half(new_tasks: Tasks) -> tuple[Tasks, Tasks]:
    """Return the new tasks to score by and those to judge by, so that nothing is judged by what chose it.

    Raises:
        ValueError: fewer than two.
    """
    if len(new_tasks) < 2:
        raise ValueError(f"new_tasks has {len(new_tasks)} task; pass two or more: half of them score, half judge.")
    middle = len(new_tasks) // 2
    return new_tasks[torch.arange(middle)], new_tasks[torch.arange(middle, len(new_tasks))]


def require_share(name: str, value: object) -> float:
    """Return a share above 0 and at most 1."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
        raise ValueError(f"{name}={value!r} is no share; pass a number above 0, at most 1, such as 0.25.")
    return float(value)


def offered_percents(tasks: Tasks) -> tuple[list[int], list[int]]:
    """Return the percents, in steps of five, of tasks that can be spoiled and of labels that can change in one.

    One task has to be spoiled and one has to stay; of the labels one in the support keeps each class, and one changes.

    Args:
        tasks: the training tasks.

    Raises:
        ValueError: one training example a class, so that no label can change.
    """
    m, shots = len(tasks), tasks.support_y.shape[1]
    most = shots - tasks.ways  # one of each class stays
    counts = {p: (int(p / 100 * m + 0.5), int(p / 100 * shots + 0.5)) for p in range(5, 100, 5)}
    labels = [p for p, (_, count) in counts.items() if 1 <= count <= most]
    if not labels:
        raise ValueError(
            f"tasks has {shots} training examples for {tasks.ways} classes: no label can change and every class "
            "still be shown; pass tasks with two or more of each class."
        )
    return [p for p, (count, _) in counts.items() if 1 <= count < m], labels


def require_flips(old: Flips, tasks: object, labels: object, seed: object) -> Flips:
    """Return the flips with what was given changed; None keeps what was.

    Raises:
        ValueError, TypeError: a share or a seed that is none.
    """
    return Flips(
        old.tasks if tasks is None else require_share("flipped", tasks),
        old.labels if labels is None else require_share("labels", labels),
        old.seed if seed is None else require_count("seed", seed, least=0),
    )
