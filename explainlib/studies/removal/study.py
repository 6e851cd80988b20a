"""Does task influence foretell meta-training without a group of tasks, and if not, why: step, minimum, or draw?

removal    agreement of every method with the truth, by network, state, size of the groups and seed
questions  what was asked beforehand, with intervals over seeds
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pandas

from explainlib.studies.removal.agreement import rows_of
from explainlib.studies.removal.problem import Problem
from explainlib.studies.removal.questions import questions
from explainlib.studies.removal.settings import Config


def jobs(settings: Config, folder: Path) -> dict[str, Callable[[], pandas.DataFrame]]:
    """Return one job for each learner and seed; retrained parameters are kept in the folder."""
    return {
        f"removal-{seed}-{how.network}": partial(rows_of, Problem(settings.data, how, seed, folder))
        for how in settings.learnings
        for seed in how.seeds
    }


def tables(
    settings: Config, made: Mapping[str, pandas.DataFrame], seconds: Mapping[str, float]
) -> dict[str, pandas.DataFrame]:
    """Return the tables by name from the parts that the jobs made."""
    parts = [part.assign(seed=int(name.split("-")[1])) for name, part in made.items()]
    whole = pandas.concat(parts, ignore_index=True)
    return {"removal": whole, "questions": questions(whole)}
