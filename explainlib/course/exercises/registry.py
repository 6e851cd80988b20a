"""All exercises of the course, by id."""

from __future__ import annotations

from explainlib.course.exercises import fragility, groups, primer, representers, single, start, tlxml
from explainlib.course.exercises.exercise import Exercise

_MODULES = (start, single, groups, fragility, representers, primer, tlxml)
EXERCISES: dict[str, Exercise] = {each.id: each for module in _MODULES for each in module.EXERCISES}


def of_notebook(number: str) -> list[Exercise]:
    """Return the exercises of one notebook, such as "01", from the bottom of the ladder to its top."""
    return [each for each in EXERCISES.values() if each.id.split(".")[0] == number]
