"""In JupyterLab as ``make lab`` starts it: every still picture is seen, no line of code is cut, and lists hear keys."""

from __future__ import annotations

import re

import nbformat
import pytest

SEEN = "images => images.map(image => [image.getAttribute('alt') || image.src, image.complete && image.naturalWidth])"

WIDTHS = "cells => cells.map(cell => [cell.scrollWidth, cell.clientWidth, cell.querySelectorAll('.cm-line').length])"


def still_pictures(path):
    """Return the alternative texts of the pictures that a notebook takes from files."""
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return re.findall(r"!\[([^\]]*)\]\((?!http)[^)]*\)", prose)


@pytest.mark.timeout(300)
@pytest.mark.flaky(reruns=1)
def test_every_still_picture_is_seen(page, lab_as_started, repository):
    notebooks = {path.name: still_pictures(path) for path in sorted((repository / "notebooks").glob("*.ipynb"))}
    assert sum(map(len, notebooks.values())) >= 6
    for name, pictures in notebooks.items():
        if not pictures:
            continue
        page.goto(f"{lab_as_started}/lab/tree/notebooks/{name}?reset")
        page.locator(".jp-MarkdownOutput img").first.wait_for(state="attached", timeout=60_000)
        page.wait_for_timeout(1500)
        images = page.locator(".jp-MarkdownOutput img").evaluate_all(SEEN)
        assert {alt for alt, _ in images} >= set(pictures), name
        assert all(width for _, width in images), [alt for alt, width in images if not width]


@pytest.mark.timeout(300)
@pytest.mark.flaky(reruns=1)
def test_no_line_of_code_scrolls_sideways(page, lab_as_started):
    """A narrow window wraps the lines, by the settings in docs/lab."""
    page.set_viewport_size({"width": 640, "height": 800})
    page.goto(f"{lab_as_started}/lab/tree/notebooks/07_tlxml_distributions.ipynb?reset")
    page.locator(".jp-CodeCell .cm-scroller").nth(3).wait_for(timeout=60_000)
    page.wait_for_timeout(1500)
    cells = page.locator(".jp-CodeCell .cm-scroller").evaluate_all(WIDTHS)
    assert len(cells) >= 4 and max(lines for *_, lines in cells) >= 6, "nothing long is in sight"
    assert all(needed <= there for needed, there, _ in cells), cells


KEYS_NOTEBOOK = """
import ipywidgets as widgets
from IPython.display import display
chosen = widgets.Dropdown(options=["one", "two", "three", "reset"], description="list")
display(chosen)
"""


@pytest.mark.timeout(300)
@pytest.mark.flaky(reruns=1)
def test_keys_on_a_focused_list_stay_with_it(page, run_one_cell):
    """JupyterLab's keys for a selected cell match every focused element; the settings in docs/lab leave lists out."""
    run_one_cell(page, KEYS_NOTEBOOK)
    chooser = page.locator(".widget-dropdown select")
    chooser.wait_for(timeout=90_000)
    chooser.focus()
    page.keyboard.press("ArrowDown")
    assert chooser.evaluate("e => e.options[e.selectedIndex].text") == "two"
    page.keyboard.press("r")  # a cell would become raw, and its widgets go
    page.wait_for_timeout(500)
    assert chooser.evaluate("e => e.options[e.selectedIndex].text") == "reset"
    assert page.locator(".jp-RawCell").count() == 0
