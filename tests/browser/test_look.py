"""Every panel as it is seen in JupyterLab: three widths, two themes, mouse, keyboard, and an audit of accessibility."""

from __future__ import annotations

import os
import re
from pathlib import Path

import nbformat
import pytest

THEMES = ("JupyterLab Light", "JupyterLab Dark")
# Beside the file browser a window of 1280 px leaves 833 px to the notebook; 640 x 400 is that window at 200% zoom.
WINDOWS = {"1280": (1280, 800, True), "640": (640, 900, False), "200% zoom": (640, 400, False)}
LEAST = {"contrast": 4.5, "size": 12}  # WCAG AA; pixels
LOOK = (Path(__file__).parent / "look.js").read_text()
SERIOUS = ("serious", "critical")
KEEP = os.environ.get("EXPLAINLIB_SCREENSHOTS")  # 48 pictures take their time


@pytest.fixture
def panels(lab, tmp_path):
    """Return the names of the panels, all of them in one notebook beside the copies of the others."""
    from explainlib.serving import PAGES, page_notebook

    cells = [page_notebook(name).cells[1] for name in PAGES]
    for name, cell in zip(PAGES, cells, strict=True):
        cell.id = name.replace("_", "-")
    notebook = page_notebook("removal")
    notebook.cells = cells
    nbformat.write(notebook, tmp_path / "notebooks" / "panels.ipynb")
    return tuple(PAGES)


@pytest.fixture
def audit():
    """Return a function that returns the serious findings of axe-core in one element, or skip.

    The handles of sliders are left out: ipywidgets gives them no accessible name and no way to set one. The word beside
    a slider names it.
    """
    found = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core comes with the extra `test`")

    def run(page, selector):
        results = found.Axe().run(
            page, context={"include": [selector], "exclude": [".noUi-handle"]}, options={"resultTypes": ["violations"]}
        )
        return [
            f"{one['id']}: {one['help']}: {[node['html'][:150] for node in one['nodes'][:3]]}"
            for one in results.response["violations"]
            if one["impact"] in SERIOUS
        ]

    return run


def set_theme(page, theme):
    page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    light = str(theme.endswith("Light")).lower()
    page.locator(f"body[data-jp-theme-light={light}]").wait_for(state="attached")


def set_window(page, width, height, files):
    page.set_viewport_size({"width": width, "height": height})
    if files != page.locator(".jp-FileBrowser").first.is_visible():
        page.evaluate("() => window.jupyterapp.commands.execute('application:toggle-left-area')")


@pytest.mark.timeout(600)
@pytest.mark.flaky(reruns=1)
def test_every_panel_can_be_seen_read_and_used(page, panels, open_and_run_all, audit, screenshot):
    from playwright.sync_api import expect

    open_and_run_all(page, "panels.ipynb")
    shown, wrong = page.locator(".xl-panel"), {}
    expect(shown).to_have_count(len(panels), timeout=60_000)
    for theme in THEMES:
        set_theme(page, theme)
        for window, (width, height, files) in WINDOWS.items():
            set_window(page, width, height, files)
            page.wait_for_timeout(600)
            for i, name in enumerate(panels):
                panel = shown.nth(i)
                panel.scroll_into_view_if_needed()
                seen = panel.evaluate(LOOK, LEAST)
                wrong |= {(name, theme, window, kind): found for kind, found in seen.items() if found}
                if KEEP:
                    screenshot(panel, f"look_{name}_{theme.split()[-1].lower()}_{window.split('%')[0]}")
        found = audit(page, ".xl-panel")
        wrong |= {("all", theme, "axe"): found} if found else {}
    assert not wrong, "\n".join(f"{where}: {found}" for where, found in wrong.items())


# The panel, the button for the truth, the line that says it, and the plot that shows it.
FIRST_SCREEN = {
    "removal": ("Retrain", ".xl-truth", ".xl-plot"),
    "group_removal": ("Retrain", ".xl-truth", ".xl-curve"),
    "fragility": ("Retrain", ".xl-truth", ".xl-view"),
    "representer": ("Retrain", ".xl-truth", ".xl-curve"),
    "adaptation": ("Adapt", ".xl-truth", ".xl-plot"),
    "task_removal": ("Retrain", ".xl-truth", ".xl-scatter"),
    "harmful": ("Retrain", ".xl-truth", ".xl-curve"),
}
SEEN = 0.6  # of the height of a plot, at least
# How much of an element's height lies inside the window of the notebook.
SHARE = """e => {
  const box = e.getBoundingClientRect(), seen = e.closest(".jp-WindowedPanel-outer").getBoundingClientRect();
  return (Math.min(box.bottom, seen.bottom) - Math.max(box.top, seen.top)) / box.height;
}"""


@pytest.mark.timeout(600)
@pytest.mark.flaky(reruns=1)
def test_after_the_truth_was_asked_for_words_and_plot_are_on_the_first_screen(
    page, panels, open_and_run_all, screenshot
):
    """At 1280 x 800 beside the file browser, the panel's top at the top, nothing scrolled."""
    from playwright.sync_api import expect

    open_and_run_all(page, "panels.ipynb")
    shown, wrong = page.locator(".xl-panel"), {}
    expect(shown).to_have_count(len(panels), timeout=60_000)
    set_window(page, *WINDOWS["1280"])
    page.wait_for_timeout(600)
    for name, (button, words, plot) in FIRST_SCREEN.items():
        panel = shown.nth(panels.index(name))
        panel.get_by_role("button", name=button, exact=True).click()
        expect(panel.locator(words)).to_contain_text(re.compile("trained|adapted"), timeout=90_000)
        panel.evaluate("e => e.scrollIntoView({block: 'start'})")
        page.wait_for_timeout(300)
        seen = {part: panel.locator(part).first.evaluate(SHARE) for part in (words, plot)}
        if seen[words] < 0.99 or seen[plot] < SEEN:
            wrong[name] = seen
        if KEEP:
            screenshot(page, f"first_screen_{name}")
    assert not wrong, wrong
