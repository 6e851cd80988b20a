"""The removal study's own words of a mark."""

from __future__ import annotations

import pandas
import pytest

from explainlib.studies.removal import MAKERS
from tests.studies.documents.filling import filled as filled_mark

ROWS = pandas.DataFrame(
    [
        {"state": state, "method": method, "size": size, "seed": seed, "tasks": 8, "lds": lds / size, "error": error}
        | {"gradient": 1.0 + seed, "gradient_of_a_task": 4.0}
        for seed in (0, 1)
        for state, method, size, lds, error in (
            ("trained", "hessian", 1, 0.2, 1.5 + 20 * seed),
            ("trained", "hessian", 4, 0.2, 1.5),
            ("trained", "cosine", 1, 0.4, None),
            ("trained", "cosine", 4, 0.4, None),
            ("trained", "other batches", 4, 2.0, 0.7),
            ("near rest", "hessian", 1, 0.5, 0.9),
            ("near rest", "hessian", 4, -0.004, 0.9),
            ("near rest", "cosine", 1, 0.3 + seed / 10, None),
            ("near rest", "cosine", 4, 0.4, None),
        )
    ]
)
QUESTIONS = pandas.DataFrame(
    {"id": ["D1, small", "D2, small"], "effect": [0.4, -0.3], "low": [0.3, -0.5], "high": [0.5, -0.1],
     "verdict": ["held", "not held"]}
)  # fmt: skip


def filled(words):
    return filled_mark(words, {"small": {"removal": ROWS, "questions": QUESTIONS}}, MAKERS)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("answer small D2", "not held"),
        ("effect_of small D2 .1f", "-.3 [-.5, -.1]"),
        ("still small near rest .2f", ".25 to .50"),
    ],
)
def test_a_mark_is_filled_in(words, text):
    assert filled(words) == text


def test_scores_by_size_with_intervals_and_errors():
    rest = filled("scores small near rest")
    assert "| near rest | 1 of 8 removed | 4 | error, 1 removed |" in rest
    assert "| cosine | .35 [-.29, .99] | .10 | - |" in rest and "| exact Hessian | .50 | .00 | .90 |" in rest
    trained = filled("scores small trained")
    assert "| exact Hessian | .20 | .05 | 12, from 1.5 to 22 |" in trained
    assert "| trained again with other batches | - | .50 | - |" in trained


def test_both_states_side_by_side():
    both = filled("both small")
    assert "| exact Hessian | .20 / .50 | .05 / .00 |" in both
    assert "| trained again with other batches | - | .50 / - |" in both


@pytest.mark.parametrize(
    ("words", "message"), [("answer small D7", "no question 'D7'"), ("scores small melted", "no state 'melted'")]
)
def test_a_mark_of_what_there_is_not_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        filled(words)
