"""The pages of the panels: one for each, their notebooks, and what they refuse."""

from __future__ import annotations

import re
from pathlib import Path
from unittest import mock

import nbformat
import pytest
import torch

from explainlib import panels
from explainlib.serving import PAGES, open_panel, page_notebook, server

ROOT = Path(__file__).parents[2]


def test_every_panel_has_a_page():
    wanted = {re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in panels.__all__}
    assert set(PAGES) == wanted


def test_a_page_belongs_to_a_lecture_and_says_what_to_do():
    for name, page in PAGES.items():
        assert (ROOT / "notebooks" / f"{page.lecture}.ipynb").is_file(), name
        assert page.title and len(page.words.split()) >= 12, name
    assert len({page.title for page in PAGES.values()}) == len(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_the_notebook_of_a_page_is_words_and_one_cell(name):
    notebook = page_notebook(name)
    nbformat.validate(notebook)
    words, code = notebook.cells
    assert PAGES[name].title in words.source and PAGES[name].words in words.source
    assert f'open_panel("{name}")' in code.source and not code.outputs


@pytest.mark.parametrize(("name", "panel"), [("fragility", panels.Fragility), ("harmful", panels.Harmful)])
def test_a_page_opens_its_panel_in_float64(name, panel):
    torch.set_default_dtype(torch.float32)
    try:
        assert isinstance(open_panel(name), panel)
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_two_visitors_of_one_process_have_panels_of_their_own():
    torch.set_default_dtype(torch.float32)
    try:
        one, other = open_panel("removal"), open_panel("removal")
        before = other.text
        one.set(k=25)
        assert one.text != before and other.text == before
        assert one.risk is other.risk  # solved once
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("call", [open_panel, page_notebook])
def test_an_unknown_page_is_refused(call):
    with pytest.raises(ValueError, match="'removals'.*removal"):
        call("removals")


@pytest.mark.parametrize(("idle", "interval"), [(600, 60), (30, 15), (1, 1)])
def test_voila_is_told_when_to_end_idle_kernels(monkeypatch, idle, interval):
    """Nothing starts: the server's process is a stand-in that has already ended."""
    commands = []

    def started(command, **_):
        commands.append(command)
        return mock.Mock(poll=lambda: 0, returncode=0)

    monkeypatch.setattr(server, "_warm", lambda: None)
    monkeypatch.setattr(server, "KernelForks", mock.MagicMock())
    monkeypatch.setattr(server.signal, "signal", lambda *_: None)
    monkeypatch.setattr(server.subprocess, "Popen", started)
    assert server.serve(idle=idle) == 0
    (command,) = commands
    assert f"--MappingKernelManager.cull_idle_timeout={idle}" in command
    assert f"--MappingKernelManager.cull_interval={interval}" in command
    assert not [word for word in command if "cull_connected" in word], "a page that stays open is never ended"
