"""Which training tasks may leave, in which order, and what every pruning of the curvature says about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_indices
from explainlib.datasets import ClassPool, Tasks
from explainlib.influence import TaskInfluence
from explainlib.metrics import fidelity, self_rank
from explainlib.solvers.dense import Keep

SIDES = ("helpful", "harmful")
UNPRUNED = 1e-9  # the pseudo-inverse: everything but rounding is inverted
FEWEST = 8  # eigenvalues, at the left end of the slider
LEAST = 3  # test tasks for a correlation


@dataclass(frozen=True)
class TaskChoice:
    """What was chosen; ``remove`` is one of ``SIDES``, "hand", or a script; ``keep`` a word on the pruning slider."""

    test: int
    remove: str
    k: int
    keep: str
    picked: tuple[int, ...] = ()


def prunings(influence: TaskInfluence) -> dict[str, Keep]:
    """Return the prunings to choose from, by the word that stands for them: powers of two, then "unpruned".

    No more than there are positive eigenvalues: a larger count keeps the same.
    """
    most = min(influence.w.numel() - 1, influence.spectrum.rank("positive"))
    counts = {2**i for i in range(64) if FEWEST <= 2**i <= most}
    keep = influence.keep
    if isinstance(keep, int):
        counts.add(keep)
    words: dict[str, Keep] = {str(count): count for count in sorted(counts)}
    words["unpruned"] = UNPRUNED
    if keep not in words.values():
        words["all" if keep is None else str(keep)] = keep
    return words


def every_score(influence: TaskInfluence, test_tasks: Tasks, keeps: Mapping[str, Keep]) -> dict[str, Tensor]:
    """Return I_perf [T, M] under every pruning; gradients and eigenvectors are computed once.

    Args:
        influence: of the M training tasks.
        test_tasks: T of them.
        keeps: prunings by name.
    """
    gradients = influence.learner.gradients(influence.w, test_tasks)
    return {word: gradients @ influence.pruned(keep).meta.T for word, keep in keeps.items()}  # eq. (7)


def origins(tasks: Tasks, test_tasks: Tasks) -> list[int | None]:
    """Return for each test task the training task with the very same support, if there is one."""
    if tasks.support_x.shape[1:] != test_tasks.support_x.shape[1:]:
        return [None] * len(test_tasks)
    known = tasks.support_x.flatten(1)
    found: list[int | None] = []
    for x, y in zip(test_tasks.support_x.flatten(1), test_tasks.support_y, strict=True):
        same = ((known == x).all(1) & (tasks.support_y == y).all(1)).nonzero()
        found.append(int(same[0]) if len(same) else None)
    return found


def scripts_of(tasks: Tasks, pool: ClassPool | None) -> list[tuple[str, ...]]:
    """Return for each task the parents of its classes (their script, their superclass), one a class.

    Args:
        tasks: without class names there are no parents either.
        pool: knows the parents; None takes what stands before the stroke in "Greek/small letter omega".
    """
    if tasks.classes is None:
        return [()] * len(tasks)
    parents = {} if pool is None else dict(zip(pool.names, pool.parents, strict=True))
    return [
        tuple(parents.get(name, name.split("/")[0]) for name in names if name in parents or "/" in name)
        for names in tasks.classes
    ]


def by_script(scripts: Sequence[tuple[str, ...]]) -> dict[str, list[int]]:
    """Return for each script the tasks that show it, those with most of its classes first."""
    names = sorted({script for task in scripts for script in task})
    holding = {name: [i for i, task in enumerate(scripts) if name in task] for name in names}
    return {name: sorted(held, key=lambda i: -scripts[i].count(name)) for name, held in holding.items()}


def with_removal(
    choice: TaskChoice, remove: str | Sequence[int] | Tensor, m: int, scripts: Mapping[str, Sequence[int]]
) -> TaskChoice:
    """Return the choice with another kind of removal; a script and given tasks bring their own number.

    Args:
        choice: the rest of it is kept.
        remove: "helpful", "harmful", a script, or distinct training tasks.
        m: the number of training tasks.
        scripts: the tasks of each.

    Raises:
        ValueError, TypeError: no such script or task, or every task.
    """
    if isinstance(remove, str):
        if remove in SIDES:
            return replace(choice, remove=remove)
        if remove not in scripts:
            known = ", ".join(map(repr, scripts)) or "none, because the tasks' classes have no names"
            raise ValueError(
                f"remove={remove!r} is neither 'helpful', 'harmful', a list of training tasks, nor one of the "
                f"scripts ({known})."
            )
        return replace(choice, remove=remove, k=min(len(scripts[remove]), m - 1))
    picked = tuple(require_indices(remove, m, name="remove", of="training tasks").tolist())
    if len(picked) >= m:
        raise ValueError(f"remove names all {m} training tasks; leave at least one.")
    return replace(choice, remove="hand", picked=picked, k=len(picked))


def leaving(choice: TaskChoice, scores: Float[Tensor, " M"], scripts: Mapping[str, Sequence[int]]) -> list[int]:
    """Return the training tasks that leave, in their order.

    Args:
        choice: what was chosen.
        scores: I_perf of the chosen test task.
        scripts: the tasks of each.
    """
    if choice.remove in SIDES:
        order = scores.argsort(stable=True, descending=choice.remove == "harmful").tolist()
    else:
        order = choice.picked if choice.remove == "hand" else scripts[choice.remove]
    return list(order[: choice.k])


def describe(choice: TaskChoice, m: int, scripts: Mapping[str, Sequence[int]]) -> str:
    """Return what leaves, such as "the 8 most helpful of 64 training tasks"."""
    k = choice.k
    if choice.remove in SIDES:
        return f"the {f'{k} ' if k > 1 else ''}most {choice.remove} of {m} training tasks"
    if choice.remove == "hand":
        return f"{k} of {m} training tasks, picked by hand"
    return f"{k} of the {len(scripts[choice.remove])} training tasks that show {choice.remove}"


def ranks(scores: Mapping[str, Float[Tensor, "T M"]], test: int, item: int) -> list[int | float]:
    """Return the rank of one training task for one test task under every pruning; 0 is the most helpful.

    A rank is whole unless an odd number of others ties with the task.
    """
    table = torch.stack([values[test] for values in scores.values()])
    found = self_rank(table, torch.full((len(table),), item, device=table.device)).tolist()
    return [int(rank) if rank == int(rank) else rank for rank in found]


def describe_agreement(predicted: Float[Tensor, " T"], true: Float[Tensor, " T"]) -> str:
    """Return in words how prediction and truth agree over the test tasks."""
    if len(true) < LEAST:
        return f"{len(true)} test tasks are too few for a correlation"
    found = fidelity(predicted, true, resamples=1)
    return f"{len(true)} test tasks: correlation {float(found.pearson):z.2f}, slope {float(found.slope):z.2f}"
