"""Every study's document: each mark is what the committed tables say, and no result stands outside a mark."""

from __future__ import annotations

import re

import pytest

from explainlib.studies.documents import MARK, unmarked
from explainlib.studies.kept import FINISHED
from explainlib.studies.record import parse_table
from explainlib.studies.scoreboard.documents import DOCUMENTS, filled_document
from tests.studies.documents.settings import SETTINGS

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
