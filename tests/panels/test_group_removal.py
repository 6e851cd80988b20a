"""The group panel, driven as a notebook cell drives it and as a mouse does."""

from __future__ import annotations

import re

import pytest
import torch

import explainlib as xl
from explainlib.panels.controls import positions_in
from explainlib.panels.group_removal.panel import GroupRemoval
from explainlib.panels.group_removal.plots import group_curve
from explainlib.panels.html import LIGHTS, trust_light
from explainlib.panels.svg import nice_ticks
from tests.problems import numbers


@pytest.fixture
def panel(risk, test_digits):
    return GroupRemoval(risk, test_digits)


@pytest.mark.parametrize("weighting", ["preserve", "plain"])
def test_the_numbers_are_the_librarys(risk, test_digits, weighting):
    panel = GroupRemoval(risk, test_digits, weighting=weighting)
    text = panel.set(test=4, group="3", k=12)
    one, group = test_digits[[4]], [panel.group()]
    effects = [xl.influence.removal_effect(risk, group, order=o, weighting=weighting) for o in (1, 2, "newton")]
    expected = [effect.loss_change(one).item() for effect in effects]
    assert numbers(text) == pytest.approx(expected, abs=6e-4)
    words = xl.influence.series_trust(effects[1]).words[0]
    assert words in text and words.split(" (")[0] in panel.controls.light.value
    truth = xl.retraining.leave_out(risk, group, weighting=weighting).loss_change(one).item()
    assert numbers(panel.verify()) == pytest.approx([*expected, truth], abs=6e-4)
    assert f"{truth:+.3f}" in panel.controls.truth.value and f"{truth:+.3f}" in panel.controls.prediction.value


@pytest.mark.parametrize("group", ["random", "3", "greedy"])
def test_groups_are_nested_as_the_slider_moves(panel, group):
    panel.set(group=group, k=5)
    small = panel.group()
    panel.controls.slider.value = 60
    assert len(panel.group()) == 60 and panel.group()[:5] == small


def test_a_class_spills_into_the_next_ones(panel, risk):
    own = int((risk.train.y == 9).sum())
    panel.set(group="9", k=own)
    assert set(risk.train.y[panel.group()].tolist()) == {9} and "next" not in panel.text
    panel.set(k=own + 3)
    assert set(risk.train.y[panel.group()].tolist()) == {9, 0} and "and the next ones" in panel.text


def test_seeds_change_random_groups(panel):
    first = panel.group()
    panel.set(seed=1)
    assert panel.group() != first and "(seed 1)" in panel.text
    panel.controls.seed.value = 0
    assert panel.group() == first


def test_selected_groups_are_the_librarys_for_this_test_example(panel, risk, test_digits):
    panel.set(test=2, group="greedy", k=8)
    one = test_digits[[2]]
    assert panel.group() == xl.influence.influential_group(risk, one, 8, method="greedy").tolist()
    panel.set(group="relaxed", k=8)
    assert panel.group() == xl.influence.influential_group(risk, one, 8, method="relaxed").tolist()
    assert not panel.controls.slider.continuous_update
    panel.set(k=9)
    assert len(panel.group()) == 9 and panel.controls.curve.value.count("<polyline") == 6  # three of them: the legend
    panel.set(test=3, group="greedy", k=8)
    assert panel.group() == xl.influence.influential_group(risk, test_digits[[3]], 8, method="greedy").tolist()
    assert panel.controls.slider.continuous_update


def test_a_group_picked_by_hand(panel):
    panel.set(group=[5, 9, 11])
    assert panel.group() == [5, 9, 11] and panel.controls.slider.max == 3
    panel.controls.slider.value = 2
    assert panel.group() == [5, 9]
    panel.controls.hand.value = "3, 17, 40-43"
    assert panel.group() == [3, 17, 40, 41, 42, 43] and "6 picked by hand" in panel.text
    panel.set(group="random", k=50)
    assert panel.controls.slider.max == 120 and panel.controls.hand.layout.display == "none"


