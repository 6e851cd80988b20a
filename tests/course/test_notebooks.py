"""Every committed notebook has the anatomy of the course, and the tool that makes them so does what it says."""

from __future__ import annotations

import configparser
import copy
import re
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from explainlib.course import notebooks as tool
from explainlib.course.anatomy import PARTS, complaints

COMMITTED = ("00_start_here.ipynb", "01_influence_functions.ipynb")


def test_the_first_notebooks_are_there(repository):
    missing = [name for name in COMMITTED if not (repository / "notebooks" / name).is_file()]
    assert not missing, f"notebooks/ lacks {' and '.join(missing)}"


def test_committed_notebooks_have_the_anatomy(repository):
    problems = tool.check_all([repository / "notebooks"])
    assert not problems, "\n" + "\n".join(problems)


def test_committed_notebooks_are_scrubbed(repository):
    for path in tool.notebook_paths([repository / "notebooks"]):
        notebook = nbformat.read(path, as_version=4)
        assert tool.scrub(notebook) == notebook, f"{path.name} holds what changes from run to run; `make notebooks`"


def code(source, position, **metadata):
    return new_code_cell(source, id=f"cell-{position:02d}", execution_count=position + 1, metadata=metadata)


@pytest.fixture
def good():
    """Return a small notebook that nothing is wrong with."""
    prose = [f"## {part}\n" + "word " * 100 for part in PARTS] + ["<details><summary>Reconcile</summary></details>\n"]
    prose += ["word " * 50] * (16 - len(prose))
    cells = [new_markdown_cell(text, id=f"cell-{position:02d}") for position, text in enumerate(prose)]
    cells += [
        code("import explainlib as xl", 16, tags=["setup"]),
        code("print(1)", 17),
        code("2 + 2", 18, tags=["solution"], jupyter={"source_hidden": True, "outputs_hidden": True}),
        code("xl", 19, tags=["nbval-ignore-output"], reason="depends on the machine"),
        new_markdown_cell("The end.", id="cell-20"),
    ]
    cells[17].outputs = [new_output("stream", name="stdout", text="1\n")]
    return tool.scrub(new_notebook(cells=cells))


def test_a_good_notebook_has_no_complaints(good):
    assert complaints(good, "02_x.ipynb", 5_000) == []


def spoil(notebook, position=17, **changes):
    for name, value in changes.items():
        setattr(notebook.cells[position], name, value)


SPOILED = {
    "cells, expected 20 to 45": lambda n: n.cells.pop(),
    "words, expected 900": lambda n: [spoil(n, i, source=n.cells[i].source[:30]) for i in range(16)],
    "lines of code, expected at most 130": lambda n: [spoil(n, source="\n".join(["x = 1"] * 131))],
    "has 13 lines, expected at most 12": lambda n: spoil(n, source="\n".join(["x = 1"] * 13)),
    "defines a function": lambda n: spoil(n, source="def f():\n    return 1"),
    "semicolon": lambda n: spoil(n, source="x = 1;"),
    "is empty": lambda n: spoil(n, source=" \n"),
    "never run": lambda n: spoil(n, execution_count=None),
    "ends in ValueError": lambda n: spoil(
        n, outputs=[new_output("error", ename="ValueError", evalue="x", traceback=[])]
    ),
    "writes to stderr": lambda n: spoil(n, outputs=[new_output("stream", name="stderr", text="warned")]),
    "SVG": lambda n: spoil(n, outputs=[new_output("display_data", data={"image/svg+xml": "<svg/>"})]),
    "path of one machine": lambda n: spoil(n, outputs=[new_output("stream", name="stdout", text="in /home/me/x")]),
    "does not say why": lambda n: n.cells[19].metadata.pop("reason"),
    "is tagged raises-exception": lambda n: spoil(n, metadata={"tags": ["raises-exception"]}),
    "is a solution that is not hidden": lambda n: n.cells[18].metadata.pop("jupyter"),
    "calls xl.check without solution=True": lambda n: spoil(n, 18, source='xl.check("00.1", (1, "solution=True"))'),
    "calls xl.check with solution=True": lambda n: spoil(n, source='print(xl.check("00.1", 1, solution=True))'),
    "is a solution whose output is not hidden": lambda n: [
        spoil(n, 18, outputs=[new_output("stream", name="stdout", text="4\n")]),
        n.cells[18].metadata.jupyter.pop("outputs_hidden"),
    ],
    "is a solution in words that is not folded": lambda n: n.cells[20].metadata.update(
        tags=["solution"], jupyter={"source_hidden": True}
    ),
    "cell 20 shows the outcome below its own prompt": lambda n: spoil(
        n, 20, source="**Predict**: who?\n\n**See.** All."
    ),
    "cell 20 opens a <details> by itself": lambda n: spoil(n, 20, source="<details open>It is 4.</details>"),
    "tagged 'setup', expected one": lambda n: n.cells[16].metadata.pop("tags"),
    "its setup cell has 6 lines": lambda n: spoil(n, 16, source="\n".join(["import torch"] * 6)),
    "has id 'x', expected 'cell-17'": lambda n: spoil(n, id="x"),
    "its kernel is 'other'": lambda n: n.metadata.kernelspec.update(name="other"),
    "no part 'Break it'": lambda n: spoil(n, PARTS.index("Break it"), source="word " * 100),
    "no part 'Reconcile'": lambda n: spoil(n, len(PARTS), source="word"),
}


