"""The bilevel study's own words of a mark."""

from __future__ import annotations

import pandas
import pytest

from explainlib.studies.bilevel import MAKERS
from tests.studies.documents.filling import filled as filled_mark

GIVEN = {"inner": "proximal", "accuracy_solved": 0.8}
MADE = {"task influence": (0.03, 0.999, 1.0), "Gamma": (0.998, 0.6, 0.1), "direct": (1.0, float("nan"), 0.2)}


@pytest.fixture
def runs():
    rows = [
        {"seed": seed, "count": count, "method": method, "parameter_error": error, "cosine": cosine, "seconds": seconds,
         "accuracy": 0.8 - 0.01 * (seed + 1), "cold_differs": 0.4 * seed, **GIVEN}
        for seed in (0, 1)
        for count in (1, 4)
        for method, (error, cosine, seconds) in {**MADE, "solved again": (0.0, 1.0, 4.0)}.items()
    ]  # fmt: skip
    harmful = [
        {"seed": seed, "method": method, "flipped": 0.2, "inspected": inspected, "auc": 0.75, "found": inspected,
         "accuracy": 0.7, "accuracy_before": 0.6, "accuracy_clean": 0.7 + 0.02 * seed, "inner": "proximal"}
        for seed in (0, 1)
        for method in ("random", "oracle")
        for inspected in (0.25, 0.4)
    ]  # fmt: skip
    tables = {"editing": pandas.DataFrame(rows), "harmful": pandas.DataFrame(harmful)}
    tables["depth"] = pandas.DataFrame(
        {"kind": ["dense", "steps", "steps"], "steps": [0, 10, 3], "error": [0.05, 0.2, 9.96], "inner": "proximal"}
    )
    both = {
        name: pandas.concat([table.assign(run="digits"), table.assign(run="mnist")]) for name, table in tables.items()
    }
    return {"digits": tables, "hands": both}


def filled(words, runs):
    return filled_mark(words, runs, MAKERS)


def lines(words, runs):
    return filled(words, runs).strip().splitlines()


def test_a_table_of_edits_has_a_row_a_method_and_columns_by_run_and_count(runs):
    head, _, *rows = lines("editing hands proximal cosine .2f", runs)
    assert head == "|  | digits, 1 task | 4 | MNIST, 1 task | 4 |"
    assert rows[0] == "| task influence, exact " + "| .030 / 1.00 " * 4 + "|"
    assert rows[-1] == "| direct " + "| 1 / - " * 4 + "|"
    assert len(rows) == 3  # solved again is the truth, and no row
    assert lines("editing digits proximal cosine .2f", runs)[0] == "|  | 1 task | 4 |"


def test_harmful_tasks_are_read_at_their_share_inspected(runs):
    head, _, before, *rows = lines("quarter hands", runs)
    assert head == "|  | digits, 20% wrong | MNIST, 20% wrong |" and before == "| nothing removed | .600 | .600 |"
    assert [row.split(" | ")[0] for row in rows] == ["| oracle", "| random"]
    assert lines("found digits proximal", runs)[-1] == "| random | .75, .40 |"
    assert filled("oracle digits proximal 0.2", runs).startswith("+.110 [")


def test_depths_are_in_order_with_the_exact_solution_last(runs):
    assert lines("depth digits steps", runs)[::2] == [
        "| steps | 3 | 10 | exact |",
        "| relative error | 10 | .20 | .050 |",
    ]


def test_distances_shares_and_lengths(runs):
    assert filled("gap digits proximal task influence", runs).startswith(".015 [")
    assert filled("cost digits proximal task influence", runs) == "25%"  # both seeds alike
    assert filled("once digits proximal direct", runs) == "5%"
    assert filled("elsewhere digits proximal", runs) == "1 of 2 tasks, by 40%"
    assert filled("length digits Gamma", runs) == ".3% to .3%"  # .998^2 = 1 + r^2 - 1.2 r


def test_an_inner_problem_or_method_that_there_is_not_is_refused(runs):
    with pytest.raises(ValueError, match="no inner problem 'head'; choose one of proximal"):
        filled("gap digits head direct", runs)
    with pytest.raises(ValueError, match="no method 'cosine'; choose one of task influence"):
        filled("once digits proximal cosine", runs)
