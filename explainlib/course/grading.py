"""What nbgrader has to know: which locked cell gives points for a right answer.

The locked cell asks the report of its own kernel whether the exercise was solved, so that it holds no answer either. A
student's work cells need no mark: nbgrader leaves them alone when it makes an assignment, and runs them when it grades.
"""

from __future__ import annotations

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from explainlib.course.exercises import EXERCISES

POINTS = {"warm-up": 1, "guided": 2, "open": 3}
SCHEMA = 3  # of nbgrader's cell metadata


def points_cell(exercise: str) -> NotebookNode:
    """Return the locked cell that gives the points of an exercise, such as "01.2"."""
    source = f'assert "{exercise}" in xl.report().solved, "exercise {exercise} has no right answer yet"'
    cell = new_code_cell(source, metadata={"tags": ["answer"]})
    cell.metadata["nbgrader"] = {
        "grade": True,
        "grade_id": f"points-{exercise.replace('.', '-')}",
        "locked": True,
        "points": POINTS[EXERCISES[exercise].kind],
        "schema_version": SCHEMA,
        "solution": False,
        "task": False,
    }
    return cell
