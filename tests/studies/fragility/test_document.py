"""The fragility study's document: the tables of the design in it are what the committed tables say."""

from __future__ import annotations

import pytest

from explainlib.studies.fragility import design
from explainlib.studies.fragility.design.document import MAKERS
from explainlib.studies.kept import kept_tables
from explainlib.studies.marks import MARK


@pytest.fixture(scope="module")
def tables():
    return kept_tables("fragility_design-iris-cpu")


@pytest.fixture(scope="module")
def text(repository):
    return (repository / "docs" / "fragility_study.md").read_text()


def test_every_mark_is_what_the_tables_say(text, tables):
    assert {found["words"] for found in MARK.finditer(text)} == {f"design {name}" for name in MAKERS}
    assert design.filled(text, tables) == text


def test_a_number_that_is_typed_in_a_mark_is_put_right(text, tables):
    first = next(MARK.finditer(text))
    wrong = text[: first.start("text")] + "\n\n| .99 |\n\n" + text[first.end("text") :]
    assert design.filled(wrong, tables) == text


def test_an_unknown_mark_is_refused(tables):
    with pytest.raises(ValueError, match="'design nothing' is not known; choose design and one of cells"):
        design.filled("<!--design nothing-->x<!--/-->", tables)
