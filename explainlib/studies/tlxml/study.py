"""TLXML: does the influence of training tasks know its own, how much pruning it takes, and what simple controls know.

Parts, each with a table of its own:

    learners     accuracy, distance from a minimum, negative eigenvalues, cost
    pruning      self-ranks by pruning, beside controls; new queries; unrelated tasks (Tables 1 and 3)
    spectrum     the meta-Hessian's eigenvalues (Figure 7)
    degradation  ranks and scores as the test task darkens (Figure 4, Tables 1 and 3)
    gaussnewton  exact scores against the Gauss-Newton buffer, by number of tasks (Tables 17 to 21)
    order        CNN learners on normal and noise tasks: proper order and self-ranks (Figure 8, Tables 2, 4 to 16)
    scripts      a whole script removed: predicted against meta-training again
    examples     the most and the least helpful tasks of a few new ones
    claims       what the paper says beside what was seen
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pandas

from explainlib.studies.few_shot import FewShot
from explainlib.studies.tlxml.claims import tlxml_claims
from explainlib.studies.tlxml.mixtures import Network, order_of
from explainlib.studies.tlxml.parts import (
    degradation,
    examples,
    gauss_newton,
    learners,
    pruning,
    scripts,
    spectrum_rows,
)
from explainlib.studies.tlxml.settings import Config


def jobs(settings: Config, folder: Path) -> dict[str, Callable[[], pandas.DataFrame]]:
    """Return the parts of the tables by name, table first; learners and influences are kept in the folder."""
    parts = {
        "learners": learners,
        "pruning": pruning,
        "spectrum": spectrum_rows,
        "degradation": degradation,
    }

    def problem(seed: int, tasks: int = settings.tasks) -> FewShot:
        return FewShot(
            settings.data, seed, tasks, settings.batches, settings.inner_lr, settings.lr, folder, settings.words
        )

    problems = [problem(seed) for seed in settings.seeds]
    found = {f"{name}-{p.seed}": partial(part, p, settings) for name, part in parts.items() for p in problems}
    for number in settings.task_numbers:
        found |= {
            f"gaussnewton-{s}-{number}": partial(gauss_newton, problem(s, number), settings) for s in settings.seeds
        }
    for k, mixture in enumerate(settings.mixtures):
        for seed in settings.mixture_seeds:
            network = Network(settings.data, mixture, settings.mixture_training, seed, folder)
            found[f"order-{seed}-{k}"] = partial(order_of, network)
    found["examples"] = partial(examples, problems[0], settings)
    return found | ({"scripts": partial(scripts, problems[0], settings)} if settings.script_batches else {})


def tables(
    settings: Config, made: Mapping[str, pandas.DataFrame], seconds: Mapping[str, float]
) -> dict[str, pandas.DataFrame]:
    """Return the tables by name from the parts that the jobs made."""
    parts: dict[str, list[pandas.DataFrame]] = {}
    for name, part in made.items():
        table, *numbers = name.split("-")
        parts.setdefault(table, []).append(part.assign(seed=int(numbers[0])) if numbers else part)
    whole = {name: pandas.concat(frames, ignore_index=True) for name, frames in parts.items()}
    return {**whole, "claims": tlxml_claims(whole)}
