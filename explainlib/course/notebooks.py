"""Notebooks as a product: run them whole, save them scrubbed, check their anatomy, and write their other editions.

A notebook is committed with the outputs of a real run, so that a later run can be compared with them. Everything in the
file that changes from run to run without meaning anything (times, random ids, widget state) is scrubbed. Solutions of
exercises are ordinary code cells tagged ``solution``: they are run and compared like all others, and the edition for
students is made from the same file.
"""

from __future__ import annotations

import copy
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from explainlib.course.anatomy import complaints, hidden_outputs
from explainlib.course.editions import refuse_folders, solutions_edition, student_edition, with_files
from explainlib.storage import write_text

KEPT_TYPES = ("text/plain", "text/html", "text/markdown", "text/latex", "image/png")
CELL_TIMEOUT = 300  # seconds; a notebook at quick scale takes under 90 in all


def notebook_paths(paths: Sequence[str | Path] = ()) -> list[Path]:
    """Return the notebooks to work on, sorted.

    Args:
        paths: notebooks or folders of notebooks; none means the folder ``notebooks`` under the current one.

    Raises:
        FileNotFoundError: a path that does not exist, or no notebook at all.
    """
    found: set[Path] = set()
    for path in map(Path, paths or ["notebooks"]):
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist under {Path.cwd()}; run this in the repository's folder.")
        found.update(path.glob("*.ipynb") if path.is_dir() else [path])
    if not found:
        raise FileNotFoundError(f"no notebook (*.ipynb) in {', '.join(map(str, paths or ['notebooks']))}; name one.")
    return sorted(found)


def scrub(notebook: NotebookNode) -> NotebookNode:
    """Return a copy without anything that changes from run to run: ids by position, no times, no widget state.

    Outputs keep text, HTML and PNG; a widget keeps its text. The kernel is always called ``python3``. Outputs that
    answer a prompt to predict are folded, solutions with their source.
    """
    clean = copy.deepcopy(notebook)
    clean.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    clean.nbformat, clean.nbformat_minor = 4, 5
    for position, cell in enumerate(clean.cells):
        cell.id = f"cell-{position:02d}"
        for key in ("execution", "trusted", "ExecuteTime", "collapsed"):
            cell.metadata.pop(key, None)
        if "solution" in cell.metadata.get("tags", []):
            cell.metadata["jupyter"] = {"outputs_hidden": True, "source_hidden": True}
        if cell.cell_type == "code":
            cell.outputs = _merge_streams([_scrub_output(output) for output in cell.outputs])
    for position in hidden_outputs(clean):  # folded until somebody opens or runs the cell
        clean.cells[position].metadata["jupyter"] = {"outputs_hidden": True}
    return clean


def _scrub_output(output: NotebookNode) -> NotebookNode:
    """Return one output with the kept types only."""
    if "data" in output:
        output.data = NotebookNode({kind: output.data[kind] for kind in KEPT_TYPES if kind in output.data})
        output.metadata = NotebookNode()
    return output


def _merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Return the outputs with neighbouring pieces of one stream joined: where they break is chance."""
    merged: list[NotebookNode] = []
    for output in outputs:
        if merged and output.output_type == "stream" and merged[-1].get("name") == output.name:
            merged[-1].text += output.text
        else:
            merged.append(output)
    return merged


def execute(notebook: NotebookNode, folder: Path, *, timeout: float = CELL_TIMEOUT) -> NotebookNode:
    """Return a copy of the notebook, run from top to bottom in a fresh kernel.

    Args:
        notebook: any notebook; its outputs are ignored.
        folder: the kernel's working folder.
        timeout: seconds a single cell may take.

    Raises:
        ValueError: a cell raised an error or took too long; the message holds the cell's traceback.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    fresh = copy.deepcopy(notebook)
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(fresh, timeout=timeout, kernel_name="python3", resources=place, store_widget_state=False)
    try:
        client.execute(env=_kernel_environment())
    except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
        raise ValueError(f"the notebook did not run to its end; repair the cell and run it again.\n{error}") from error
    return fresh


def _kernel_environment() -> dict[str, str]:
    """Return the environment in which the kernel named python3 is the one of this Python."""
    own = str(Path(sys.prefix) / "share" / "jupyter")
    others = os.environ.get("JUPYTER_PATH")
    return {**os.environ, "JUPYTER_PATH": own if others is None else own + os.pathsep + others}


def write(notebook: NotebookNode, path: Path) -> Path:
    """Write the notebook whole or not at all, and return its path."""
    nbformat.validate(notebook)
    return write_text(nbformat.writes(notebook).rstrip("\n") + "\n", path)


def execute_all(paths: Sequence[str | Path] = ()) -> list[Path]:
    """Run notebooks, save each scrubbed with its outputs, print its wall time, and return the paths written.

    Args:
        paths: as in ``notebook_paths``. Each notebook runs in its own folder.

    Raises:
        ValueError: a notebook that fails; it and the ones after it are left as they were.
    """
    written = []
    for path in notebook_paths(paths):
        started = time.perf_counter()
        try:
            result = execute(nbformat.read(path, as_version=4), path.parent.resolve())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        written.append(write(scrub(result), path))
        print(f"{path}: {time.perf_counter() - started:.1f} s", flush=True)
    return written


def check_all(paths: Sequence[str | Path] = ()) -> list[str]:
    """Return what is wrong with the anatomy of notebooks, one sentence each; empty if nothing is."""
    found = notebook_paths(paths)
    notebooks = {path: nbformat.read(path, as_version=4) for path in found}
    sizes = {path: path.stat().st_size for path in found}
    problems = [f"{path}: {text}" for path in found for text in complaints(notebooks[path], path.name, sizes[path])]
    setups = {path: setup_source(notebook) for path, notebook in notebooks.items()}
    first = setups[found[0]]
    problems += [
        f"{path}: its setup cell differs from the one in {found[0].name}; copy that one."
        for path, source in setups.items()
        if source is not None and first is not None and source != first
    ]
    return problems


def setup_source(notebook: NotebookNode) -> str | None:
    """Return the source of the cell tagged ``setup``, None if there is none."""
    cells = [cell for cell in notebook.cells if "setup" in cell.metadata.get("tags", [])]
    return cells[0].source if cells else None


def editions(
    student: str | Path | None, solutions: str | Path | None, paths: Sequence[str | Path] = (), *, graded: bool = False
) -> list[Path]:
    """Write the student's edition of notebooks, and their solutions, into two folders; return the paths written.

    Args:
        student: folder of the student's edition; None writes none.
        solutions: folder of the solutions; None writes none.
        paths: as in ``notebook_paths``.
        graded: whether the student's edition has locked cells with points, marked for nbgrader.

    Raises:
        ValueError: a folder that holds the notebooks themselves, or solutions inside the students' folder.
    """
    folders = [None if folder is None else Path(folder) for folder in (student, solutions)]
    found = notebook_paths(paths)
    refuse_folders(found, *folders)
    written = []
    for folder, edition in zip(folders, (partial(student_edition, graded=graded), solutions_edition), strict=True):
        for path in found if folder is not None else ():
            made = with_files(edition(nbformat.read(path, as_version=4)), path.parent, folder)
            written.append(write(made, folder / path.name))
    return written
