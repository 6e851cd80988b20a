"""The panel, driven as a notebook cell drives it and as a mouse does."""

from __future__ import annotations

import re

import pytest
import torch

import explainlib as xl
from explainlib.panels.removal import Removal
from tests.problems import numbers


@pytest.fixture
def panel(risk, test_digits):
    return Removal(risk, test_digits)


def test_the_numbers_are_the_librarys(panel, risk, test_digits):
    text = panel.set(test=4, remove="harmful", k=7)
    order = xl.influence.loss_influence(risk, test_digits[[4]])[0].argsort(descending=True)
    group = [order[:7].tolist()]
    assert panel.group() == group[0]
    one = test_digits[[4]]
    first = xl.influence.removal_effect(risk, group, order=1, weighting="plain").loss_change(one).item()
    newton = xl.influence.removal_effect(risk, group, order="newton", weighting="plain").loss_change(one).item()
    assert numbers(text) == pytest.approx([first, newton], abs=6e-4)
    truth = xl.retraining.leave_out(risk, group, weighting="plain").loss_change(one).item()
    assert numbers(panel.verify())[-1] == pytest.approx(truth, abs=6e-4)
    assert "retrained" in panel.controls.truth.value and f"{truth:+.3f}" in panel.controls.truth.value


def test_a_weight_counts_in_who_leaves_first(risk, test_digits):
    """Removing takes all of an example's weight: influence times weight, and the linear prediction, rank alike."""
    weights = torch.linspace(0.2, 3, risk.n, dtype=risk.theta.dtype)
    weighted = xl.training.minimise(risk.reweighted(weights))
    panel = Removal(weighted, test_digits)
    panel.set(test=4, remove="harmful", k=5)
    each = xl.influence.removal_effect(weighted, [[i] for i in range(risk.n)], weighting="plain")
    falls = each.loss_change(test_digits[[4]], evaluate=False)[0]
    assert panel.group() == falls.argsort()[:5].tolist()
    assert (
        panel.group()
        != xl.influence.loss_influence(weighted, test_digits[[4]])[0].argsort(descending=True)[:5].tolist()
    )


def test_harmful_leaves_lower_the_loss_and_helpful_ones_raise_it(panel):
    assert numbers(panel.set(remove="harmful", k=10) and panel.verify())[-1] < 0
    panel.set(remove="helpful")
    assert numbers(panel.verify())[-1] > 0


def test_a_class_by_name_leaves_its_own_members_only(panel, risk):
    panel.set(remove="3", k=6)
    assert len(panel.group()) == 6
    assert set(risk.train.y[panel.group()].tolist()) == {3}


def test_picks_by_hand(panel):
    panel.set(remove=[5, 9])
    assert panel.group() == [5, 9]
    assert panel.controls.slider.disabled
    assert panel.controls.hand.layout.display is None


@pytest.mark.parametrize("weighting", ["plain", "preserve"])
def test_weighting_reaches_prediction_and_truth(risk, test_digits, weighting):
    panel = Removal(risk, test_digits, weighting=weighting)
    panel.set(k=20)
    truth = xl.retraining.leave_out(risk, [panel.group()], weighting=weighting).loss_change(test_digits[[0]]).item()
    assert numbers(panel.verify())[-1] == pytest.approx(truth, abs=6e-4)


def test_the_widgets_forward(panel):
    before = panel.controls.prediction.value
    panel.controls.slider.value = 25
    assert len(panel.group()) == 25 and panel.controls.prediction.value != before
    panel.controls.how.value = "helpful"
    assert "helpful" in panel.text
    panel.controls.test.value = 3
    assert panel.text.startswith("test 3 ")
    panel.controls.how.value = "class"
    panel.controls.class_name.value = "8"
    assert "of class 8" in panel.text
    panel.controls.how.value = "hand"
    first = [i for i, pick in enumerate(panel.controls.picks) if pick.value]
    panel.controls.picks[(first[0] + 1) % len(panel.controls.picks)].value = True
    assert len(panel.group()) == 2
    panel.controls.retrain.click()
    assert "retrained" in panel.controls.truth.value


def test_dragging_takes_the_truth_away_and_reset_goes_back(panel):
    start = panel.text
    panel.set(k=30)
    panel.verify()
    grown = panel.controls.plot.value
    panel.controls.slider.value = 31
    assert "retrained" not in panel.controls.truth.value and "retrained" not in panel.text
    panel.controls.reset.click()
    assert panel.text == start and panel.controls.plot.value != grown
    assert 'alt="Predicted against retrained' in panel.controls.plot.value
    assert "No removal was retrained yet" in panel.controls.plot.value and "removal 1: retrained" in grown


def test_a_mistake_of_the_mouse_is_a_message_and_changes_nothing(panel):
    panel.set(remove=[5])
    for pick in panel.controls.picks:
        pick.value = False
    picked = [pick for pick in panel.controls.picks if pick.value]
    assert panel.group() and len(picked) <= 1
    panel.set(remove=panel._candidates()[:1])
    panel.controls.picks[0].value = False  # nothing is left
    assert "nothing is picked" in panel.controls.message.value
    assert len(panel.group()) == 1


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"test": 99}, "outside the 30 test examples"),
        ({"remove": "ten"}, "neither 'harmful'"),
        ({"k": 0}, "k=0"),
        ({"k": 150}, "k=150 is more than"),
        ({"remove": [1, 1]}, "twice"),
        ({"remove": [200]}, "outside the 200"),
    ],
)
def test_a_mistake_in_code_is_an_error_and_changes_nothing(panel, choice, says):
    before = panel.text
    with pytest.raises(ValueError, match=re.escape(says)):
        panel.set(**choice)
    assert panel.text == before


def test_what_is_no_classifier_is_refused(risk, test_digits):
    with pytest.raises(TypeError):  # said in full by tests/test_errors.py, which runs without the type checker
        Removal(torch.zeros(3), test_digits)
    y = torch.nn.functional.one_hot(risk.train.y, 10).double()
    squares = xl.Risk(risk.model, xl.datasets.Examples(risk.train.x, y), loss="squared_error", l2=1e-2)
    with pytest.raises(ValueError, match="cross_entropy"):
        Removal(squares, test_digits)


def test_its_text_stands_for_it_where_widgets_cannot_be_shown(panel):
    bundle = panel._repr_mimebundle_()
    assert bundle["text/plain"].startswith("Removal panel: test 0")
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_user_text_is_escaped(risk, test_digits):
    names = tuple(f"<b>{c}" for c in range(10))
    train = xl.datasets.Examples(risk.train.x, risk.train.y, names)
    test = xl.datasets.Examples(test_digits.x, test_digits.y, names)
    panel = Removal(xl.Risk(risk.model, train, l2=1e-2), test)
    assert "<b>1" not in panel.controls.prediction.value and "&lt;b&gt;" in panel.controls.prediction.value
