"""Editions of the notebooks: the student's, without solutions and outcomes, and the solutions, to run and read.

The instructor's edition is the committed one. Both others are made from it, so that there is one source; they stand in
folders of their own, with the pictures and pages that they link to.
"""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from explainlib.course.anatomy import PROMPT, hidden_outputs, is_lecture, tags_of
from explainlib.course.exercises import EXERCISES
from explainlib.course.grading import points_cell
from explainlib.studies.documents import without_marks

BANNER = (
    "*Student's edition: what answers a prompt to predict is empty until you run it, and each exercise has a cell to "
    "work in. Run the cells from the top.*"
)
ANSWER_LINE = "**My prediction:** *double-click here and write it down before you run the next cell.*"
WORK = '# Exercise {0}: put what you found in the place of the dots.\nanswer = ...\n\nxl.check("{0}", answer)'
INVITATION = "# Your answer here."
FILE = re.compile(r"(\]\()(?!\w+:)([^)#]+\.(?:png|md))(\))")
BLOCK_END = re.compile(r"\n\n(?=#|\*\*Run\b|<details)")
HEADING = re.compile(r"\*\*(\d\d\.\d+) ")
# What the instructor's edition says of its own cells, and what a student's says instead.
TEXTS = {
    "Each has two folded hints and a hidden solution below it: a collapsed cell. Click its three dots to open it.": (
        "Each has two folded hints and a cell to work in."
    ),
    "Each has a hidden solution below it: a collapsed cell. Click its three dots to open it.": (
        "Each has an empty cell below it to work in."
    ),
    "exercises with hidden solutions": "exercises with hints",
    "**Teaching with it?** `make student` writes a student's edition of all notebooks into `build/student`, without "
    "solutions and without the outputs that answer a prompt to predict, and the solutions into `build/solutions`.": (
        '**Handing in?** The last exercise cell of a notebook may be `xl.report("hand_in.json")`: it keeps what you '
        "checked in a file beside the notebook."
    ),
}


def student_edition(notebook: NotebookNode, *, graded: bool = False) -> NotebookNode:
    """Return the student's edition of a notebook.

    Outputs that answer a prompt to predict are gone, an answer line follows each prompt, every exercise has an empty
    work cell in place of its solution, and texts about solutions say so. Panels stay.

    Args:
        notebook: the instructor's, with its outputs.
        graded: whether a locked cell, marked for nbgrader, gives the points of each exercise.
    """
    source, hidden = _readable(notebook), set(hidden_outputs(notebook))
    cells, exercise, worked = [], None, set()
    for position, cell in enumerate(source.cells):
        exercise = _exercise_of(cell) or exercise
        if position in hidden or (cell.cell_type == "code" and not is_lecture(cell)):
            cell.outputs, cell.execution_count = [], None
            cell.metadata.pop("jupyter", None)
        if "solution" in tags_of(cell):
            cells += [] if exercise in worked or cell.cell_type != "code" else _work_cells(exercise, graded)
            worked |= {exercise} - {None}  # one work cell an exercise
        elif cell.cell_type == "markdown" and is_lecture(cell):
            cells += _with_answer_lines(_adapted(cell))
        else:
            cells.append(cell)
    cells[0].source += f"\n\n{BANNER}"
    return _renumbered(source, cells)


def solutions_edition(notebook: NotebookNode) -> NotebookNode:
    """Return the notebook with its solutions and outputs open to read."""
    opened = _readable(notebook)
    for cell in opened.cells:
        cell.metadata.pop("jupyter", None)
    return opened


def _readable(notebook: NotebookNode) -> NotebookNode:
    """Return a copy whose texts do not say which table a number is from."""
    copied = copy.deepcopy(notebook)
    for cell in copied.cells:
        if cell.cell_type == "markdown":
            cell.source = without_marks(cell.source)
    return copied


def _exercise_of(cell: NotebookNode) -> str | None:
    """Return the id of the exercise that a cell asks, None if it asks none of the registry."""
    found = HEADING.match(cell.source) if "exercise" in tags_of(cell) else None
    return found.group(1) if found and found.group(1) in EXERCISES else None


def _work_cells(exercise: str | None, graded: bool) -> list[NotebookNode]:
    """Return what a student finds in place of a solution."""
    if exercise is None:
        return [new_code_cell(INVITATION, metadata={"tags": ["answer"]})]
    work = new_code_cell(WORK.format(exercise), metadata={"tags": ["answer"]})
    return [work, points_cell(exercise)] if graded else [work]


def _adapted(cell: NotebookNode) -> NotebookNode:
    """Return a text cell that says what is true of the student's edition."""
    for ours, theirs in TEXTS.items():
        cell.source = cell.source.replace(ours, theirs)
    return cell


def _with_answer_lines(cell: NotebookNode) -> list[NotebookNode]:
    """Return the cell, cut after each prompt to predict, with an answer line there."""
    parts, rest = [], cell.source
    while (prompt := PROMPT.search(rest)) is not None:
        end = BLOCK_END if prompt.group().startswith("#") else re.compile(r"\n\n")
        found = end.search(rest, prompt.end())
        cut = found.start() if found else len(rest)
        parts += [new_markdown_cell(rest[:cut].strip()), new_markdown_cell(ANSWER_LINE, metadata={"tags": ["answer"]})]
        rest = rest[cut:].strip()
    return [cell] if not parts else [*parts, *([new_markdown_cell(rest)] if rest else [])]


def _renumbered(notebook: NotebookNode, cells: Sequence[NotebookNode]) -> NotebookNode:
    """Return the notebook with these cells, their ids by position."""
    notebook.cells = list(cells)
    for position, cell in enumerate(notebook.cells):
        cell.id = f"cell-{position:02d}"
    return notebook


def with_files(notebook: NotebookNode, source: Path, target: Path) -> NotebookNode:
    """Copy the pictures and pages that a notebook links to below ``target``, and point to the copies.

    Args:
        notebook: changed in place, and returned.
        source: the folder from which its links start.
        target: the folder of the edition.

    Raises:
        FileNotFoundError: a link to a file that is not there.
    """

    def moved(link: re.Match) -> str:
        path = source / link.group(2)
        if not path.is_file():
            raise FileNotFoundError(
                f"{link.group(2)}, which a notebook links to, is no file in {source}; mend the link."
            )
        folder = "pages" if path.suffix == ".md" else "pictures"
        (target / folder).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target / folder / path.name)
        return f"{link.group(1)}{folder}/{path.name}{link.group(3)}"

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = FILE.sub(moved, cell.source)
    return notebook


def refuse_folders(paths: Sequence[Path], student: Path | None, solutions: Path | None) -> None:
    """Raise if an edition would replace the notebooks, or hand the solutions to students.

    Raises:
        ValueError: a folder that holds one of ``paths``, or solutions inside the students' folder.
    """
    homes = {path.parent.resolve() for path in paths}
    for folder in (student, solutions):
        if folder is not None and folder.resolve() in homes:
            raise ValueError(f"{folder} is the notebooks' own folder; name another one, such as build/student.")
    if student and solutions and solutions.resolve().is_relative_to(student.resolve()):
        raise ValueError(
            f"{solutions} lies in the students' folder {student}; name one outside, such as build/solutions."
        )
