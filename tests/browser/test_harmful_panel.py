"""A student's minute with the panel on harmful tasks: inspect by keyboard, ask for the truth, flip more, overdo it."""

from __future__ import annotations

import pytest

NOTEBOOK = "08_bilevel_influence.ipynb"


@pytest.mark.timeout(500)
@pytest.mark.flaky(reruns=1)
def test_the_harmful_panel_works_in_jupyterlab(page, open_and_run_all, work_the_panel, screenshot):
    from playwright.sync_api import expect

    open_and_run_all(page, NOTEBOOK)
    reset = page.locator(".xl-harmful-panel").first.get_by_role("button", name="Reset")
    reset.click()  # the notebook's cells leave another choice
    panel = work_the_panel(page, "xl-harmful-panel")
    expect(panel.locator(".xl-outcomes")).not_to_contain_text("?")
    screenshot(panel, "harmful_panel_lab")

    picture, words = panel.locator(".xl-curve img"), panel.locator(".xl-prediction")
    before = picture.get_attribute("alt")
    panel.get_by_role("combobox").first.select_option("random")
    expect(words).to_contain_text("inspected by random")
    expect(panel.locator(".xl-truth")).not_to_contain_text("retrained")
    handle = panel.locator(".xl-flipped .noUi-handle")
    handle.focus()
    handle.press("ArrowRight")
    expect(words).to_contain_text("flipped in 18 of 60")
    expect(picture).not_to_have_attribute("alt", before)

    handle = panel.locator(".xl-labels .noUi-handle")
    handle.focus()
    handle.press("End")  # as many support labels as may be flipped, three of six
    expect(words).to_contain_text("55% of the labels flipped in 18 of 60")
    assert panel.locator("img:not([alt])").count() == 0
    screenshot(panel, "harmful_panel_most")