def test_the_widgets_forward(panel):
    before = panel.controls.prediction.value, panel.controls.curve.value
    panel.controls.slider.value = 70
    assert len(panel.group()) == 70
    assert before[0] != panel.controls.prediction.value and before[1] != panel.controls.curve.value
    panel.controls.how.value = "class"
    panel.controls.class_name.value = "8"
    assert "of class 8" in panel.text
    panel.controls.test.value = 3
    assert panel.text.startswith("test 3 ")
    panel.controls.how.value = "hand"
    assert len(panel.group()) == 10
    panel.controls.retrain.click()
    assert "retrained" in panel.controls.truth.value


def test_the_truth_stays_on_its_own_curve(panel):
    def crosses():
        return panel.controls.curve.value.count("class='xl-cross'") - 1  # one is the legend's

    panel.set(group="3", k=20)
    panel.verify()
    assert crosses() == 1
    panel.controls.slider.value = 15
    assert crosses() == 1 and "retrained" not in panel.controls.truth.value and "retrained" not in panel.text
    panel.verify()
    assert crosses() == 2
    panel.set(test=1)
    assert crosses() == 0
    panel.set(test=0)
    assert crosses() == 2
    panel.set(group="random")
    assert crosses() == 0


def test_reset_goes_back_and_forgets(panel):
    start, curve = panel.text, panel.controls.curve.value
    panel.verify()
    panel.set(group="greedy", k=40, seed=3, test=2)
    panel.controls.reset.click()
    assert panel.text == start and panel.controls.curve.value == curve
    assert "Retrained: nothing yet" in curve


def test_the_curve_passes_through_the_present_predictions(panel):
    """At a size of the grid, one by one and all at once are the same numbers."""
    panel.set(group="3", k=30)
    here = {column.name: column.value - panel._columns[0].value for column in panel._columns[1:]}
    assert 30 in panel._sizes(panel._choice)
    assert {name: points[30] for name, points in panel._family.points.items()} == pytest.approx(here, abs=1e-9)


def test_the_curve_follows_the_test_example(panel, risk, test_digits):
    panel.set(group="3", k=30)
    panel.set(test=5)
    change = xl.influence.removal_effect(risk, [panel.group()], order=2).loss_change(test_digits[[5]]).item()
    assert panel._family.points["second order"][30] == pytest.approx(change, abs=1e-9)


def test_the_light_follows_the_series(panel):
    """One example at random, or more than a whole class."""

    def light(**choice):
        word = panel.set(**choice).splitlines()[-1].removeprefix("the series is ").split(" (")[0]
        assert f"<b>{word}</b>" in panel.controls.light.value
        return list(LIGHTS).index(word)

    assert light(group="random", k=1) < light(group="3", k=25)


