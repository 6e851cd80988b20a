"""The long lesson in one kernel: every widget is moved to its next value."""

import ipywidgets
import pytest

from benchmarks.interactions import next_value


@pytest.mark.parametrize(
    ("widget", "expected"),
    [
        (ipywidgets.Dropdown(options={"one": 1, "two": 2}, value=2), [1, 2]),
        (ipywidgets.Dropdown(options=[("one", 1), ("two", 2)], value=1), [2, 1]),
        (ipywidgets.SelectionSlider(options=[8, 16, 32], value=16), [32, 8]),
        (ipywidgets.IntSlider(min=1, max=5, step=2, value=3), [5, 1]),
        (ipywidgets.BoundedIntText(min=0, max=1, value=0), [1, 0]),
        (ipywidgets.ToggleButton(value=True), [False, True]),
    ],
)
def test_a_widget_goes_on_to_its_next_value_and_round(widget, expected):
    seen = []
    for _ in expected:
        widget.value = next_value(widget)
        seen.append(widget.value)
    assert seen == expected
