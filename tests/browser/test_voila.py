"""The same notebook as a page without code, served by Voila: the panel works there too."""

from __future__ import annotations

import pytest


@pytest.mark.timeout(400)
@pytest.mark.flaky(reruns=1)
def test_the_panel_works_in_voila(page, voila, work_the_panel, screenshot):
    page.goto(f"{voila}/voila/render/01_influence_functions.ipynb", timeout=200_000)
    panel = work_the_panel(page)
    assert page.locator(".jp-CodeCell .jp-InputArea-editor:visible").count() == 0, "Voila shows the code"
    screenshot(panel, "panel_voila")
