"""A student's minute with the scoreboard: filter by keyboard, read a claim, judge again; two themes, three widths."""

from __future__ import annotations

import pytest

from tests.browser.test_look import LEAST, LOOK, THEMES, WINDOWS, set_theme, set_window

NOTEBOOK = "09_which_explanation_when.ipynb"


def chooser(panel, name):
    return panel.get_by_label(name, exact=True)


@pytest.mark.timeout(500)
@pytest.mark.flaky(reruns=1)
def test_the_scoreboard_works_in_jupyterlab(page, open_and_run_all, screenshot):
    from playwright.sync_api import expect

    open_and_run_all(page, NOTEBOOK)
    panel = page.locator(".xl-scoreboard-panel").first
    panel.scroll_into_view_if_needed()
    panel.get_by_role("button", name="Reset").click()  # the notebook's cells leave another choice
    rows, full, truth = panel.locator(".xl-list"), panel.locator(".xl-full"), panel.locator(".xl-truth")
    expect(rows).to_contain_text("46 of 46 claims")
    everything = rows.inner_text()

    paper = chooser(panel, "paper")
    paper.focus()
    paper.press("ArrowDown")  # by keyboard: the first paper
    expect(rows).not_to_have_text(everything, use_inner_text=True)
    chooser(panel, "verdict").select_option("not held")
    expect(rows).to_contain_text("not held")
    chooser(panel, "paper").select_option("all")
    expect(rows).to_contain_text("of 46 claims")
    expect(full).to_contain_text("verdict: not held")
    listed = rows.locator("div[tabindex='0']")
    listed.focus()
    assert listed.evaluate("e => e === document.activeElement"), "the list cannot be scrolled by keyboard"

    again = panel.get_by_role("button", name="Judge again")
    again.focus()
    again.press("Enter")
    expect(truth).to_contain_text("all 46 verdicts are the same", timeout=90_000)
    screenshot(panel, "scoreboard_panel_lab")

    wrong = {}
    for theme in THEMES:
        set_theme(page, theme)
        for window, (width, height, files) in WINDOWS.items():
            set_window(page, width, height, files)
            page.wait_for_timeout(600)
            seen = panel.evaluate(LOOK, LEAST)
            wrong |= {(theme, window, kind): found for kind, found in seen.items() if found}
            screenshot(panel, f"scoreboard_panel_{theme.split()[-1].lower()}_{window.split('%')[0]}")
    assert not wrong, wrong
