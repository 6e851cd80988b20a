"""Ground truth for training tasks: meta-training again without some of them, many groups in one batch.

Every run starts at the same parameters and uses the same meta-batches; a removed task has weight 0 in its batch. So
two runs differ by the removed tasks alone, not by their random numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_count, require_groups, require_nonnegative, require_positive
from explainlib.datasets import Tasks
from explainlib.derivatives import vmap
from explainlib.meta.fingerprints import learner_fingerprint
from explainlib.meta.learner import Episode, Learner, require_learned, require_learner
from explainlib.meta.train import SAVE_EVERY, batch_rows
from explainlib.progress import tqdm
from explainlib.storage import Store
from explainlib.training.steps import adam_state, stepper


@dataclass(frozen=True)
class MetaRetrained:
    """The parameters after meta-training without each group, and with all tasks.

    Attributes:
        learner: the trained learner.
        w: [g, q], one row a group.
        whole: [q], trained in the same way on all tasks.
    """

    learner: Learner
    w: Float[Tensor, "g q"]
    whole: Float[Tensor, " q"]

    def loss_change(self, test_tasks: Tasks) -> Float[Tensor, "T g"]:
        """Return the test tasks' loss without each group minus with all; > 0 means the group was helpful."""
        now = self.learner.losses(self.whole, test_tasks)
        return torch.stack([self.learner.losses(w, test_tasks) - now for w in self.w], dim=1)


@compute.entry
def leave_tasks_out(
    learner: Learner,
    tasks: Tasks,
    groups: Sequence[Sequence[int] | Int[Tensor, " _"]],
    *,
    batches: int,
    batch_size: int = 32,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    seed: int = 0,
    start: Float[Tensor, " q"] | None = None,
    store: str | Path | None = None,
) -> MetaRetrained:
    """Return the parameters after meta-training without each group, all runs in one batch.

    Args:
        learner: MAML or ProtoNet.
        tasks: the M training tasks.
        groups: index lists; each leaves at least one task.
        batches: Adam steps; with ``start=None`` as many as the learner was trained for, to train from scratch.
        batch_size: tasks a step, removed ones included.
        lr: Adam's rate.
        weight_decay: added to the gradient.
        seed: of the meta-batches; that of ``train`` gives its batches.
        start: initial w of every run; None is ``learner.w0``, the trained w is fine-tuning.
        store: a folder for the result; an interrupted call resumes from it and ends with the same numbers.

    Returns:
        MetaRetrained; compare its ``loss_change`` with -1/M times the summed ``TaskInfluence.performance``.

    Raises:
        ValueError: a group that is empty, repeats a task or leaves none; a count below 1.
    """
    require_learner(learner).require_tasks(tasks)
    rows = require_groups(groups, len(tasks), of="training tasks")
    for name, count in (("batches", batches), ("batch_size", batch_size)):
        require_count(name, count)
    require_positive("lr", float(lr))
    require_nonnegative("weight_decay", float(weight_decay))
    initial = learner.require_w(learner.w0 if start is None else start)
    folder, done = None, 0
    if store is not None:
        options = {"batches": batches, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay, "seed": seed}
        listed = {"groups": [g.tolist() for g in rows], "what": "leave_tasks_out"}
        folder = Store(store, learner_fingerprint(learner, initial, tasks, {}, {**options, **listed}))
        if "w" in folder:
            found = folder.load("w", initial.device)
            return MetaRetrained(learner, found["w"], found["whole"])
    present = initial.new_ones(len(rows) + 1, len(tasks))
    for g, members in enumerate(rows):
        present[g, members] = 0
    w = initial.repeat(len(present), 1)
    step = stepper("adam", w)
    if folder is not None and "state" in folder:
        state = folder.load("state", w.device)
        w.copy_(state["w"])
        done = adam_state(step, state)["epoch"].item()
    for b in tqdm(range(done, batches), desc="meta-training without groups", initial=done, total=batches):
        chosen = batch_rows(len(tasks), batch_size, seed, b).to(initial.device)
        step(_gradients(learner, w, tasks[chosen], present[:, chosen]) + weight_decay * w, lr)
        if folder is not None and (b + 1) % SAVE_EVERY == 0 and b + 1 < batches:
            folder.save("state", {"w": w, **adam_state(step)})
    if folder is not None:
        folder.save("w", {"w": w[:-1], "whole": w[-1]})
    return MetaRetrained(learner, w[:-1], w[-1])


def _gradients(
    learner: Learner, w: Float[Tensor, "g q"], tasks: Tasks, present: Float[Tensor, "g b"]
) -> Float[Tensor, "g q"]:
    """Return each run's mean gradient over the tasks of the batch that are not removed, zero if there is none."""
    shares = present / present.sum(1, keepdim=True).clamp(min=1)
    if learner.one_by_one(tasks):
        each = [_weighted_gradient(learner, own, tasks, weights) for own, weights in zip(w, shares, strict=True)]
        return require_learned(learner, "gradients of the runs", torch.stack(each))
    ways = tasks.ways
    batch = Episode(*tasks.arrays())

    def run(own: Tensor, weights: Tensor) -> Tensor:
        return weights @ vmap(lambda task: learner.gradient_one(own, task, ways)[0])(batch)

    chunk = max(1, learner.chunk(tasks) // len(tasks))
    return require_learned(learner, "gradients of the runs", vmap(run, chunk_size=chunk)(w, shares))


def _weighted_gradient(learner: Learner, w: Float[Tensor, " q"], tasks: Tasks, weights: Tensor) -> Float[Tensor, " q"]:
    """Return the weighted sum of the gradients of large tasks, those of weight 0 left out."""
    rows = weights.nonzero()[:, 0]
    if not len(rows):
        return torch.zeros_like(w)
    return weights[rows] @ learner.map_tasks(learner.gradient_one, w, tasks[rows])[0]
