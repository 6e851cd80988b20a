"""The representers study's own words of a mark."""

from __future__ import annotations

import pandas
import pytest

from explainlib.studies.representers import MAKERS
from tests.studies.documents.filling import filled as filled_mark

AREAS = {"auc": 1.5, "auc_low": 1.25, "auc_high": 1.75}


@pytest.fixture
def runs():
    methods = [{"part": "main", "method": name, "seeds": 20, "tests": 10, **AREAS} for name in ("tracking", "random")]
    methods.append(
        {"part": "early", "method": "random", "seeds": 5, "tests": 2, "auc": 0.25, "auc_low": 0, "auc_high": 0.5}
    )
    pairs = {"part": ["main"], "a": ["tracking"], "b": ["random"], "a_minus_b": [0.5], "low": [-0.25], "high": [1.25]}
    networks = {"part": ["main", "main", "early"], "training_loss": [0.01, 0.03, 0.2]}
    return {
        "mnist": {
            "methods": pandas.DataFrame(methods),
            "pairs": pandas.DataFrame(pairs),
            "networks": pandas.DataFrame(networks),
        }
    }


def filled(words, runs):
    return filled_mark(words, runs, MAKERS)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("area mnist main .2f tracking", "1.50 [1.25, 1.75]"),
        ("gap mnist main .2f tracking minus random", ".50 [-.25, 1.25]"),
        ("gap mnist main .2f random minus tracking", "-.50 [-1.25, .25]"),
        ("loss mnist main .2g", ".02"),
        ("networks mnist early", "5"),
        ("tests mnist early", "2"),
    ],
)
def test_marks_read_what_they_name(words, text, runs):
    assert filled(words, runs) == text


def test_the_table_has_a_column_a_part_and_no_number_where_a_method_did_not_run(runs):
    lines = filled("areas mnist", runs).strip().splitlines()
    assert lines[0] == "|  | stopped early (loss .2) | trained out (loss .02) |"
    assert lines[2] == "| networks x tests | 5 x 2 | 20 x 10 |"
    assert lines[3:] == ["| tracking |  | 1.50 [1.25, 1.75] |", "| random | .25 [.00, .50] | 1.50 [1.25, 1.75] |"]


@pytest.mark.parametrize("words", ["area mnist wide .2f random", "gap mnist main .2f tracking minus surrogate"])
def test_what_was_not_run_is_refused(words, runs):
    with pytest.raises(ValueError, match="no row has"):
        filled(words, runs)
