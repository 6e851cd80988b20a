"""The few-shot problem of the TLXML study: drawings as spectra, tasks, and meta-trained learners, resumable."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from explainlib.datasets import (
    ClassPool,
    Tasks,
    VisualWords,
    class_pool,
    fresh_queries,
    sample_tasks,
    spectrum,
    standardiser,
    task_features,
    with_images,
)
from explainlib.influence import TaskInfluence
from explainlib.meta import Learner, Maml, ProtoNet, Trained, train
from explainlib.models import fc_bn
from explainlib.risk import NotAtMinimumWarning
from explainlib.studies.place import placed

FEATURES = 36
KEPT_BACK = 5  # every fifth class is for test tasks only
FEW = 25  # of fewer classes, every second


def kept_back(names: Sequence[str]) -> set[str]:
    """Return the classes for test tasks only: every fifth, or every second where there are fewer than 25.

    Args:
        names: of all classes, in order.
    """
    every = KEPT_BACK if len(names) >= FEW else 2
    return set(names[every - 1 :: every])


@dataclass(frozen=True)
class FewShot:
    """One data set, one seed: its tasks and learners, computed when asked for and kept in a folder.

    Args:
        data: a class pool's name.
        seed: of tasks, first weights and meta-batches.
        tasks: M.
        batches: meta-batches of training.
        inner_lr: MAML's.
        lr: Adam's.
        folder: keeps what takes long, so that an interrupted study goes on.
        words: visual words that describe a picture (TLXML, section 5.1); 0 takes its spectrum (B.2.1).
    """

    data: str
    seed: int
    tasks: int
    batches: int
    inner_lr: float
    lr: float
    folder: Path
    words: int = 0

    @cached_property
    def pool(self) -> ClassPool:
        """Pictures in [0, 1]; of drawings, ink = 1."""
        return placed(class_pool(self.data).double())

    def features(self, images: Tensor) -> Tensor:
        """Return visual words, or the standardised 6 x 6 centre of the spectrum's magnitude."""
        if not self.words:
            return spectrum(images, standardise=self._scale)
        pictures, place = images.flatten(1).unique(dim=0, return_inverse=True)  # a task's pictures recur in others
        return self._codebook(pictures.unflatten(1, images.shape[1:]))[place]

    @cached_property
    def _codebook(self) -> VisualWords:
        back = kept_back(self.pool.names)
        return VisualWords.fit(self.pool.where(lambda name, parent: name not in back).x, self.words)

    @cached_property
    def _scale(self):  # noqa: ANN202 - a fitted standardiser
        return standardiser(spectrum(self.pool.x))

    @cached_property
    def parts(self) -> tuple[ClassPool, ClassPool]:
        """(classes for training, classes kept back), as features."""
        whole = self.pool.map(self.features)
        back = kept_back(self.pool.names)
        return whole.where(lambda name, parent: name not in back), whole.where(lambda name, parent: name in back)

    @cached_property
    def train_tasks(self) -> Tasks:
        """The M training tasks."""
        return sample_tasks(self.parts[0], self.tasks, seed=self.seed)

    @cached_property
    def with_fresh_queries(self) -> Tasks:
        """The training tasks with the same support and new query drawings."""
        return fresh_queries(self.parts[0], self.train_tasks, seed=self.seed + 1)

    @cached_property
    def unseen(self) -> Tasks:
        """M tasks of classes that were kept back."""
        return sample_tasks(self.parts[1], self.tasks, seed=self.seed + 2)

    @cached_property
    def images(self) -> Tasks:
        """The training tasks as pictures, to be corrupted before the features are taken."""
        pictures = self.parts[0]
        return with_images(pictures, self.train_tasks)

    def as_features(self, tasks: Tasks) -> Tasks:
        """Return image tasks as features."""
        return task_features(tasks, self.features)

    @cached_property
    def maml(self) -> Maml:
        """One-step MAML on the paper's 1,413 parameters (1,285 on 32 visual words)."""
        return Maml(placed(fc_bn(self.words or FEATURES, seed=self.seed, dtype=torch.float64)), inner_lr=self.inner_lr)

    @cached_property
    def protonet(self) -> ProtoNet:
        """A Prototypical Network on the same parameters."""
        return ProtoNet(placed(fc_bn(self.words or FEATURES, seed=self.seed, dtype=torch.float64)))

    def trained(self, learner: Learner, tasks: Tasks | None = None) -> Trained:
        """Return the learner meta-trained on the tasks (its training tasks unless told)."""
        tasks = self.train_tasks if tasks is None else tasks
        store = self.folder / f"{type(learner).__name__}-{len(tasks)}-{self.seed}"
        return train(learner, tasks, batches=self.batches, lr=self.lr, seed=self.seed, store=store)

    @cached_property
    def w(self) -> Tensor:
        """The meta-trained parameters of MAML."""
        return self.trained(self.maml).w

    @cached_property
    def exact(self) -> TaskInfluence:
        """The exact influence on MAML; prune it as you like."""
        return influence_without_warning(
            self.maml, self.w, self.train_tasks, store=self.folder / f"exact-{self.tasks}-{self.seed}"
        )

    @cached_property
    def identity(self) -> TaskInfluence:
        """The control: plain gradient products."""
        return influence_without_warning(self.maml, self.w, self.train_tasks, curvature="identity")


def influence_without_warning(learner: Learner, w: Tensor, tasks: Tasks, **options: object) -> TaskInfluence:
    """Return the influence without the warning that w is not at a minimum; the study's tables tell the gradient.

    Args:
        learner: MAML or ProtoNet.
        w: its parameters.
        tasks: the training tasks.
        options: of ``TaskInfluence``.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotAtMinimumWarning)
        return TaskInfluence(learner, w, tasks, **options)
