"""The exercises of the course as data: goal, form of the answer, typical mistakes; no answer is written down."""

from explainlib.course.exercises.answers import Choice, Count, Function, Number, Numbers, Unreadable
from explainlib.course.exercises.exercise import KINDS, Exercise, Mistake, undisturbed
from explainlib.course.exercises.registry import EXERCISES, of_notebook

__all__ = [
    "EXERCISES",
    "KINDS",
    "Choice",
    "Count",
    "Exercise",
    "Function",
    "Mistake",
    "Number",
    "Numbers",
    "Unreadable",
    "of_notebook",
    "undisturbed",
]
