"""The removal panels on another measure than the loss: predictions, truth, words and signs."""

from __future__ import annotations

import pytest
import torch

import explainlib as xl
from explainlib.panels import GroupRemoval, Removal
from tests.problems import numbers

T = 4


def squared_output(outputs, y):
    return outputs.gather(1, y[:, None])[:, 0] ** 2


def by_hand(outputs, y, measure):
    """The measure of one example, [C] -> number, written out."""
    own, others = outputs[y], torch.cat([outputs[:y], outputs[y + 1 :]])
    return {
        "output": own,
        "margin": own - others.exp().sum().log(),
        squared_output: own**2,
    }[measure]


NAMES = {"output": "output of the label", "margin": "margin", squared_output: "squared_output"}


@pytest.mark.parametrize("measure", NAMES)
@pytest.mark.parametrize("kind", [Removal, GroupRemoval])
def test_prediction_and_truth_are_of_the_measure(risk, test_digits, kind, measure):
    panel, one = kind(risk, test_digits, weighting="plain", measure=measure), test_digits[[T]]
    text = panel.set(test=T, k=30) and panel.verify()
    group, y = [panel.group()], int(one.y)
    first = xl.influence.removal_effect(risk, group, weighting="plain")
    newton = xl.influence.removal_effect(risk, group, order="newton", weighting="plain")
    truth = xl.retraining.leave_out(risk, group, weighting="plain")
    now = by_hand(risk.outputs(one)[0], y, measure)
    found = [by_hand(each.outputs(one)[0, 0], y, measure) - now for each in (first, newton, truth)]
    said = numbers(text)
    assert said[0] == pytest.approx(float(found[0]), abs=6e-4)
    assert said[-2:] == pytest.approx([float(value) for value in found[1:]], abs=6e-4)
    assert f"{NAMES[measure]} now {float(now):.3f}" in text and "loss" not in text
    name = NAMES[measure]
    assert f"the {name} of this test example changes by {float(found[2]):+.3f}" in panel.controls.truth.value
    assert name in panel.controls.prediction.value and "loss" not in panel.controls.prediction.value


@pytest.mark.parametrize("measure", NAMES)
def test_harmful_digits_lower_the_measure(risk, test_digits, measure):
    """More of them lowers it, so it rises when they leave: the other way round than with the loss."""
    panel = Removal(risk, test_digits, measure=measure)
    panel.set(test=T, remove="harmful", k=10)
    influence = xl.influence.loss_influence(risk, test_digits[[T]], measure=measure)[0]
    assert panel.group() == influence.argsort(stable=True)[:10].tolist()
    assert numbers(panel.verify())[-1] > 0 and f"they lower the {NAMES[measure]}" in panel.text
    panel.set(remove="helpful")
    assert numbers(panel.verify())[-1] < 0 and f"they raise the {NAMES[measure]}" in panel.text


def test_the_margin_and_the_loss_agree_on_who_harms(risk, test_digits):
    """The margin is log(p / (1 - p)), the loss -log p: one falls where the other rises."""
    panels = [Removal(risk, test_digits, measure=measure) for measure in ("loss", "margin")]
    for panel in panels:
        panel.set(test=T, remove="harmful", k=12)
    assert panels[0].group() == panels[1].group()


def test_axes_and_alternative_texts_name_the_measure(risk, test_digits):
    removal = Removal(risk, test_digits, measure="margin")
    removal.verify()
    assert "Predicted against retrained change of margin" in removal.controls.plot.value
    group = GroupRemoval(risk, test_digits, measure="margin")
    curve = group.controls.curve.value
    assert "aria-label='Change of margin against" in curve and ">change of margin</text>" in curve
    plain = GroupRemoval(risk, test_digits).controls.curve.value
    assert ">change of test loss</text>" in plain


def test_the_curve_of_another_measure_passes_through_the_present_predictions(risk, test_digits):
    panel = GroupRemoval(risk, test_digits, measure="margin")
    panel.set(group="random", k=panel.most)  # a size of the grid
    for column in panel._columns[1:]:
        change = column.value - panel._columns[0].value
        assert panel._family.points[column.name][panel.most] == pytest.approx(change, abs=1e-12)


def test_groups_that_are_selected_say_that_the_loss_selected_them(risk, test_digits):
    panel = GroupRemoval(risk, test_digits, measure="margin")
    assert "one by one by the loss" in panel.set(group="greedy", k=3)
    assert "by the loss" not in GroupRemoval(risk, test_digits).set(group="greedy", k=3)


def test_float32_says_the_same(risk, test_digits):
    split = xl.datasets.load("digits", limit=200)
    single = xl.training.minimise(xl.Risk(xl.models.logistic(64, 10).float(), split.train, l2=1e-2))
    said = [
        numbers(panel.set(test=T, remove=list(range(20))) and panel.verify())
        for panel in (Removal(r, t, measure="margin") for r, t in ((risk, test_digits), (single, split.test[:30])))
    ]
    assert len(said[0]) == 3 and said[1] == pytest.approx(said[0], abs=3e-3)


@pytest.mark.parametrize("kind", [Removal, GroupRemoval])
@pytest.mark.parametrize(
    ("measure", "says"), [("logit", "measure='logit'"), (lambda f, y: f.mean(), "one per example")]
)
def test_wrong_measures_are_refused(risk, test_digits, kind, measure, says):
    with pytest.raises(ValueError, match=says):
        kind(risk, test_digits, measure=measure)
