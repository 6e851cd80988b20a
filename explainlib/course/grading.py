"""What nbgrader has to know of a cell: where a student works, and which cell gives points for a right answer.

A work cell is the student's own (``solution``). The locked cell after it (``grade``) asks the report of the kernel
whether the exercise was solved, so that it holds no answer either.
"""

from __future__ import annotations

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from explainlib.course.exercises import EXERCISES

POINTS = {"warm-up": 1, "guided": 2, "open": 3}
SCHEMA = 3  # of nbgrader's cell metadata


def mark_work(cell: NotebookNode, exercise: str, number: int = 1) -> NotebookNode:
    """Return a cell, marked as the one in which a student works on an exercise; ``number`` counts its work cells."""
    cell.metadata["nbgrader"] = _metadata(f"work-{exercise.replace('.', '-')}-{number}", solution=True)
    return cell


def points_cell(exercise: str) -> NotebookNode:
    """Return the locked cell that gives the points of an exercise."""
    source = f'assert "{exercise}" in xl.report().solved, "exercise {exercise} has no right answer yet"'
    cell = new_code_cell(source, metadata={"tags": ["answer"]})
    points = POINTS[EXERCISES[exercise].kind]
    cell.metadata["nbgrader"] = _metadata(
        f"points-{exercise.replace('.', '-')}", grade=True, locked=True, points=points
    )
    return cell


def _metadata(
    grade_id: str, *, solution: bool = False, grade: bool = False, locked: bool = False, points: int | None = None
) -> dict[str, object]:
    """Return nbgrader's own words for a cell."""
    words = {"grade": grade, "grade_id": grade_id, "locked": locked, "schema_version": SCHEMA, "solution": solution}
    return {**words, "task": False} | ({} if points is None else {"points": points})
