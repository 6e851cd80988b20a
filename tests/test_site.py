"""The site's configuration: every notebook, every page and every room stands in its contents, once."""

from __future__ import annotations

import fnmatch
import importlib.util
import inspect
import json
import types
from pathlib import Path

import pytest

import explainlib

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site():
    spec = importlib.util.spec_from_file_location("site_configuration", ROOT / "docs" / "site" / "conf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sources():
    """Return the names of all that a reader could look for: notebooks and documentation, without their endings."""
    found = [*ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("docs/**/*.md")]
    return sorted(path.relative_to(ROOT).with_suffix("").as_posix() for path in found)


def listed(site, name):
    """Return the parts of the contents that hold a page; a name counts more than a star, as in a table of contents."""
    named = [title for title, entries in site.SECTIONS.items() if name in entries]
    return named or [
        title for title, entries in site.SECTIONS.items() if any(fnmatch.fnmatchcase(name, entry) for entry in entries)
    ]


def test_every_notebook_and_every_page_stands_in_the_contents_once(site):
    names = sources()
    assert len(names) >= 9 + 12 + 11
    wrong = {name: listed(site, name) for name in names if len(listed(site, name)) != 1}
    assert not wrong, f"pages that no reader finds, or finds twice: {wrong}"


def test_every_entry_of_the_contents_leads_somewhere(site):
    names = [*sources(), *(f"build/api/{room}" for room in site.ROOMS)]
    for entries in site.SECTIONS.values():
        for entry in entries:
            assert any(fnmatch.fnmatchcase(name, entry) for name in names), entry


def test_what_is_listed_is_read(site):
    """The patterns of what Sphinx reads let every page in; a star of theirs does not cross a folder, two do."""
    read = {path for pattern in site.include_patterns for path in ROOT.glob(pattern)}
    assert {ROOT / "README.md", *ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("docs/**/*.md")} <= read


def test_every_public_room_has_a_page_of_the_reference(site):
    rooms = {name for name in explainlib.__all__ if inspect.ismodule(getattr(explainlib, name))}
    assert rooms <= set(site.ROOMS)
    pages = site.reference_pages()
    assert set(pages) == set(site.ROOMS)
    assert all(
        f".. automodule:: explainlib.{room}\n" in text and site.ROOMS[room] in text for room, text in pages.items()
    )


def test_a_notebook_says_how_to_run_it_and_keeps_its_cells(site):
    path = ROOT / "notebooks" / "01_influence_functions.ipynb"
    before = json.loads(path.read_text(encoding="utf-8"))["cells"]
    source = [path.read_text(encoding="utf-8")]
    site.add_marks(None, "notebooks/01_influence_functions", source)
    after = json.loads(source[0])["cells"]
    assert "make lab" in after[1]["source"] and "make panels" in after[1]["source"]
    assert [after[0], *after[2:]] == before


def test_the_home_keeps_the_readme_and_gets_the_contents(site):
    source = ["# Home\n"]
    site.add_marks(None, "README", source)
    assert source[0].startswith("# Home\n") and source[0].count("{toctree}") == len(site.SECTIONS)
    assert "/notebooks/*" in source[0]


def test_saved_outputs_are_shown_and_nothing_runs(site):
    assert site.nb_execution_mode == "off"
    assert not any("mathjax" in extension for extension in site.extensions)


def test_a_docstring_s_bars_are_no_marks(site):
    lines = ["The norm |v|, as ``a | b`` has it.", ">>> a | b"]
    site.plain_docstring(None, "function", "f", None, None, lines)
    assert lines == [r"The norm \|v\|, as ``a | b`` has it.", ">>> a | b"]


def test_formulas_become_mathml(site):
    pytest.importorskip("latex2mathml", reason="without the extra `site`; make site installs it")
    from docutils.nodes import SkipNode, math, math_block

    written = types.SimpleNamespace(body=[])
    for node in (math("", r"\theta_1"), math_block("", r"\frac{1}{n}\sum_i \ell_i")):
        with pytest.raises(SkipNode):
            site.visit_formula(written, node)
    assert written.body[0].startswith("<math") and "tabindex" in written.body[1] and "<mfrac>" in written.body[1]
