"""A number typed beyond a box's range: the nearest one is shown, and the panel says so."""

from __future__ import annotations

import pytest

from explainlib.panels import Adaptation, GroupRemoval, Removal
from explainlib.panels.number_box import NumberBox
from tests.meta.few_shot import random_tasks, tanh_maml
from tests.problems import digits_risk, digits_test


@pytest.fixture(scope="module")
def removal():
    return Removal(digits_risk(), digits_test())


@pytest.mark.parametrize(("typed", "shown"), [(999, 29), (30, 29), (-1, 0)])
def test_the_panel_says_what_it_shows_instead(removal, typed, shown):
    removal.controls.test.value = typed
    assert removal.controls.test.value == shown and removal.text.startswith(f"test {shown} ")
    said = f"There are 30 test examples, 0 to 29; showing {shown}."
    assert said in removal.controls.message.value and "&#9888;" in removal.controls.message.value
    removal.controls.test.value = 3
    assert "There are" not in removal.controls.message.value


def test_a_number_beyond_the_end_is_answered_again(removal):
    for _ in range(2):
        removal.controls.test.value = 29
        removal.controls.test.value = 100
        assert "showing 29" in removal.controls.message.value


def test_seeds_have_a_range_of_their_own():
    panel = GroupRemoval(digits_risk(), digits_test())
    panel.controls.seed.value = 123456
    assert panel.controls.seed.value == 9999 and "(seed 9999)" in panel.text
    assert "seed 123456 is not from 0 to 9999; showing 9999." in panel.controls.message.value
    assert "(seed 123456)" in panel.set(seed=123456) and panel.controls.seed.value == 123456


def test_tasks_too():
    panel = Adaptation(tanh_maml(), tanh_maml().w0, random_tasks())
    panel.controls.task.value = 99
    assert panel.text.startswith("task 5,")
    assert "There are 6 tasks, 0 to 5; showing 5." in panel.controls.message.value


def test_its_label_carries_the_range():
    assert NumberBox("test task", 47).description == "test task, 0 to 47"
    assert NumberBox("task", 0).answer(3) == "There is 1 task, number 0; showing 0."
    assert NumberBox("task", 4).answer(4) == "" and NumberBox("task", 4).answer(0) == ""
