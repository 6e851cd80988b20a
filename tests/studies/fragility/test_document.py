"""The fragility design's tables in the study's document."""

from __future__ import annotations

import pytest

from explainlib.studies.documents import MARK
from explainlib.studies.fragility.design.document import MAKERS, TABLES


def test_the_document_shows_every_table_of_the_design(repository):
    text = (repository / "docs" / "fragility_study.md").read_text()
    assert {found["words"] for found in MARK.finditer(text)} >= {f"table design {name}" for name in TABLES}


def test_an_unknown_table_is_refused():
    with pytest.raises(ValueError, match="the design has no table 'nothing'; choose one of cells"):
        MAKERS["table"]({}, "nothing")