@pytest.mark.parametrize("word", ["trusted", "slow", "doubtful", "not trusted"])
def test_every_diagnosis_has_its_own_sign(word):
    boxes = {w: trust_light(f"{w} (ratio 1 < 2): so") for w in LIGHTS}
    assert f"<b>{word}</b>" in boxes[word] and "1 &lt; 2" in boxes[word]
    assert len({re.search(r"&#\d+;", box).group() for box in boxes.values()}) == 4


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"test": 99}, "outside the 30 test examples"),
        ({"group": "ten"}, "group='ten' is neither 'random', 'greedy', 'relaxed'"),
        ({"group": "3", "k": 0}, "k=0"),
        ({"k": 150}, "k=150 is more than the 120"),
        ({"group": [1, 2], "k": 3}, "k=3 is more than the 2"),
        ({"group": [1, 1]}, "twice"),
        ({"group": [200]}, "outside the 200"),
        ({"group": []}, "empty"),
        ({"group": list(range(200))}, "all 200 training examples"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_a_mistake_in_code_is_an_error_and_changes_nothing(panel, choice, says):
    before, group = panel.text, panel.group()
    with pytest.raises(ValueError, match=re.escape(says)):
        panel.set(**choice)
    assert panel.text == before and panel.group() == group


@pytest.mark.parametrize(
    ("typed", "says"),
    [("3, four", "&#x27;four&#x27; is no position"), ("9-4", "backwards"), (" ", "no positions"), ("999", "outside")],
)
def test_a_mistake_of_the_hand_is_a_message_and_changes_nothing(panel, typed, says):
    panel.set(group=[5, 6])
    before = panel.text
    panel.controls.hand.value = typed
    assert says in panel.controls.message.value and "&#9888;" in panel.controls.message.value
    assert panel.text == before and panel.controls.hand.value == "5, 6"


def test_a_failure_half_way_changes_nothing(panel, monkeypatch):
    panel.set(group="3", k=20)
    before, curve = panel.text, panel.controls.curve.value

    def fails(*_, **__):
        raise RuntimeError("the solve did not converge")

    with monkeypatch.context() as broken:
        broken.setattr("explainlib.panels.group_removal.panel.series_trust", fails)
        panel.controls.slider.value = 33
        assert "did not converge" in panel.controls.message.value
        with pytest.raises(RuntimeError):
            panel.set(group="random")
    assert panel.text == before and panel.controls.slider.value == 20
    panel.draw()
    assert panel.text == before and panel.controls.curve.value == curve


def test_positions_in_a_line_of_text():
    assert positions_in("3, 17 40-42") == [3, 17, 40, 41, 42]


def test_warnings_are_shown_in_the_light_only(panel, recwarn):
    panel.set(group="3", k=120)
    panel.verify()
    assert not [w for w in recwarn if issubclass(w.category, xl.influence.SeriesWarning)]


def test_the_curve_is_one_picture_with_words():
    series = {"first order": {10: 0.1, 20: 0.2, 80: 9.0}, "second <order>": {10: 0.1, 20: 0.3, 80: 90.0}}
    picture = group_curve(series, {"first order": 0.15, "second <order>": -0.2}, {12: 0.1, 70: 7.0}, 15, 20)
    assert "role='img'" in picture and "At 15: first order +0.150, second &lt;order&gt; -0.200." in picture
    assert "+0.100 at 12" in picture and "at 70" not in picture and "<order>" not in picture
    places = [float(y) for y in re.findall(r"[ ']\d+\.?\d*,(-?\d+\.?\d*)", picture)]
    assert places and all(0 <= y <= 322 for y in places)


@pytest.mark.parametrize(("low", "high"), [(0.0, 900.0), (-0.3, 4.7), (-1e-3, 1e-3), (0.0, 3.0)])
def test_ticks_are_round_and_inside(low, high):
    ticks = nice_ticks(low, high, 5)
    assert 3 <= len(ticks) <= 12 and all(low - 1e-9 <= t <= high + 1e-9 for t in ticks)
    assert [float(f"{t:.1g}") for t in ticks[:2]] == pytest.approx(ticks[:2])


def test_what_is_no_classifier_is_refused(risk, test_digits):
    with pytest.raises(TypeError):  # said in full by tests/test_errors.py, which runs without the type checker
        GroupRemoval(torch.zeros(3), test_digits)
    y = torch.nn.functional.one_hot(risk.train.y, 10).double()
    squares = xl.Risk(risk.model, xl.datasets.Examples(risk.train.x, y), loss="squared_error", l2=1e-2)
    with pytest.raises(ValueError, match="cross_entropy"):
        GroupRemoval(squares, test_digits)


def test_its_text_stands_for_it_where_widgets_cannot_be_shown(panel):
    bundle = panel._repr_mimebundle_()
    assert bundle["text/plain"].startswith("GroupRemoval panel: test 0")
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_user_text_is_escaped(risk, test_digits):
    names = tuple(f"<b>{c}" for c in range(10))
    train = xl.datasets.Examples(risk.train.x, risk.train.y, names)
    panel = GroupRemoval(xl.Risk(risk.model, train, l2=1e-2), xl.datasets.Examples(test_digits.x, test_digits.y, names))
    assert "P(<b>" not in panel.controls.prediction.value and "P(&lt;b&gt;" in panel.controls.prediction.value
    assert "<b>" not in panel.controls.example.value
