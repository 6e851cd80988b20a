"""Few-shot sampling: tasks drawn from a pool of classes, the same from the same seed on every machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from explainlib.checks import require_choice, require_count
from explainlib.datasets.pools import ClassPool
from explainlib.datasets.tasks.tasks import Tasks


def sample_tasks(
    pool: ClassPool, n_tasks: int, *, ways: int = 5, shots: int = 5, queries: int = 5, seed: int = 0
) -> Tasks:
    """Return ``n_tasks`` tasks, each of ``ways`` random classes with disjoint random drawings.

    Args:
        pool: where they are drawn from.
        n_tasks: how many, at least 1; each is a group of its own.
        ways: classes of a task.
        shots: support drawings of each class.
        queries: query drawings of each class.
        seed: the same seed gives the same tasks on every machine.

    Returns:
        Tasks with support [M, ways*shots, ...] and query [M, ways*queries, ...], ordered by class.

    Raises:
        ValueError: fewer classes than ways, a class with fewer than shots + queries drawings, a count below 1.
    """
    for name, value in (("n_tasks", n_tasks), ("ways", ways), ("shots", shots), ("queries", queries)):
        require_count(name, value)
    _require_enough(pool, ways, shots + queries)
    generator = np.random.default_rng(require_count("seed", seed, least=0))
    members = [(pool.y == c).nonzero().flatten().cpu().numpy() for c in range(len(pool))]
    chosen = np.stack([generator.choice(len(pool), ways, replace=False) for _ in range(n_tasks)])
    drawn = np.stack(
        [[generator.choice(members[c], shots + queries, replace=False) for c in task] for task in chosen]
    )  # [M, ways, shots + queries]
    classes = [tuple(pool.names[c] for c in task) for task in chosen]
    return _gather(pool, torch.from_numpy(drawn[..., :shots]), torch.from_numpy(drawn[..., shots:]), classes)


def parent_tasks(
    pool: ClassPool,
    parents: Sequence[str],
    n_tasks: int,
    *,
    half: int | None = None,
    shots: int = 2,
    queries: int = 5,
    seed: int = 0,
) -> Tasks:
    """Return tasks that ask for the parent: one random class of each, and label c is parent c in every task.

    Args:
        pool: with classes of these parents, such as letters of scripts.
        parents: which, in the order of their labels.
        n_tasks: how many, at least 1.
        half: 0 or 1 draws from every second drawing, so that the tasks of two halves share none; None from all.
        shots: support drawings of each class.
        queries: query drawings of each class.
        seed: the same seed gives the same tasks on every machine.

    Returns:
        Tasks without places in the pool, support [M, parents * shots, ...], query [M, parents * queries, ...].

    Raises:
        ValueError: another half, a parent that the pool does not have, too few drawings.
    """
    if half is not None:
        rows = torch.arange(len(pool.x)) % 2 == int(require_choice("half", half, (0, 1)))
        pool = replace(pool, x=pool.x[rows], y=pool.y[rows], raw=None if pool.raw is None else pool.raw[rows])
    options = {"ways": 1, "shots": shots, "queries": queries}
    return Tasks.side_by_side(
        [sample_tasks(pool.of_parents([p]), n_tasks, seed=seed + c, **options) for c, p in enumerate(parents)]
    )


def fresh_queries(pool: ClassPool, tasks: Tasks, *, seed: int = 0) -> Tasks:
    """Return the same tasks with the same support and new query drawings, none of which the task has used.

    Args:
        pool: the tasks were drawn from it by ``sample_tasks``.
        tasks: with their places in the pool.
        seed: of the new drawings.

    Raises:
        ValueError: tasks without places in the pool, or classes with too few unused drawings.
    """
    if tasks.support_index is None or tasks.query_index is None or tasks.classes is None:
        raise ValueError("these tasks do not know their drawings; fresh_queries needs tasks made by sample_tasks.")
    generator = np.random.default_rng(require_count("seed", seed, least=0))
    number = {name: c for c, name in enumerate(pool.names)}
    members = [(pool.y == c).nonzero().flatten().cpu().numpy() for c in range(len(pool))]
    queries = tasks.query_y.shape[1] // tasks.ways
    rows = []
    for k, names in enumerate(tasks.classes):
        used = np.concatenate([tasks.support_index[k].cpu().numpy(), tasks.query_index[k].cpu().numpy()])
        row = []
        for name in names:
            unused = np.setdiff1d(members[number[name]], used)
            if len(unused) < queries:
                raise ValueError(
                    f"class {name!r} has {len(unused)} unused drawings, and the tasks ask about {queries} of each "
                    "class; draw the tasks with fewer queries, or from a larger pool."
                )
            row.append(generator.choice(unused, queries, replace=False))
        rows.append(np.stack(row))
    support = tasks.support_index.cpu().unflatten(1, (tasks.ways, -1))
    return replace(_gather(pool, support, torch.from_numpy(np.stack(rows)), tasks.classes), group=tasks.group)


def _gather(
    pool: ClassPool, support: Int[Tensor, "M w s"], query: Int[Tensor, "M w r"], classes: Sequence[tuple[str, ...]]
) -> Tasks:
    """Return the tasks whose drawings stand at these places of the pool."""
    device = pool.x.device
    ways = torch.arange(support.shape[1], device=device)
    support, query = support.to(device), query.to(device)
    return Tasks(
        pool.x[support.flatten(1)],
        ways.repeat_interleave(support.shape[2]).expand(len(support), -1),
        pool.x[query.flatten(1)],
        ways.repeat_interleave(query.shape[2]).expand(len(query), -1),
        classes=classes,
        support_index=support.flatten(1),
        query_index=query.flatten(1),
    )


def _require_enough(pool: ClassPool, ways: int, drawings: int) -> None:
    """Raise if the pool cannot fill a task."""
    if len(pool) < ways:
        raise ValueError(f"the pool has {len(pool)} classes, a task needs {ways}; use fewer ways or a larger pool.")
    counts = pool.y.bincount(minlength=len(pool))
    least = int(counts.argmin())
    if int(counts[least]) < drawings:
        raise ValueError(
            f"class {pool.names[least]!r} has {int(counts[least])} drawings, a task needs {drawings} "
            "(shots + queries); use fewer of either."
        )
