"""`make check-mine`: a teacher's own notebook is held to the course's anatomy and to its own saved outputs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from explainlib.course import notebooks as tool
from explainlib.course.anatomy import PARTS
from explainlib.doctor import TESTED


@pytest.fixture
def lecture(tmp_path):
    """Return the path of a small notebook of one's own that nothing is wrong with, run and saved."""
    prose = [f"## {part}\n" + "word " * 100 for part in PARTS] + ["<details><summary>Reconcile</summary></details>\n"]
    prose += ["word " * 50] * (18 - len(prose))
    cells = [new_markdown_cell(text) for text in prose]
    cells += [
        new_code_cell("import math", execution_count=1, metadata={"tags": ["setup"]}),
        new_code_cell(
            "print(math.sqrt(16))", execution_count=2, outputs=[new_output("stream", name="stdout", text="4.0\n")]
        ),
    ]
    return tool.write(tool.scrub(new_notebook(cells=cells)), tmp_path / "mine" / "10_roots.ipynb")


def check_mine(repository, *paths):
    """Run the target with the Python of these tests, without installing anything."""
    make = shutil.which("make")
    if make is None or not (Path(sys.prefix) / "bin" / "python").exists():
        pytest.skip("needs make and a virtual environment")
    venv = Path(sys.prefix)
    command = [make, "check-mine", f"VENV={venv}", "-o", f"{venv}/.installed"]
    command += [f"NOTEBOOKS={' '.join(map(str, paths))}"] if paths else []
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "PYTEST"))}
    plain["PYTHONPATH"] = str(repository)
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=300, env=plain)


def test_a_good_notebook_passes(repository, lecture):
    run = check_mine(repository, lecture)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "1 notebooks, nothing wrong." in run.stdout and "2 passed" in run.stdout


def test_a_notebook_without_the_parts_fails_with_sentences(repository, lecture):
    notebook = nbformat.read(lecture, as_version=4)
    notebook.cells[PARTS.index("Break it")].source = "word " * 100
    notebook.cells[19].source = "def root(x):\n    return x**0.5"
    tool.write(notebook, lecture)
    run = check_mine(repository, lecture)
    assert run.returncode != 0 and "passed" not in run.stdout
    assert "it has no part 'Break it'; open one with a heading or with bold first words." in run.stdout
    assert "cell 19 defines a function or a class; move it into the library." in run.stdout
    assert "each line above says what to change" in run.stderr


def test_a_saved_output_that_is_no_longer_true_fails_with_a_sentence(repository, lecture):
    notebook = nbformat.read(lecture, as_version=4)
    notebook.cells[19].outputs[0].text = "5.0\n"
    tool.write(notebook, lecture)
    run = check_mine(repository, lecture)
    assert run.returncode != 0 and "1 failed" in run.stdout
    assert "A cell failed, or its output is no longer the saved one." in run.stderr


def test_no_notebook_and_a_wrong_name_are_said(repository, tmp_path):
    assert "make check-mine NOTEBOOKS=" in check_mine(repository).stderr
    run = check_mine(repository, tmp_path / "no.ipynb")
    assert run.returncode != 0 and "no.ipynb does not exist" in run.stderr and "parts" not in run.stderr


def test_the_workflow_to_copy_runs_what_exists(repository):
    text = (repository / "docs" / "teach" / "course-ci.yml").read_text()
    workflow = yaml.safe_load(text)
    (job,) = workflow["jobs"].values()
    runs = "\n".join(step.get("run", "") for step in job["steps"])
    assert "make env" in runs and "make check-mine NOTEBOOKS=" in runs
    (python,) = (step["with"]["python-version"] for step in job["steps"] if "setup-python" in step.get("uses", ""))
    assert python in [f"{major}.{minor}" for major, minor in TESTED]
    assert {"push", "pull_request"} <= set(workflow[True]), "yaml reads the key `on` as true"
