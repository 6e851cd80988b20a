"""The adaptation panel, driven as a notebook cell drives it and as a mouse does; and the primer's figures."""

from __future__ import annotations

import re

import pytest
import torch

import explainlib as xl
from explainlib.figures import alt_text, png
from explainlib.figures.primer import step_line, training_curves
from explainlib.panels.adaptation import Adaptation
from tests.meta.few_shot import random_tasks, smooth_protonet, tanh_maml
from tests.problems import numbers


@pytest.fixture
def panel():
    learner = tanh_maml()
    return Adaptation(learner, learner.w0 + 0.2, random_tasks())


def test_the_truth_is_the_learners(panel):
    panel.set(task=3, steps=4, inner_lr=0.5)
    truth = xl.meta.Maml(panel.learner.given, inner_lr=0.5, steps=4)
    loss, right = float(truth.losses(panel.w, panel.tasks[3])), float(truth.accuracy(panel.w, panel.tasks[3]))
    assert f"adapted {loss:.3f}" in panel.verify() and f"{right:.0%} right" in panel.text.splitlines()[-1]
    assert f"loss {loss:.3f}" in panel.controls.truth.value and f"{loss:.3f}" in panel.controls.table.value


def test_the_prediction_is_the_tangent_of_the_truth(panel):
    """At a vanishing rate the two agree; the tangent scales with steps and rate."""
    panel.set(task=2, inner_lr=1e-4, steps=3)
    slope = panel._tangent()[2]
    panel.verify()
    true = (panel._truths[panel._choice][0] - panel._tangent()[0]) / 3e-4
    assert abs(true - slope) < 1e-3 * abs(slope)
    assert numbers(panel.set(inner_lr=0.5, steps=2)) == pytest.approx([slope], abs=6e-4)


def test_the_widgets_forward_and_dragging_takes_the_truth_away(panel):
    start = panel.text
    panel.controls.adapt.click()
    assert "adapted" in panel.text and "adapted:" in panel.controls.truth.value
    panel.controls.steps.value = 5
    assert "5 steps" in panel.text and "adapted" not in panel.text and "adapted:" not in panel.controls.truth.value
    panel.controls.inner_lr.value = 0.6
    assert "inner_lr 0.6" in panel.text
    panel.controls.task.value = 4
    assert panel.text.startswith("task 4,")
    panel.controls.reset.click()
    assert panel.text == start and "Adapted: nothing yet" in panel.controls.plot.value
    assert panel.controls.steps.value == 1 and panel.controls.inner_lr.value == pytest.approx(0.3)


def test_the_plot_keeps_the_truths_of_its_own_task(panel):
    panel.verify()
    panel.set(steps=3)
    panel.verify()
    assert "1 step," in panel.controls.plot.value and "3 steps" in panel.controls.plot.value
    panel.set(task=1)
    assert "Adapted: nothing yet" in panel.controls.plot.value
    panel.set(task=0)
    assert "3 steps" in panel.controls.plot.value


def test_code_may_go_beyond_the_sliders(panel):
    panel.set(steps=25, inner_lr=7.5)
    assert panel.controls.steps.value == 25 and panel.controls.inner_lr.value == pytest.approx(7.5)
    assert panel.text.startswith("task 0, 25 steps of inner_lr 7.5")


@pytest.mark.parametrize(
    ("choice", "says"),
    [({"task": 6}, "task=6 is outside the 6 tasks"), ({"steps": 0}, "steps"), ({"inner_lr": -0.1}, "inner_lr")],
)
def test_a_mistake_in_code_is_an_error_and_changes_nothing(panel, choice, says):
    before = panel.text
    with pytest.raises(ValueError, match=re.escape(says)):
        panel.set(**choice)
    assert panel.text == before


def test_steps_that_diverge_are_a_message():
    learner = xl.meta.Maml(xl.models.mlp([3, 4, 3], "relu", dtype=torch.float64), inner_lr=1e150, steps=4)
    panel = Adaptation(learner, learner.w0, random_tasks())
    panel.controls.adapt.click()
    message = panel.controls.message.value
    assert "inner step diverged" in message and "lower inner_lr" in message and "&#9888;" in message
    assert "adapted" not in panel.text


def test_only_maml_takes_steps():
    learner = smooth_protonet()
    with pytest.raises((TypeError, ValueError), match="Adaptation|Maml"):
        Adaptation(learner, learner.w0, random_tasks())


def test_its_text_stands_for_it_where_widgets_cannot_be_shown(panel):
    bundle = panel._repr_mimebundle_()
    assert bundle["text/plain"].startswith("Adaptation panel: task 0")
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_names_are_escaped():
    tasks = random_tasks(1)
    named = xl.datasets.Tasks(*tasks.arrays(), classes=[("<b>a", "b", "c")])
    panel = Adaptation(tanh_maml(), tanh_maml().w0, named)
    assert "<b>a" not in panel.controls.about.value and "&lt;b&gt;a" in panel.controls.about.value


def test_curves_show_every_batch_and_the_running_mean():
    ax = training_curves({"one": [2.0, 1.0, 0.0, 1.0], "two": [1.0] * 4}, window=2)
    assert ax.lines[0].get_ydata().tolist() == [2.0, 1.0, 0.0, 1.0]
    assert ax.lines[1].get_ydata().tolist() == [1.5, 0.5, 0.5]
    assert "one from 1.50 to 0.50" in alt_text(ax.figure)
    with pytest.raises(ValueError, match="window=25"):
        training_curves({"one": [1.0]})


def test_the_line_holds_the_prediction_and_the_truths():
    picture = step_line(1.5, -2.0, 0.3, [(0.3, 1.1, 1), (0.3, 1.0, 3), (0.9, 0.8, 3)])
    lines = picture.axes[0].lines
    assert lines[1].get_ydata() == pytest.approx([0.9]) and list(lines[3].get_ydata()) == [1.1, 1.0, 0.8]
    assert "first order 0.900 at length 0.3" in alt_text(picture) and png(picture).startswith(b"\x89PNG")


def test_the_axes_stand_still_while_one_drags():
    ends = [step_line(1.5, -2.0, at, []).axes[0].get_xlim()[1] for at in (1.5, 1.6, 1.8, 4.7)]
    assert ends == pytest.approx([2.0, 2.0, 2.0, 5.0])
