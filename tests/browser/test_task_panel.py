"""A student's minute with the task panel: prune by keyboard, ask for the truth, remove a script, mistype a number."""

from __future__ import annotations

import re

import pytest

NOTEBOOK = "06_tlxml.ipynb"


@pytest.mark.timeout(500)
@pytest.mark.flaky(reruns=1)
def test_the_task_panel_works_in_jupyterlab(page, open_and_run_all, work_the_panel, screenshot):
    from playwright.sync_api import expect

    open_and_run_all(page, NOTEBOOK)
    reset = page.locator(".xl-task-panel").first.get_by_role("button", name="Reset")
    reset.click()  # the notebook's cells leave the slider at its end
    panel = work_the_panel(page, "xl-task-panel")
    expect(panel.locator(".xl-scatter circle")).not_to_have_count(0)
    screenshot(panel, "task_panel_lab")

    ranks, keep = panel.locator(".xl-ranks svg"), panel.locator(".xl-keep .noUi-handle")
    before = ranks.get_attribute("aria-label")
    keep.focus()
    keep.press("ArrowLeft")
    expect(ranks).not_to_have_attribute("aria-label", before)
    assert re.search(r"now \d+\.", ranks.get_attribute("aria-label"))

    panel.get_by_role("combobox").first.select_option("a whole script")
    expect(panel.get_by_text(re.compile(r"^leaving: #\d+"))).to_be_visible()
    panel.get_by_role("combobox").nth(1).select_option("Greek")
    expect(panel.locator(".xl-truth")).not_to_contain_text("retrained")

    panel.get_by_role("combobox").first.select_option("by hand")
    line = panel.locator(".xl-hand input")
    line.fill("999")
    line.press("Enter")
    expect(panel.get_by_text("999").first).to_be_visible()
    assert panel.locator("img:not([alt])").count() == 0
    screenshot(panel, "task_panel_mistake")
