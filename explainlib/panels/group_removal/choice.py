"""What may leave together: the choice of a group, the order in which its members leave, and its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Int
from torch import Tensor

from explainlib.checks import require_indices
from explainlib.datasets import Examples
from explainlib.influence import influential_group
from explainlib.influence.groups import Removal as Outcome
from explainlib.risk import Risk

KINDS = ("random", "greedy", "relaxed")


@dataclass(frozen=True)
class Choice:
    """What was chosen; ``group`` is one of ``KINDS``, "hand", or the name of a class."""

    test: int
    group: str
    k: int
    seed: int = 0
    picked: tuple[int, ...] = ()

    @property
    def family(self) -> tuple:
        """What the groups of all sizes have in common."""
        test = self.test if self.group in ("greedy", "relaxed") else None
        return self.group, test, self.seed, self.picked if self.group == "hand" else ()


@dataclass(frozen=True)
class Family:
    """What was found for the groups of all sizes that have ``key`` in common.

    Attributes:
        key: ``Choice.family``.
        orders: the examples as they leave; under None, or for groups that are not nested by size.
        grid: the predictions at the sizes of the curve, by name.
        points: the curve, by name and size.
    """

    key: tuple
    orders: dict[int | None, Int[Tensor, " _"]] = field(default_factory=dict)
    grid: dict[str, Outcome] = field(default_factory=dict)
    points: dict[str, dict[int, float]] = field(default_factory=dict)


def with_group(choice: Choice, group: str | Sequence[int] | Tensor, n: int, classes: Sequence[str]) -> Choice:
    """Return the choice with another kind of group, or with the given training examples.

    Args:
        choice: the rest of it is kept; indices bring their own size.
        group: one of ``KINDS``, a class, or distinct training indices.
        n: the number of training examples.
        classes: their names.

    Raises:
        ValueError, TypeError: no such kind, class or index, or every example.
    """
    if isinstance(group, str):
        if group not in (*KINDS, *classes):
            raise ValueError(
                f"group={group!r} is neither {', '.join(map(repr, KINDS))}, a list of indices, nor one of the "
                f"classes {', '.join(map(repr, classes))}."
            )
        return replace(choice, group=group)
    picked = tuple(require_indices(group, n, name="group").tolist())
    if len(picked) >= n:
        raise ValueError(f"group names all {n} training examples; leave at least one.")
    return replace(choice, group="hand", picked=picked, k=len(picked))


def leaving_order(choice: Choice, risk: Risk, test: Examples, classes: Sequence[str], most: int) -> Int[Tensor, " _"]:
    """Return the training examples in the order in which they leave; for "relaxed" those of the chosen size.

    Args:
        choice: the kind of group, its seed and size.
        risk: gives the training examples, and the influence that "greedy" and "relaxed" go by.
        test: the test example of those two.
        classes: their names.
        most: how many of "greedy" are needed.

    Returns:
        At least ``choice.k`` positions. Of a class: its own members first, then those of the next classes.
    """
    if choice.group == "hand":
        return torch.tensor(choice.picked)
    if choice.group in ("greedy", "relaxed"):
        size = choice.k if choice.group == "relaxed" else most
        return influential_group(risk, test, size, method=choice.group, seed=choice.seed)
    shuffled = torch.randperm(risk.n, generator=torch.Generator().manual_seed(choice.seed))
    if choice.group == "random":
        return shuffled
    away = (risk.train.y.cpu()[shuffled] - classes.index(choice.group)) % len(classes)
    return shuffled[away.argsort(stable=True)]


def describe(choice: Choice, risk: Risk, classes: Sequence[str], selected_by: str = "") -> str:
    """Return what leaves, such as "60 of class 3".

    Args:
        choice: what was chosen.
        risk: gives the training examples.
        classes: their names.
        selected_by: words after a group that was selected for the test example.
    """
    k, group = choice.k, choice.group
    if group == "random":
        return f"{k} at random (seed {choice.seed})"
    if group in ("greedy", "relaxed"):
        how = "most influential one by one" if group == "greedy" else "selected together"
        return f"{k} {how}{selected_by}"
    if group == "hand":
        return f"{k} picked by hand"
    spilled = k > int((risk.train.y == classes.index(group)).sum())
    return f"{k} of class {group}" + (" and the next ones" if spilled else "")
