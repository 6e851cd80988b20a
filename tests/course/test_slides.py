"""Slides: where one begins follows from the headings; nothing is lost, changed or run."""

from __future__ import annotations

import base64
import copy

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from explainlib.__main__ import main
from explainlib.course.slides import PAGE, slides, write_slides

PIXEL = base64.b64encode(b"not a picture, but it is not looked at").decode()


def text(source, **metadata):
    return new_markdown_cell(source, metadata=metadata)


def kinds(*cells):
    deck = slides(new_notebook(cells=list(cells)))
    return [(cell.metadata["slideshow"]["slide_type"], cell.source) for cell in deck.cells]


def test_a_heading_begins_a_slide_and_a_deeper_one_a_slide_below():
    found = kinds(text("# A\n\nwords\n\n## B\nmore\n### C"), text("end"))
    assert found == [("slide", "# A\n\nwords"), ("slide", "## B\nmore"), ("subslide", "### C"), ("-", "end")]


def test_the_outcome_is_not_beside_the_question():
    for prompt in ("## Predict\n\nWhich?", "**Predict.** Which?", "Words.\n\n**Predict**: which?"):
        assert kinds(text("## A"), text(prompt), new_code_cell("1 + 1"))[-1] == ("subslide", "1 + 1")
    assert kinds(text("## A"), text("The parts are **Predict**, **Run**."), new_code_cell("1"))[-1][0] == "-"
    assert kinds(text("## A"), text("We predict nothing."), new_code_cell("1 + 1"))[-1][0] == "-"


def test_a_full_page_goes_on_below_but_no_slide_is_a_heading_alone():
    long = [new_code_cell("\n".join(["x = 1"] * PAGE)) for _ in range(2)]
    assert [kind for kind, _ in kinds(text("## A"), *long)] == ["slide", "-", "subslide"]


def test_code_fences_are_not_cut_and_solutions_are_left_out():
    fenced = "## A\n```\n# no heading\n```"
    assert kinds(text(fenced)) == [("slide", fenced)]
    assert kinds(text("## A"), new_code_cell("1", metadata={"tags": ["solution"]}))[-1][0] == "skip"


def test_committed_notebooks_lose_nothing_and_stay_as_they_are(repository):
    notebook = nbformat.read(repository / "notebooks" / "02_group_influence.ipynb", as_version=4)
    before = copy.deepcopy(notebook)
    deck = slides(notebook)
    assert notebook == before
    words = [" ".join(cell.source for cell in one.cells).split() for one in (notebook, deck)]
    assert words[0] == words[1]
    for cell in deck.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("## "):
            assert cell.metadata["slideshow"]["slide_type"] == "slide", cell.source[:30]


@pytest.fixture
def lecture(tmp_path):
    """Return a notebook with a picture, a still picture and links, beside another one."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "still.png").write_bytes(base64.b64decode(PIXEL))
    picture = new_output("display_data", data={"image/png": PIXEL, "text/plain": "Picture: a & b"})
    cells = [
        text(
            "# Lecture\n\n[next](02_b.ipynb) and [the rest](03_c.ipynb), in [words](../docs/words.md)\n\n![A still](../docs/still.png)"
        ),
        new_code_cell("print(12345)", outputs=[picture, new_output("stream", text="12345")], execution_count=1),
    ]
    (tmp_path / "notebooks").mkdir()
    for name in ("01_a.ipynb", "02_b.ipynb"):
        nbformat.write(new_notebook(cells=cells), tmp_path / "notebooks" / name)
    return tmp_path


def test_a_page_holds_its_pictures_and_leads_to_other_slides(lecture):
    pytest.importorskip("nbconvert", reason="nbconvert is not installed")
    first, second = write_slides(lecture / "build" / "slides", [lecture / "notebooks"])
    page = first.read_text()
    assert (first.name, second.name) == ("01_a.slides.html", "02_b.slides.html")
    assert 'href="02_b.slides.html"' in page and 'href="../../notebooks/03_c.ipynb"' in page
    assert 'href="../../docs/words.md"' in page
    assert "../docs/still.png" not in page and page.count(f"data:image/png;base64,{PIXEL}") == 2
    assert 'alt="Picture: a &amp; b"' in page and "No description" not in page
    assert "reveal.js@" in page and "12345" in page and 'class="nv"' not in page


def test_code_can_be_hidden_and_reveal_be_at_hand(lecture, capsys):
    pytest.importorskip("nbconvert", reason="nbconvert is not installed")
    notebook, out = str(lecture / "notebooks" / "01_a.ipynb"), str(lecture / "here")
    assert main(["slides", notebook, "--out", out, "--no-code", "--reveal", "my-reveal"]) == 0
    page = (lecture / "here" / "01_a.slides.html").read_text()
    assert capsys.readouterr().out.strip().endswith("01_a.slides.html")
    assert "my-reveal/dist/reveal.js" in page and "unpkg.com/reveal" not in page
    assert "12345" in page and "print" not in page.partition("<body")[2].replace("12345", "")


def test_a_notebook_that_is_not_there_is_said(tmp_path, capsys):
    assert main(["slides", str(tmp_path / "no.ipynb"), "--out", str(tmp_path)]) == 2
    assert "no.ipynb does not exist" in capsys.readouterr().err
