"""The editions made from the committed notebooks: a student's, without solutions and outcomes, and the solutions."""

from __future__ import annotations

import re

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from explainlib.__main__ import main
from explainlib.course import editions
from explainlib.course import notebooks as tool
from explainlib.course.anatomy import PROMPT, hidden_outputs, is_lecture, tags_of
from explainlib.course.exercises import EXERCISES, of_notebook


@pytest.fixture(scope="module")
def instructors(repository):
    return {path.name: nbformat.read(path, as_version=4) for path in tool.notebook_paths([repository / "notebooks"])}


@pytest.fixture(scope="module")
def written(repository, tmp_path_factory):
    """The folder in which both editions of all notebooks were written."""
    folder = tmp_path_factory.mktemp("build")
    paths = tool.editions(folder / "student", folder / "solutions", [repository / "notebooks"])
    assert len(paths) == len(set(paths)) == 2 * len(list((repository / "notebooks").glob("*.ipynb")))
    return folder


def names():
    return sorted(path.name for path in tool.notebook_paths())


@pytest.mark.parametrize("name", names())
def test_the_students_edition_holds_no_solution_and_no_outcome(instructors, written, name):
    ours, theirs = instructors[name], nbformat.read(written / "student" / name, as_version=4)
    assert not [cell for cell in theirs.cells if "solution" in tags_of(cell)]
    sources = {cell.source for cell in theirs.cells}
    assert not sources & {cell.source for cell in ours.cells if "solution" in tags_of(cell)}
    assert not re.search(r"hidden solution|collapsed cell|make student", " ".join(sources))
    outcomes = {ours.cells[i].source for i in hidden_outputs(ours)}
    assert outcomes and all(not cell.outputs for cell in theirs.cells if cell.source in outcomes)
    kept = {cell.source: cell.outputs for cell in ours.cells if cell.cell_type == "code" and is_lecture(cell)}
    for source in kept.keys() - outcomes:
        (cell,) = (cell for cell in theirs.cells if cell.source == source)
        assert cell.outputs == kept[source], "outputs that answer no prompt stay, panels too"
    assert editions.BANNER in theirs.cells[0].source and theirs.cells[-1].source == ours.cells[-1].source
    ids = [cell.id for cell in theirs.cells]
    assert ids == sorted(set(ids))


@pytest.mark.parametrize("name", names())
def test_an_answer_line_follows_each_prompt(instructors, written, name):
    theirs = nbformat.read(written / "student" / name, as_version=4).cells
    prompts = [i for i, c in enumerate(theirs) if c.cell_type == "markdown" and PROMPT.search(c.source)]
    asked = [cell for cell in instructors[name].cells if cell.cell_type == "markdown" and PROMPT.search(cell.source)]
    assert len(prompts) == len(asked) >= 1
    assert all(theirs[i + 1].source == editions.ANSWER_LINE for i in prompts)
    assert all(cell.source.strip() for cell in theirs)


@pytest.mark.parametrize("name", names())
def test_every_exercise_has_one_cell_to_work_in(written, name):
    cells = nbformat.read(written / "student" / name, as_version=4).cells
    work = [cell for cell in cells if cell.cell_type == "code" and "answer" in tags_of(cell)]
    ladder = of_notebook(name[:2])
    assert [cell.source for cell in work if "xl.check" in cell.source] == [editions.WORK.format(e.id) for e in ladder]
    assert all(
        not cell.outputs and cell.execution_count is None and compile(cell.source, name, "exec") for cell in work
    )


def test_pictures_come_along_and_links_work(written):
    found = 0
    for folder in (written / "student", written / "solutions"):
        for path in folder.glob("*.ipynb"):
            prose = "\n".join(c.source for c in nbformat.read(path, as_version=4).cells if c.cell_type == "markdown")
            for link in re.findall(r"\]\((?!https?:)([^)]+)\)", prose):
                assert not link.startswith("..") and (folder / link).is_file(), f"{path.name}: {link}"
                found += link.endswith(".png")
    assert found >= 12
    glossary = (written / "student" / "pages" / "glossary.md").read_text()
    assert glossary.startswith("# Glossary") and "](" not in glossary, "its own links would lead nowhere"
    assert not list((written / "student").rglob("*solution*"))


def test_the_solutions_are_open_and_whole(instructors, written):
    for name, ours in instructors.items():
        theirs = nbformat.read(written / "solutions" / name, as_version=4)
        assert [cell.get("outputs") for cell in theirs.cells] == [cell.get("outputs") for cell in ours.cells]
        assert not [cell for cell in theirs.cells if "jupyter" in cell.metadata]
        assert [c.source for c in theirs.cells if c.cell_type == "code"] == [
            c.source for c in ours.cells if c.cell_type == "code"
        ]


