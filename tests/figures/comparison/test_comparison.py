"""The figures of the comparison say in words what they draw, and the chart's words are its drawing."""

from __future__ import annotations

import pandas
import pytest
import torch

from explainlib.datasets import Examples
from explainlib.figures import alt_text, png
from explainlib.figures.comparison import (
    STEPS,
    agreement_by_steps,
    agreement_table,
    chart_words,
    cost_and_agreement,
    decision_chart,
    ranked_by_method,
    verdict_bars,
)

TABLE = pandas.DataFrame(
    {"(1) at\nrest": [0.9, 0.2, 1.0], "(2) short": [0.1, 0.8, float("nan")]}, index=["exact", "plain", "control"]
)


def texts(picture):
    return [text.get_text() for ax in picture.axes for text in ax.texts]


def test_a_row_of_thumbnails_begins_with_the_most_harmful():
    train = Examples(torch.rand(5, 64), torch.tensor([0, 1, 0, 1, 0]), ("4", "9"))
    scores = {"a": torch.tensor([0.0, 3.0, 1.0, 2.0, -1.0]), "b": torch.tensor([5.0, 0.0, 0.0, 0.0, 1.0])}
    marked = torch.tensor([False, True, False, False, True])
    picture = ranked_by_method(train, scores, explained=train[[3]], k=2, marked=marked)
    assert "a: #1 *, #3; b: #0, #4 *." in alt_text(picture)
    assert {"#1 9 *", "#3 9", "#0 4", "#4 4 *", "a", "b", "explained:", "9"} <= set(texts(picture))
    assert "*" not in alt_text(ranked_by_method(train, scores, explained=train[[3]], k=2))


def test_the_star_goes_to_the_best_that_competes():
    picture = agreement_table(TABLE, controls=["control"])
    assert texts(picture) == ["0.90 *", "0.10", "0.20", "0.80 *", "1.00", "-"]
    assert "(1) at rest: exact 0.90; (2) short: plain 0.80" in alt_text(picture)
    assert "1.00 *" in texts(agreement_table(TABLE.iloc[:, :1]))


def test_lines_and_marks_at_rest_are_those_given():
    lines = {"plain": {3: 0.9, 30: 0.4}, "clock": {3: 0.95, 30: 0.96}}
    picture = agreement_by_steps(lines, at_rest={"plain": 0.3, "clock": 0.99})
    drawn = [line.get_ydata() for line in picture.axes[0].lines]
    assert [list(drawn[0]), list(drawn[1]), list(drawn[2])] == [[0.9, 0.4], [0.3], [0.95, 0.96]]
    assert "plain 0.90 at 3, 0.40 at 30, 0.30 at rest" in alt_text(picture)


def test_names_of_marks_do_not_lie_on_each_other():
    passes = {"exact": [1000, 1000], "plain": [1, 1], "control": [1, 1]}
    picture = cost_and_agreement(passes, TABLE.fillna(0.8))
    right = {text.get_text(): text.get_position()[1] for text in picture.axes[1].texts}
    assert abs(right["plain"] - right["control"]) >= 0.06
    assert "(2) short: exact 1,000, 0.10; plain 1, 0.80; control 1, 0.80" in alt_text(picture)


def test_the_chart_and_its_words_have_every_step():
    words, picture = chart_words(), decision_chart()
    assert alt_text(picture) == words.replace("\n", " ")
    drawn = " ".join(" ".join(texts(picture)).split())
    for number, step in enumerate(STEPS, start=1):
        assert f"{number}. {step.question} Yes: {step.answer}." in words
        assert f"{number} {step.question}" in drawn and step.answer in drawn and step.call in drawn
    assert png(picture)[:4] == b"\x89PNG"


@pytest.mark.parametrize("text", [text for step in STEPS for text in step])
def test_the_chart_s_texts_are_short_enough_for_their_boxes(text):
    assert len(text) <= 66


def test_bars_count_the_verdicts_of_each_paper():
    board = pandas.DataFrame({"id": ["T1", "T2", "B1"], "verdict": ["held", "undecided", "not held"]})
    picture = verdict_bars(board)
    assert "TLXML 1 held, 1 undecided; Ren ; Epifano ; Tsai ; Basu 1 not held" in alt_text(picture)
    assert sorted(texts(picture)) == ["1", "1", "1"]
