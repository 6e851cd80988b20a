"""Bilevel influence: what editing by formula is worth beside solving again, and which score finds harmful tasks.

Parts, each with a table of its own:

    editing      tasks removed at random: each formula's meta-parameters against solving again (Ren et al., Table 1)
    fractions    a fraction of one task's weight taken away: how far the derivative holds
    removal      40% of the tasks removed by each score, then solved again: accuracy and seconds (Table 1)
    examples     training and validation examples removed, one by one and 40% of those of some tasks (Table 1)
    depth        the error against solving again by Neumann depth and by the accuracy of the inner solutions
    harmful      flipped labels: tasks found and accuracy by how many are inspected (Figure 1)
    descending   the most helpful tasks removed first (Figure 2)
    extremes     the most and the least helpful tasks, by their classes
    claims       what the paper says beside what was seen

The reviewers of the paper asked for the error against retraining, the runtime by depth and simple baselines; these are
the tables ``editing``, ``depth`` and ``removal``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import pandas
import torch

from explainlib.studies.bilevel.claims import bilevel_claims
from explainlib.studies.bilevel.parts import (
    Case,
    depth,
    descending,
    editing,
    examples,
    extremes,
    fractions,
    harmful,
    removal,
)
from explainlib.studies.bilevel.problem import SolvedLearner
from explainlib.studies.bilevel.writers import writers
from explainlib.studies.few_shot import FewShot

DATA = ("digits", "mnist", "glyphs", "omniglot")
SHARED_LABELS = ("digits", "mnist")


@dataclass(frozen=True)
class Config:
    """What one run does; the scales differ in nothing else.

    Attributes:
        data: "digits" (embedded) or "mnist" (ten digits by many hands, labels shared), "glyphs" (embedded) or
            "omniglot".
        tasks: M, training tasks; and as many new ones, half to score by and half to judge by.
        inners: the inner problems, each with its number of seeds, which draw tasks and first weights anew.
        strength: of the inner problem.
        l2: of the outer problem.
        counts: how many tasks are removed at once in ``editing``; 1 is done for twelve different ones.
        singles: how many single tasks, and single examples of each part.
    """

    data: str = "glyphs"
    tasks: int = 30
    inners: tuple[tuple[str, int], ...] = (("proximal", 1),)
    strength: float = 10.0
    l2: float = 5.0
    counts: tuple[int, ...] = (1, 5, 12)
    singles: int = 4


def config(scale: str, data: str | None) -> Config:
    """Return the settings of a scale: "quick" is a minute, "cpu" under an hour on two cores, "paper" 1,000 tasks.

    At "cpu" the head problem is solved for the glyphs alone: it takes four times as long as all the rest.

    The paper draws 10,000 tasks of Omniglot and trains a MAML network; here every learner is solved to a stationary
    point, which is what the formulas speak of.

    Raises:
        ValueError: data that are not a class pool of characters.
    """
    data = data or "glyphs"
    if data not in DATA:
        raise ValueError(f"the bilevel study runs on {', '.join(DATA)}; got data={data!r}.")
    if (
        data in SHARED_LABELS
    ):  # strength, ridge and the way labels are spoiled: from seeds 100 and 101, before any score
        small = scale == "quick"
        counts, singles, seeds = ((1, 5, 12), 4, 1) if small else ((1, 4, 10, 16), 6, 6 if data == "digits" else 5)
        tasks = {"quick": 30, "cpu": 40, "paper": 1000}[scale]
        return Config(data, tasks, (("proximal", seeds),), 1.0, 1.0, counts, singles)
    if scale == "quick":
        return Config(data)
    if scale == "cpu":  # a head problem is solved in 20 seconds, a proximal one in one
        inners = (("proximal", 5), ("head", 2)) if data == "glyphs" else (("proximal", 5),)
        return Config(data, 60, inners, counts=(1, 5, 12, 24), singles=6)
    return Config(data, 1000, (("proximal", 5), ("head", 5)), counts=(1, 10, 100, 400), singles=12)


PARTS = {
    "editing": editing,
    "fractions": fractions,
    "removal": removal,
    "examples": examples,
    "depth": depth,
    "harmful": harmful,
    "descending": descending,
    "extremes": extremes,
}
ONCE = ("fractions", "depth", "extremes")  # on the first seed only


def case(settings: Config, inner: str, seed: int) -> Case:
    """Return the tasks and the solved learner of one seed and one inner problem."""
    half = settings.tasks // 2
    if settings.data in SHARED_LABELS:
        train, new = writers(settings.tasks, seed, settings.data)
        solved = SolvedLearner(inner, settings.strength, settings.l2, train, seed)
        return Case(solved, new[:half], new[half:], settings.counts, settings.singles, seed, "shifted")
    shot = FewShot(settings.data, seed, settings.tasks, 1, 0.1, 1e-3, Path("."))
    solved = SolvedLearner(inner, settings.strength, settings.l2, shot.train_tasks, seed)
    new = shot.unseen
    score, judge = new[torch.arange(half)], new[torch.arange(half, settings.tasks)]
    return Case(solved, score, judge, settings.counts, settings.singles, seed)


def jobs(settings: Config, folder: Path) -> dict[str, Callable[[], pandas.DataFrame]]:
    """Return the parts of the tables by name, table first."""
    one = lru_cache(maxsize=1)(partial(case, settings))  # the parts of one seed share its solved learner
    return {
        f"{name}-{inner}-{seed}": (lambda part=part, inner=inner, seed=seed: part(one(inner, seed)))
        for inner, seeds in settings.inners
        for seed in range(seeds)
        for name, part in PARTS.items()
        if seed == 0 or name not in ONCE
    }


def tables(
    settings: Config, made: Mapping[str, pandas.DataFrame], seconds: Mapping[str, float]
) -> dict[str, pandas.DataFrame]:
    """Return the tables by name from the parts that the jobs made."""
    parts: dict[str, list[pandas.DataFrame]] = {name: [] for name in PARTS}
    for job, part in made.items():
        name, inner, seed = job.split("-")
        parts[name].append(part.assign(inner=inner, seed=int(seed)))
    whole = {name: pandas.concat(frames, ignore_index=True) for name, frames in parts.items()}
    return {**whole, "claims": bilevel_claims(whole)}
