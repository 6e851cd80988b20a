"""One learner of the study: its tasks, the groups that are removed, and its parameters in two states.

    trained      after Adam on meta-batches; the truth is the same training, from the same start and with the same
                 batches, without the group
    near rest    after L-BFGS from there on the objective of all tasks; the truth is L-BFGS from there without the
                 group, against as many further steps with all tasks

A second training of everything with another order of the meta-batches says how much of the first truth is the group.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.datasets import Tasks, class_pool, sample_tasks
from explainlib.meta import Maml, MetaRetrained, leave_tasks_out, minimise
from explainlib.models import cnn4, mlp
from explainlib.storage import Store
from explainlib.studies.few_shot import FEATURES, FewShot, kept_back
from explainlib.studies.place import placed
from explainlib.studies.removal.settings import Learning

WAYS = 5
TOLERANCE = 1e-7  # of the gradient near rest
OTHER = 1000  # added to a seed: another order of the batches


@dataclass(frozen=True)
class Problem:
    """One kind of learner and one seed; everything is computed when asked for and kept in a folder.

    Attributes:
        data: a class pool's name.
        learning: how it is trained, and what is removed.
        seed: of tasks, groups, first weights and batches.
        folder: keeps what takes long.
    """

    data: str
    learning: Learning
    seed: int
    folder: Path

    @cached_property
    def _small(self) -> FewShot:
        how = self.learning
        return FewShot(self.data, self.seed, how.tasks, how.batches, how.inner_lr, how.lr, self.folder)

    @cached_property
    def _parts(self):  # noqa: ANN202 - two class pools
        if self.learning.network == "small":
            return self._small.parts
        pool = placed(class_pool(self.data))
        back = kept_back(pool.names)
        return pool.where(lambda name, parent: name not in back), pool.where(lambda name, parent: name in back)

    @cached_property
    def tasks(self) -> Tasks:
        """The M training tasks."""
        return sample_tasks(self._parts[0], self.learning.tasks, seed=self.seed)

    @cached_property
    def unseen(self) -> Tasks:
        """Tasks of classes that were kept back."""
        return sample_tasks(self._parts[1], self.learning.tests, seed=self.seed + 2)

    @cached_property
    def learner(self) -> Maml:
        """One-step MAML: the small network in float64, or the convolutional one in its pictures' dtype."""
        if self.learning.network == "small":
            model = mlp([FEATURES, self.learning.width, WAYS], activation="tanh", seed=self.seed, dtype=torch.float64)
            return Maml(placed(model), inner_lr=self.learning.inner_lr)
        pictures, how = self._parts[0].x, self.learning
        model = cnn4(*pictures.shape[1:3], WAYS, filters=how.width, seed=self.seed, dtype=pictures.dtype)
        return Maml(placed(model), inner_lr=how.inner_lr)

    @cached_property
    def groups(self) -> dict[int, list[Int[Tensor, " _"]]]:
        """Random groups of training tasks by their size."""
        generator = torch.Generator().manual_seed(self.seed)
        return {
            size: [torch.randperm(self.learning.tasks, generator=generator)[:size] for _ in range(self.learning.groups)]
            for size in self.learning.sizes
        }

    @property
    def all_groups(self) -> list[Int[Tensor, " _"]]:
        """The groups of all sizes, in order."""
        return [group for groups in self.groups.values() for group in groups]

    @cached_property
    def trained(self) -> MetaRetrained:
        """The learner trained with all tasks and without each group."""
        return self._leave_out("batches", self.seed, self.all_groups)

    @cached_property
    def other_batches(self) -> MetaRetrained:
        """The same with another order of the meta-batches, for the groups of the middle size."""
        return self._leave_out("other-batches", self.seed + OTHER, self.groups[self.learning.middle_size])

    def _leave_out(self, name: str, seed: int, groups: list[Int[Tensor, " _"]]) -> MetaRetrained:
        how = self.learning
        options = {"batches": how.batches, "batch_size": how.batch_size, "lr": how.lr, "weight_decay": how.l2}
        store = self.folder / f"{name}-{how.network}-{self.seed}"
        return leave_tasks_out(self.learner, self.tasks, groups, seed=seed, store=store, **options)

    @cached_property
    def near_rest(self) -> MetaRetrained:
        """The trained learner brought near rest, and from there near rest without each group."""
        settings = {"data": self.data, "seed": self.seed, **asdict(self.learning)}
        store = Store(self.folder / f"rest-{self.learning.network}-{self.seed}", {"what": "near rest", **settings})
        rest = self._cached(store, "whole", lambda: self._minimised(self.trained.whole, []))
        on = self._cached(store, "continued", lambda: self._minimised(rest, []))  # as many steps as without a group
        each = [
            self._cached(store, f"without-{g}", lambda group=group: self._minimised(rest, group))
            for g, group in enumerate(self.all_groups)
        ]
        return MetaRetrained(self.learner, torch.stack(each), on)

    @staticmethod
    def _cached(store: Store, name: str, make: Callable[[], Tensor]) -> Float[Tensor, " q"]:
        return placed(store.cached(name, lambda: {"w": make()})["w"])

    def _minimised(self, start: Float[Tensor, " q"], without: Sequence[int] | Tensor) -> Float[Tensor, " q"]:
        weights = start.new_ones(self.learning.tasks)
        weights[without] = 0
        options = {"l2": self.learning.l2, "max_steps": self.learning.rest_steps, "tolerance": TOLERANCE}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="minimise ended with status")  # the table tells the gradient
            return minimise(self.learner, self.tasks, start=start, weights=weights, method="lbfgs", **options).w
