"""A student's minute in JupyterLab: open the notebook, run it, move the slider by keyboard, ask for the truth."""

from __future__ import annotations

import pytest


@pytest.mark.timeout(400)
@pytest.mark.flaky(reruns=1)
def test_the_panel_works_in_jupyterlab(page, open_and_run_all, work_the_panel, screenshot):
    open_and_run_all(page, "01_influence_functions.ipynb")
    panel = work_the_panel(page)
    screenshot(panel, "panel_lab")
    screenshot(page, "lab")
