"""A student's minute with the panel on fragility: another depth by keyboard, other training, train one network again."""

from __future__ import annotations

import pytest

NOTEBOOK = "03_fragility.ipynb"


@pytest.mark.timeout(500)
@pytest.mark.flaky(reruns=1)
def test_the_fragility_panel_works_in_jupyterlab(page, open_and_run_all, screenshot):
    from playwright.sync_api import expect

    open_and_run_all(page, NOTEBOOK)
    panel = page.locator(".xl-fragility-panel").first
    panel.scroll_into_view_if_needed()
    panel.get_by_role("button", name="Reset").click()  # the notebook's cells leave another choice
    words, picture, truth = panel.locator(".xl-numbers"), panel.locator(".xl-view img"), panel.locator(".xl-truth")
    expect(words).to_contain_text("L2, depth 1")
    before = picture.get_attribute("alt")

    handle = panel.locator(".xl-size .noUi-handle")
    handle.focus()
    handle.press("ArrowRight")
    expect(words).to_contain_text("L2, depth 2")
    expect(picture).not_to_have_attribute("alt", before)

    panel.get_by_role("button", name="Retrain").click()
    expect(truth).to_contain_text("trained again", timeout=90_000)
    screenshot(panel, "fragility_panel_lab")

    panel.locator("select").nth(1).select_option("plain")
    expect(words).to_contain_text("plain, depth 2")
    expect(truth).not_to_contain_text("trained again")
    panel.locator("select").nth(0).select_option("width (one layer)")
    expect(words).to_contain_text("plain, width 5")
    assert panel.locator("img:not([alt])").count() == 0
    screenshot(panel, "fragility_panel_width")
