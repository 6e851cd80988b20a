"""The table of all exercises for teachers, made from the registry."""

from __future__ import annotations

from explainlib.course.exercises import EXERCISES, Exercise

HEAD = """# Exercises

Made from the registry by `python -m explainlib course --exercises docs/exercises.md`; a test compares the two. Each
exercise stands at the end of the notebook whose number its id begins with, from the bottom of the ladder (warm-up) to
its top (open). `xl.check(id, answer)` computes the right answer and the typical wrong ones when it is asked, and says
*right* or a hint that fits the mistake. `xl.report()` lists what was checked. How to hand notebooks out stands in
[the guide to contributing](contributing.md#editions).

"""
COLUMNS = ("id", "exercise", "goal", "kind", "minutes", "check", "typical mistakes", "hints")


def table() -> str:
    """Return the page as Markdown."""
    count, minutes = len(EXERCISES), sum(each.minutes for each in EXERCISES.values())
    lines = [f"{count} exercises, {minutes} minutes in all.", "", _row(COLUMNS), "|---" * len(COLUMNS) + "|"]
    return HEAD + "\n".join([*lines, *(_row(_cells(each)) for each in EXERCISES.values())]) + "\n"


def _cells(exercise: Exercise) -> tuple[str, ...]:
    """Return what the table says of one exercise."""
    mistakes = "; ".join(mistake.name for mistake in exercise.mistakes)
    hints = " / ".join(exercise.hints)
    about = (exercise.id, exercise.title, exercise.goal, exercise.kind, str(exercise.minutes))
    return (*about, exercise.form.words, mistakes, hints)


def _row(cells: tuple[str, ...]) -> str:
    """Return one line of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
