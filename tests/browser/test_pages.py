"""All panels as pages: the list leads to each, each shows its panel, and a closed page leaves no kernel."""

from __future__ import annotations

import os
import time

import psutil
import pytest

WARM = 300  # seconds until the problems of all panels are solved, at most


def kernels(server):
    """Return how many kernels a server has: they are its children, as Voila is."""
    ours = [child for child in server.children() if child.status() != psutil.STATUS_ZOMBIE]
    return len(ours) - 1


@pytest.mark.timeout(900)
@pytest.mark.flaky(reruns=1)
def test_every_page_shows_its_panel_and_ends_with_its_visitor(page, serve, tmp_path, screenshot):
    from playwright.sync_api import expect

    from explainlib.serving import PAGES

    address = serve("explainlib", ["panels"], tmp_path, "/", WARM)
    (server,) = (c for c in psutil.Process(os.getpid()).children() if "panels" in c.cmdline()[1:])
    page.goto(address)
    screenshot(page, "pages")
    links = page.get_by_role("link").evaluate_all("links => links.map(link => link.href)")
    assert links == [f"{address}/voila/render/{name}.ipynb" for name in PAGES]
    assert kernels(server) == 0

    for link, (name, meant) in zip(links, PAGES.items(), strict=True):
        page.goto(link, timeout=90_000)
        expect(page.get_by_role("heading", level=1)).to_contain_text(meant.title)
        panel = page.locator(".xl-panel")
        expect(panel).to_have_count(1)
        expect(panel.get_by_role("button", name="Reset")).to_be_visible()
        assert page.locator(".jp-CodeCell .jp-InputArea-editor:visible").count() == 0, "a page shows code"
        if name == "removal":
            before = panel.locator(".xl-prediction").inner_text()
            panel.locator(".xl-k .noUi-handle").press("ArrowRight")
            expect(panel.locator(".xl-prediction")).not_to_have_text(before, use_inner_text=True)
    assert kernels(server) > 0
    page.goto("about:blank")
    end = time.monotonic() + 60
    while kernels(server) and time.monotonic() < end:
        time.sleep(0.2)
    assert kernels(server) == 0, "a closed page leaves its kernel behind"