@pytest.mark.parametrize("text", SPOILED)
def test_each_fault_has_its_complaint(good, text):
    SPOILED[text](good)
    found = complaints(good, "02_x.ipynb", 5_000)
    assert any(text in complaint for complaint in found), found


def test_size_and_tour(good):
    assert any("bytes" in text for text in complaints(good, "02_x.ipynb", 1_000_000))
    tour = tool.scrub(new_notebook(cells=good.cells[:5] + good.cells[12:]))
    assert complaints(tour, "00_start_here.ipynb", 5_000) == []
    assert complaints(tour, "02_x.ipynb", 5_000) != []


def test_setup_cells_have_to_be_equal(good, tmp_path):
    other = copy.deepcopy(good)
    other.cells[16].source += "\nimport torch"
    for name, notebook in (("02_a.ipynb", good), ("03_b.ipynb", other)):
        tool.write(notebook, tmp_path / name)
    problems = tool.check_all([tmp_path])
    assert len(problems) == 1 and "03_b.ipynb: its setup cell differs" in problems[0]


def test_scrubbing_keeps_meaning_and_drops_chance(good):
    raw = copy.deepcopy(good)
    raw.metadata["widgets"] = {"state": {}}
    raw.cells[17].update(id="3f2a", metadata={"execution": {"iopub.execute_input": "2026"}, "tags": ["kept"]})
    picture = {"image/png": "AAAA", "text/plain": "<Figure>", "application/vnd.jupyter.widget-view+json": {}}
    parts = [new_output("stream", name="stdout", text=text) for text in ("a", "b")]
    raw.cells[17].outputs = [*parts, new_output("display_data", data=picture, metadata={"image/png": {"width": 3}})]
    before = copy.deepcopy(raw)
    clean = tool.scrub(raw)
    assert raw == before, "the given notebook was changed"
    assert clean.cells[17].id == "cell-17" and clean.cells[17].metadata == {"tags": ["kept"]}
    text, shown = clean.cells[17].outputs
    assert text.text == "ab" and set(shown.data) == {"image/png", "text/plain"}
    assert "widgets" not in clean.metadata and clean.metadata.kernelspec.name == "python3"
    assert tool.scrub(clean) == clean


def test_cells_of_exercises_do_not_count(good):
    """The lecture keeps its limits; what is tagged as part of an exercise has none of its own."""
    before = complaints(good, "02_x.ipynb", 5_000)
    for tag in ("exercise", "hint"):
        text = f"<details><summary>{tag}</summary>" + "word " * 1_000 + "</details>"
        for _ in range(20):
            position = len(good.cells)
            good.cells.append(new_markdown_cell(text, id=f"cell-{position:02d}", metadata={"tags": [tag]}))
    for _ in range(15):
        long = code("\n".join(["x = 1"] * 12), len(good.cells), tags=["solution"], jupyter={"source_hidden": True})
        good.cells.append(long)
    assert complaints(good, "02_x.ipynb", 5_000) == before == []
    for cell in good.cells[21:]:
        cell.metadata.tags = []
    found = " ".join(complaints(good, "02_x.ipynb", 5_000))
    assert "75 cells" in found and "words" in found and "lines of code" in found


@pytest.mark.parametrize(
    ("source", "tags", "text"),
    [
        ("Look at the sign.", ["hint"], "is a hint that is not folded"),
        ("<details>one</details> and two", ["hint"], "is a hint that is not folded"),
        ("<details open>one</details>", ["hint"], "is a hint that is not folded"),
        ("text", ["exercise", "hint"], "has two tags"),
        ("text", ["answer"], "is an answer, which only a student's edition has"),
    ],
)
def test_tags_of_exercises_have_their_rules(good, source, tags, text):
    spoil(good, 15, source=source, metadata={"tags": tags})
    assert any(text in complaint for complaint in complaints(good, "02_x.ipynb", 5_000))


