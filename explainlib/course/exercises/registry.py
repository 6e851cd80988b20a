"""All exercises of the course, by id."""

from __future__ import annotations

from explainlib.course.exercises import comparison, fragility, groups, representers, single, start
from explainlib.course.exercises.exercise import Exercise
from explainlib.course.exercises.meta_learning import bilevel, distributions, primer, tlxml

_MODULES = (start, single, groups, fragility, representers, primer, tlxml, distributions, bilevel, comparison)
EXERCISES: dict[str, Exercise] = {each.id: each for module in _MODULES for each in module.EXERCISES}


def of_notebook(number: str) -> list[Exercise]:
    """Return the exercises of one notebook, such as "01", from the bottom of the ladder to its top."""
    return [each for each in EXERCISES.values() if each.id.split(".")[0] == number]
