"""A student's minute with the adaptation panel: another length by keyboard, the steps taken, a task that is not there."""

from __future__ import annotations

import re

import pytest

NOTEBOOK = "05_meta_learning_primer.ipynb"


@pytest.mark.timeout(500)
@pytest.mark.flaky(reruns=1)
def test_the_adaptation_panel_works_in_jupyterlab(page, open_and_run_all, screenshot):
    from playwright.sync_api import expect

    open_and_run_all(page, NOTEBOOK)
    panel = page.locator(".xl-adaptation-panel").first
    panel.scroll_into_view_if_needed()
    panel.get_by_role("button", name="Reset").click()  # the notebook's cells leave another choice
    table, truth, picture = panel.locator(".xl-table"), panel.locator(".xl-truth"), panel.locator(".xl-plot img")
    expect(table).to_contain_text("?")
    handle = panel.locator(".xl-steps .noUi-handle")
    handle.focus()
    for _ in range(2):
        handle.press("ArrowRight")
    expect(picture).to_have_attribute("alt", re.compile("at length 0.9"))  # three steps of 0.3: both keys have arrived
    panel.get_by_role("button", name="Adapt", exact=True).click()
    expect(truth).to_contain_text("adapted:")
    expect(table).not_to_contain_text("?")
    expect(panel).to_contain_text("adapted in")  # the last line to change
    screenshot(panel, "adaptation_panel_lab")

    box = panel.get_by_role("spinbutton")
    box.fill("999")
    box.press("Enter")
    expect(panel).to_contain_text("0 to 127; showing 127")
    expect(box).to_have_value("127")
    expect(truth).not_to_contain_text("adapted")
    assert panel.get_by_label("task, 0 to 127").count() == 1
