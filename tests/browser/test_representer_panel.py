"""A student's minute with the representer panel: delete by keyboard, ask for the truth, change both factors."""

from __future__ import annotations

import pytest

NOTEBOOK = "04_generalized_representers.ipynb"


@pytest.mark.timeout(500)
@pytest.mark.flaky(reruns=1)
def test_the_representer_panel_works_in_jupyterlab(page, open_and_run_all, work_the_panel, screenshot):
    from playwright.sync_api import expect

    open_and_run_all(page, NOTEBOOK)
    reset = page.locator(".xl-representer-panel").first.get_by_role("button", name="Reset")
    reset.click()  # the notebook's cells leave another choice
    panel = work_the_panel(page, "xl-representer-panel")
    expect(panel.locator(".xl-curve .xl-cross")).not_to_have_count(0)
    screenshot(panel, "representer_panel_lab")

    curve, bars = panel.locator(".xl-curve svg"), panel.locator(".xl-bars")
    before, words = curve.get_attribute("aria-label"), bars.inner_text()
    panel.get_by_role("combobox").nth(1).select_option("surrogate derivative")
    expect(curve).not_to_have_attribute("aria-label", before)
    assert bars.inner_text() != words
    expect(panel.locator(".xl-truth")).not_to_contain_text("retrained")
    expect(panel.locator(".xl-axioms")).to_contain_text("irreducibility: broken")
    panel.get_by_role("combobox").first.select_option("influence function")
    expect(panel.locator(".xl-prediction")).to_contain_text("influence function")
    panel.get_by_role("combobox").nth(2).select_option("highest scores first")
    expect(panel.locator(".xl-prediction")).to_contain_text("highest scores")
    assert panel.locator("img:not([alt])").count() == 0
    screenshot(panel, "representer_panel_changed")
