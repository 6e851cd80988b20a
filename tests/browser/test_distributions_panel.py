"""A student's minute with the panel on distributions: other tasks, a change, other scores, train a small learner here."""

from __future__ import annotations

import pytest

NOTEBOOK = "07_tlxml_distributions.ipynb"


@pytest.mark.timeout(500)
@pytest.mark.flaky(reruns=1)
def test_the_distributions_panel_works_in_jupyterlab(page, open_and_run_all, screenshot):
    from playwright.sync_api import expect

    open_and_run_all(page, NOTEBOOK)
    panel = page.locator(".xl-distributions-panel").first
    panel.scroll_into_view_if_needed()
    panel.get_by_role("button", name="Reset").click()  # the notebook's cells leave another choice
    words, ranking, truth = panel.locator(".xl-numbers"), panel.locator(".xl-ranking svg"), panel.locator(".xl-truth")
    expect(words).to_contain_text("MAML, 28 normal, 4 noise, as it is")
    before = ranking.get_attribute("aria-label")

    panel.locator("select").nth(2).select_option("8 turned copies")
    expect(words).to_contain_text("8 turned copies: 1,941 parameters")
    expect(ranking).not_to_have_attribute("aria-label", before)
    panel.get_by_role("button", name="Train here").click()
    expect(truth).to_contain_text("trained here, 14 normal and 2 noise tasks", timeout=180_000)
    expect(panel.locator(".xl-ranking .xl-cross")).to_have_count(10)
    screenshot(panel, "distributions_panel_lab")

    panel.locator("select").nth(1).select_option("112 normal, 16 noise")
    expect(words).to_contain_text("112 normal, 16 noise, as it is")
    expect(truth).not_to_contain_text("trained here")
    panel.locator("select").nth(0).select_option("Prototypical Network")
    expect(words).to_contain_text("Prototypical Network, 28 normal")
    panel.locator("select").nth(3).select_option("cosine")
    expect(words).to_contain_text("cosine, unseen tests")
    assert panel.locator("svg:not([aria-label])").count() == 0
    screenshot(panel, "distributions_panel_protonet")
    page.set_viewport_size({"width": 640, "height": 800})
    panel.scroll_into_view_if_needed()
    screenshot(panel, "distributions_panel_narrow")
