"""A reader's minute with the scoreboard, by keyboard alone: a paper, a verdict, a claim in full, and all judged again."""

from __future__ import annotations

import re

import pytest

CODE = "import explainlib as xl\n\npanel = xl.panels.Scoreboard()\npanel"


@pytest.mark.timeout(400)
@pytest.mark.flaky(reruns=1)
def test_the_scoreboard_works_by_keyboard(page, run_one_cell, screenshot):
    from playwright.sync_api import expect

    run_one_cell(page, CODE)
    panel = page.locator(".xl-scoreboard-panel")
    panel.wait_for(timeout=90_000)
    listed, full, truth = panel.locator(".xl-list"), panel.locator(".xl-full"), panel.locator(".xl-truth")
    expect(listed).to_contain_text(re.compile(r"(\d+) of \1 claims"))

    panel.locator(".xl-paper select").focus()
    page.keyboard.type("Basu")
    expect(listed).to_contain_text(re.compile(r"^6 of \d+ claims"))
    page.keyboard.press("Tab")
    page.keyboard.type("not held")
    expect(listed).to_contain_text(re.compile(r"claims: \d not held"))
    assert set(listed.locator("tr th").all_inner_texts()) >= {"B3"}
    page.keyboard.press("Tab")
    page.keyboard.type("B3")
    expect(full).to_contain_text("B3 in full")
    expect(full).to_contain_text("controls:")

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(truth).to_contain_text("verdicts are the same", timeout=60_000)
    screenshot(panel, "scoreboard_panel_lab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(listed).to_contain_text(re.compile(r"(\d+) of \1 claims"))
    assert page.locator(".jp-RawCell").count() == 0
