"""Studies' documents and notebooks: each mark is what the committed tables say, and no result is outside a mark."""

from __future__ import annotations

import json
import re

import pytest

from explainlib.studies.documents import MARK, unmarked
from explainlib.studies.kept import FINISHED
from explainlib.studies.record import parse_table
from explainlib.studies.scoreboard.documents import DOCUMENTS, NOTEBOOKS, filled_document, filled_notebook
from tests.studies.documents.settings import NOTEBOOK_SETTINGS, SETTINGS

NUMBER = re.compile(r"(?<![\w.])-?\d*\.?\d[\d,]*(?:\.\d+)?(?:e-\d+)?%?")
NO_RESULTS = re.compile(
    r"```.*?```|`[^`]*`|\]\([^)]*\)|^    .*$|\b[TREPBD]\d+ (?:to|and) [TREPBD]\d+\b|\b[TREPBD]\d+\b", re.S | re.M
)


@pytest.fixture(scope="module")
def board():
    path = FINISHED / "scoreboard.csv"
    return parse_table(path.read_bytes(), path, "run `python -m explainlib study all`")


def test_every_study_with_claims_has_its_document_here(repository):
    found = {path.name for path in (repository / "docs").glob("*_study.md")}
    assert found == set(DOCUMENTS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_mark_is_what_the_tables_say(name, repository, board):
    text = (repository / "docs" / name).read_text()
    assert filled_document(name, text, FINISHED, board) == text, "run `python -m explainlib study all`"


@pytest.mark.parametrize("name", SETTINGS)
def test_no_number_stands_outside_a_mark_but_sizes_and_the_paper_s_words(name, repository):
    text = (repository / "docs" / name).read_text()
    assert text.count("<!--/-->") > 20
    loose = {number.rstrip(".,") for number in NUMBER.findall(NO_RESULTS.sub("", unmarked(text)))}
    assert not loose - SETTINGS[name], f"{sorted(loose - SETTINGS[name])} stand in docs/{name} outside a mark"
    assert not SETTINGS[name] - loose, f"{sorted(SETTINGS[name] - loose)} are allowed, and not there"


@pytest.mark.parametrize("name", SETTINGS)
def test_a_number_that_is_typed_in_a_mark_is_put_right(name, repository, board):
    text = (repository / "docs" / name).read_text()
    first = next(mark for mark in MARK.finditer(text) if not mark["words"].startswith("typed "))
    wrong = text[: first.start("text")] + "99%" + text[first.end("text") :]
    assert filled_document(name, wrong, FINISHED, board) == text


def marked_texts(text):
    """The text cells of a notebook that have marks."""
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
    return [source for source in ("".join(cell["source"]) for cell in cells) if MARK.search(source)]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_mark_of_a_notebook_is_what_the_tables_say(name, repository, board):
    text = (repository / "notebooks" / name).read_text()
    assert marked_texts(text)
    assert filled_notebook(name, text, FINISHED, board) == text, "run `python -m explainlib study all`"
    mark = MARK.search(marked_texts(text)[0])
    wrong = text.replace(mark[0], mark[0].replace(f">{mark['text']}<", ">99%<"))
    assert wrong != text and filled_notebook(name, wrong, FINISHED, board) == text


def test_notebooks_with_marks_are_filled(repository):
    with_marks = {path.name for path in (repository / "notebooks").glob("*.ipynb") if marked_texts(path.read_text())}
    assert with_marks == set(NOTEBOOKS)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_text_with_marks_has_no_other_results(name, repository):
    texts = "\n\n".join(marked_texts((repository / "notebooks" / name).read_text()))
    loose = {number.rstrip(".,") for number in NUMBER.findall(NO_RESULTS.sub("", unmarked(texts)))}
    assert loose == NOTEBOOK_SETTINGS[name]
