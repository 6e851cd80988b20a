"""The words of a mark: what each is filled in with, and what is refused."""

from __future__ import annotations

import pandas
import pytest

from explainlib.studies.documents import fill_document
from explainlib.studies.documents.words import number_text
from tests.studies.documents.filling import filled as filled_mark

TABLE = pandas.DataFrame(
    {
        "seed": [0, 0, 1, 1, 2, 2],
        "method": ["influence", "random"] * 3,
        "n": 1040,
        "share": 0.1,
        "kept": [512.0, float("nan")] * 3,
        "score": [0.1, 0.0, 0.2, 0.1, 0.6, 0.2],
        "first": [True, False, True, True, False, False],
    }
)
BOARD = pandas.DataFrame(
    {"id": ["R1", "R2"], "effect": [0.02, None], "low": [-0.01, None], "high": [0.05, None], "clusters": [6, 6],
     "verdict": ["held", "undecided"], "reason": ["close", "far"]}
)  # fmt: skip
CLAIMS = BOARD.assign(verdict="not held", effect=-0.5)


def filled(words, makers=None):
    return filled_mark(words, {"mnist": {"scores": TABLE, "claims": CLAIMS}}, makers, BOARD)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("value mnist scores n one ,d", "1,040"),
        ("value mnist scores method one s method=random", "random"),
        ("value mnist scores score mean .2f method=influence", ".30"),
        ("value mnist scores score median .2f method=influence; share=0.1", ".20"),
        ("value mnist scores score least .2f", ".00"),
        ("value mnist scores score largest .0%", "60%"),
        ("value mnist scores score sum .1f", "1.2"),
        ("value mnist scores first share .2f", ".50"),
        ("value mnist scores - rows d first=True", "3"),
        ("value mnist scores - rows d kept=nan", "3"),
        ("value mnist scores - rows d kept=512", "3"),
        ("value mnist scores seed different d", "3"),
        ("value mnist scores score range .1f method=influence", ".1 to .6"),
        ("value mnist scores score each .2f", ".05, .15, .40"),
        ("value mnist scores score ends .2f", ".05 to .40"),
        ("value mnist scores score interval .2f method=influence", ".30 [-.36, .96]"),
        ("value mnist scores score interval .2f method=influence minus random", ".20 [-.23, .63]"),
        ("value mnist scores score typical .2f method=random", ".10 [-.15, .35]"),
        ("value mnist scores score interval .2f method=influence; seed=0", ".10"),
        ("effect R1 .2f", ".02 [-.01, .05]"),
        ("effect mnist R1 .1f", "-.5 [-.0, .1]".replace("-.0", ".0")),
        ("ends R1 .2f", "-.01 to .05"),
        ("verdict R1", "held"),
        ("verdict mnist R1", "not held"),
    ],
)
def test_a_mark_is_filled_in(words, text):
    assert filled(words) == text


def test_the_mean_of_seeds_is_taken_before_their_interval():
    uneven = pandas.concat([TABLE, TABLE[TABLE["seed"] == 2], TABLE[TABLE["seed"] == 2]])
    both = (
        fill_document("<!--value a s score interval .3f--><!--/-->", {"a": {"s": t}}, BOARD) for t in (TABLE, uneven)
    )
    assert len(set(both)) == 1


def test_other_words_a_study_s_own_typed_numbers_and_all_verdicts():
    makers = {"rows": lambda tables, rest: f"{len(tables['scores'])} {rest}"}
    assert filled("rows mnist of them", makers=makers) == "6 of them"
    assert filled("typed python -m benchmarks.tasks") == "x"
    assert "| R2 " in filled("verdicts R") and "no interval" in filled("verdicts R")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("nothing mnist", "begins with 'nothing'; choose one of value, effect"),
        ("value cifar scores n one d", "no run 'cifar'; choose one of mnist"),
        ("value mnist areas n one d", "no table 'areas'; choose one of scores"),
        ("value mnist scores m one d", "no column 'm'; choose one of seed"),
        ("value mnist scores n one d m=1", "no column 'm'"),
        ("value mnist scores n all d", "not read by 'all'; choose one of rows, one"),
        ("value mnist scores n one", "too few; name column, how and form"),
        ("value mnist scores score one .2f", "score has 4 values"),
        ("value mnist scores n one d method=first", "no row has method=first"),
        ("effect R7 .2f", "no claim 'R7'; choose one of R1, R2"),
    ],
)
def test_a_mark_of_what_there_is_not_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        filled(words)


@pytest.mark.parametrize(
    ("value", "form", "text"),
    [(0.5, ".2f", ".50"), (-0.5, ".1f", "-.5"), (-0.001, ".2f", ".00"), (10.25, ".1f", "10.2"), (0.5, "+.1f", "+.5"),
     (-0.5, "abs.1f", ".5"), (0, "d", "0"), (0.004, ".0%", "0%"), (2e-12, ".0e", "2e-12")],
)  # fmt: skip
def test_numbers_lose_the_zero_before_the_point(value, form, text):
    assert number_text(value, form) == text
