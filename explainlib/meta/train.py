"""Meta-training with Adam on random meta-batches of tasks, resumable with identical numbers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_count, require_nonnegative, require_positive
from explainlib.datasets import Tasks
from explainlib.meta.fingerprints import learner_fingerprint
from explainlib.meta.learner import Learner, require_learned, require_learner
from explainlib.meta.trained import Trained
from explainlib.progress import tqdm
from explainlib.storage import Store, probe_entry
from explainlib.training.steps import adam_state, stepper

SAVE_EVERY = 100  # meta-batches between two writes to a store


@compute.entry
def train(
    learner: Learner,
    tasks: Tasks,
    *,
    batches: int,
    batch_size: int = 32,
    lr: float = 1e-3,
    weight_decay: float = 0.0,
    seed: int = 0,
    augment: Callable[[Tasks, int], Tasks] | None = None,
    store: str | Path | None = None,
) -> Trained:
    """Return the learner's parameters after ``batches`` Adam steps from ``learner.w0``.

    Args:
        learner: MAML or ProtoNet; it is not changed.
        tasks: the M training tasks.
        batches: Adam steps, each on ``batch_size`` distinct random tasks (all of them if M is smaller).
        batch_size: tasks a step.
        lr: Adam's learning rate, > 0.
        weight_decay: the l2 of the objective, >= 0: it is added to the gradient, not decoupled.
        seed: of the meta-batches; batch b depends on (seed, b) alone.
        augment: (tasks of a batch, number) -> tasks to use instead, such as rotated ones; the number differs in each
            batch and is the same in each run.
        store: a folder; an interrupted run resumes from it and ends with the same numbers. A run with more batches
            continues one with fewer; fewer than were done are refused.

    Raises:
        ValueError: a count below 1, a rate that is not positive, an inner step that diverges, a store of another run.

    Source: Finn et al. 2017, algorithm 2; TLXML, section 5 (Adam, 32 tasks a batch).
    """
    require_learner(learner)
    for name, count in (("batches", batches), ("batch_size", batch_size)):
        require_count(name, count)
    require_positive("lr", lr)
    require_nonnegative("weight_decay", weight_decay)
    require_count("seed", seed, least=0)
    learner.require_derivatives(learner.require_tasks(tasks), *learner.gradient_routes)
    saved = None if store is None else _open_store(store, learner, tasks, locals())
    w = learner.w0.clone()
    step = stepper("adam", w)
    history: list[float] = []
    if saved is not None and "state" in saved:
        state = saved.load("state", w.device)
        w.copy_(state["w"])
        adam_state(step, state)
        history = state["history"].tolist()
        if len(history) > batches:
            raise ValueError(
                f"store={str(store)!r} has done {len(history)} batches, batches={batches} is fewer and was not "
                f"kept; pass batches={len(history)} or more, or name another folder."
            )
    for b in tqdm(range(len(history), batches), desc="meta-training", initial=len(history), total=batches):
        chosen = tasks[batch_rows(len(tasks), batch_size, seed, b)]
        gradient, loss = _mean_gradient(learner, w, augment(chosen, seed + b) if augment else chosen)
        step(gradient + weight_decay * w, lr)
        history.append(loss)
        if saved is not None and ((b + 1) % SAVE_EVERY == 0 or b + 1 == batches):
            saved.save("state", {"w": w, "history": torch.tensor(history, dtype=torch.float64), **adam_state(step)})
    gradient = learner.gradients(w, tasks).mean(0) + weight_decay * w
    if augment is not None:
        learner.remember_augmentation(w, tasks, augment)
    return Trained(w, tuple(history), float(gradient.norm()))


def batch_rows(m: int, size: int, seed: int, batch: int) -> Int[Tensor, " b"]:
    """Return ``size`` distinct random numbers below m, all if there are no more.

    Args:
        m: tasks.
        size: tasks in a batch.
        seed: of the run.
        batch: its number; the same seed and number give the same tasks.
    """
    if m <= size:
        return torch.arange(m)
    return torch.from_numpy(np.random.default_rng([seed, batch]).choice(m, size, replace=False))


def _mean_gradient(learner: Learner, w: Float[Tensor, " q"], tasks: Tasks) -> tuple[Float[Tensor, " q"], float]:
    gradients, losses = learner.map_tasks(learner.gradient_one, w, tasks)
    return require_learned(learner, "gradients", gradients).mean(0), float(losses.mean())


def _open_store(store: str | Path, learner: Learner, tasks: Tasks, given: dict[str, object]) -> Store:
    options: dict[str, object] = {name: given[name] for name in ("batch_size", "lr", "weight_decay", "seed")}
    augment, seed, sources = given["augment"], given["seed"], {}
    if augment is not None:
        first = batch_rows(len(tasks), given["batch_size"], seed, 0)
        options |= probe_entry("augment", lambda: _task_tensors(augment(tasks[first], seed)))  # copies, in every call
        sources["augment"] = augment
    return Store(store, learner_fingerprint(learner, learner.w0, tasks, sources, {"what": "meta.train", **options}))


def _task_tensors(tasks: Tasks) -> Float[Tensor, " k"]:
    """Return all tensors of tasks that training uses, flattened and concatenated."""
    return torch.cat([part.flatten().double() for part in tasks.arrays()])
