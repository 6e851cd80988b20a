"""A student's minute in JupyterLab: open the notebook, run it, move the slider by keyboard, ask for the truth."""

from __future__ import annotations

import pytest

PANELS = [
    pytest.param("01_influence_functions.ipynb", "xl-removal-panel", id="removal"),
    pytest.param("02_group_influence.ipynb", "xl-group-panel", id="group"),
]


@pytest.mark.timeout(400)
@pytest.mark.flaky(reruns=1)
@pytest.mark.parametrize(("notebook", "root"), PANELS)
def test_the_panel_works_in_jupyterlab(page, open_and_run_all, work_the_panel, screenshot, notebook, root):
    open_and_run_all(page, notebook)
    panel = work_the_panel(page, root)
    screenshot(panel, f"{root}_lab")
    screenshot(page, f"{root}_page")