def test_every_adapted_text_stands_in_a_notebook(instructors):
    prose = "\n".join(cell.source for notebook in instructors.values() for cell in notebook.cells)
    assert [text for text in editions.TEXTS if text not in prose] == []


def test_nbgraders_metadata(instructors):
    ours, ladder = instructors["01_influence_functions.ipynb"], of_notebook("01")
    cells = editions.student_edition(ours, graded=True).cells
    places = [i for i, cell in enumerate(cells) if "nbgrader" in cell.metadata]
    assert [cells[i - 1].source for i in places] == [editions.WORK.format(each.id) for each in ladder]
    for i, each in zip(places, ladder, strict=True):
        words = cells[i].metadata.nbgrader
        assert words["grade"] and words["locked"] and not words["solution"] and not words["task"]
        assert re.fullmatch(r"points-\d\d-\d", words["grade_id"]) and words["schema_version"] == 3
        assert words["points"] == {"warm-up": 1, "guided": 2, "open": 3}[each.kind]
        assert f'"{each.id}" in xl.report().solved' in cells[i].source
    assert len({cells[i].metadata.nbgrader["grade_id"] for i in places}) == len(places)
    assert not [cell for cell in editions.student_edition(ours).cells if "nbgrader" in cell.metadata]


def test_a_prompt_inside_a_text_is_cut_at_its_paragraph():
    text = "First.\n\nThen **Predict**: which?\n\nMore, and **Predict**: whom?\n\nLast."
    notebook = new_notebook(cells=[new_markdown_cell("# T"), new_markdown_cell(text), new_code_cell("1")])
    before = nbformat.writes(notebook)
    parts = [cell.source for cell in editions.student_edition(notebook).cells[1:]]
    line = editions.ANSWER_LINE
    assert parts == ["First.\n\nThen **Predict**: which?", line, "More, and **Predict**: whom?", line, "Last.", "1"]
    assert nbformat.writes(notebook) == before, "the given notebook was changed"


def test_a_solution_without_an_exercise_becomes_an_invitation():
    cells = [new_markdown_cell("# T"), new_code_cell("secret", metadata={"tags": ["solution"]})]
    assert editions.student_edition(new_notebook(cells=cells)).cells[1].source == editions.INVITATION


def test_folders_that_would_do_harm_are_refused(repository, tmp_path):
    home = repository / "notebooks"
    with pytest.raises(ValueError, match="own folder"):
        tool.editions(home, None, [home])
    with pytest.raises(ValueError, match="own folder"):
        tool.editions(None, home, [home])
    for inside in ("student", "student/solutions"):
        with pytest.raises(ValueError, match="students' folder"):
            tool.editions(tmp_path / "student", tmp_path / inside, [home])
    assert not list(tmp_path.iterdir())


def test_a_missing_picture_is_named(tmp_path):
    (tmp_path / "in").mkdir()
    nbformat.write(new_notebook(cells=[new_markdown_cell("![a](no.png)")]), tmp_path / "in" / "02_a.ipynb")
    with pytest.raises(FileNotFoundError, match=r"no\.png"):
        tool.editions(tmp_path / "out", None, [tmp_path / "in"])


def test_the_command_line(repository, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(repository)
    assert main(["course", "--student", str(tmp_path / "s"), "--nbgrader", "notebooks/00_start_here.ipynb"]) == 0
    assert "nbgrader" in (tmp_path / "s" / "00_start_here.ipynb").read_text()
    assert main(["course", "--exercises", str(tmp_path / "e.md")]) == 0
    assert (tmp_path / "e.md").read_text().startswith("# Exercises") and len(EXERCISES) >= 20
    capsys.readouterr()
    assert main(["course", "--nbgrader", "--exercises", str(tmp_path / "f.md")]) == 2
    assert "pass --student DIR with it" in capsys.readouterr().err and not (tmp_path / "f.md").exists()
    assert main(["course"]) == 2
    assert "pass --student DIR, --solutions DIR or --exercises FILE" in capsys.readouterr().err


def test_make_student_keeps_the_solutions_apart(repository):
    recipe = re.search(r"^student:.*\n\t(.*)$", (repository / "Makefile").read_text(), re.MULTILINE).group(1)
    assert "--student build/student --solutions build/solutions" in recipe
    assert "make student" in (repository / "README.md").read_text()
    assert "make student" in (repository / "notebooks" / "00_start_here.ipynb").read_text()