def test_outcomes_of_predictions_are_folded(good):
    """After a heading up to the next but *See*, after a prompt inside a text up to the next text; panels stay open."""
    shown = [new_output("stream", name="stdout", text="1\n")]
    cells = [
        new_markdown_cell("## Predict\n\nHow many?\n\n## Run"),
        code("1", 1),
        new_markdown_cell("And now the other way."),
        code("2", 3),
        code("panel", 4, tags=["nbval-ignore-output"], reason="a widget"),
        new_markdown_cell("## See"),
        code("3", 6),
        new_markdown_cell("## Play\n\nThen **Predict**: which?"),
        code("4", 8),
        new_markdown_cell("*In words.*"),
        code("5", 10),
        new_markdown_cell("The parts are **Predict**, **Run**, **See**."),
        code("6", 12),
    ]
    for cell in cells:
        if cell.cell_type == "code":
            cell.outputs = shown
    clean = tool.scrub(new_notebook(cells=cells))
    folded = [i for i, cell in enumerate(clean.cells) if cell.metadata.get("jupyter", {}).get("outputs_hidden")]
    assert folded == [1, 3, 6, 8] and not any("source_hidden" in clean.cells[i].metadata.jupyter for i in folded)
    clean.cells[3].metadata.pop("jupyter")
    assert any("cell 3 answers a prompt" in text for text in complaints(clean, "02_x.ipynb", 5_000))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("*In words: four.*", True),
        ("## See\n\n*In words: four.*", True),
        ("<details><summary><b>In words</b></summary>\n\nFour.\n\n</details>", False),
        ("Look at the bend.\n\n## Play\n\n*In words: a panel.*", False),
        ("<details><summary><b>Reconcile</b></summary>\n\nFour.\n\n</details>", False),
    ],
)
def test_words_about_a_folded_output_are_folded(text, told):
    """Up to the next heading; what stands below tells of other things."""
    cells = [
        new_markdown_cell("## Predict"),
        code("4", 1),
        new_markdown_cell(text),
        new_markdown_cell("*In words: b.*"),
    ]
    cells[1].outputs = [new_output("stream", name="stdout", text="4\n")]
    found = complaints(tool.scrub(new_notebook(cells=cells)), "02_x.ipynb", 5_000)
    assert any("cell 2 says in words" in complaint for complaint in found) == told
    late = "## Play" in text or "Reconcile" in text
    assert any("cell 3 says in words" in complaint for complaint in found) != late


def test_running_saves_real_outputs_of_this_python(tmp_path, capsys):
    path = tmp_path / "02_a.ipynb"
    cells = [new_code_cell("import sys, os\nprint(sys.prefix, os.getcwd())"), new_code_cell("1 + 1")]
    nbformat.write(new_notebook(cells=cells), path)
    assert tool.execute_all([path]) == [path]
    done = nbformat.read(path, as_version=4)
    assert done.cells[0].outputs[0].text.split() == [sys.prefix, str(tmp_path)]
    assert done.cells[1].outputs[0].data == {"text/plain": "2"} and done.cells[1].id == "cell-01"
    assert re.search(r"02_a\.ipynb: \d+\.\d s", capsys.readouterr().out)


def test_a_failing_notebook_is_left_as_it_was(tmp_path):
    path = tmp_path / "02_a.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0")]), path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        tool.execute_all([path])
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_writing_is_whole_or_not_at_all(good, tmp_path):
    path = tool.write(good, tmp_path / "02_a.ipynb")
    before = path.read_bytes()
    good.cells[0].id = "not an id"
    with pytest.raises(nbformat.ValidationError):
        tool.write(good, path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_missing_notebooks_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        tool.notebook_paths([tmp_path / "no.ipynb"])
    with pytest.raises(FileNotFoundError, match="no notebook"):
        tool.notebook_paths([tmp_path])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<Model at 0x7fe38c150fe0>", "<Model at ADDRESS>"),
        ("predicted in 12.3 s, then 40 ms", "predicted in TIME, then TIME"),
        ("loss 0.412, 10 of 300 examples", "loss 0.412, 10 of 300 examples"),
        ("30 samples, 5 support", "30 samples, 5 support"),
    ],
)
def test_the_sanitizer_hides_chance_and_keeps_numbers(repository, text, expected):
    rules = configparser.ConfigParser(interpolation=None)
    rules.read(repository / "tests" / "nbval_sanitize.cfg")
    for rule in rules.sections():
        text = re.sub(rules[rule]["regex"], rules[rule]["replace"], text)
    assert text == expected
