"""Sphinx's configuration of the site: the README as its home, every notebook with its saved outputs, all of docs.

`make site` builds it from the repository's root into build/site. Nothing is executed, and nothing is fetched: formulas
become MathML while building. What Sphinx needs at the top of a notebook or of the README is added as it is read, so
that neither carries marks of a tool. Importing this file needs the standard library alone.
"""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

project = "explainlib"
copyright = "explainlib contributors"
author = "explainlib contributors"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["README.md", "docs/*.md", "docs/**/*.md", "notebooks/*.ipynb", "build/api/*.md"]

# The parts of the table of contents, in the order of reading; a star takes what is not named elsewhere.
SECTIONS = {
    "The course": ["notebooks/*", "docs/exercises", "docs/panels"],
    "Teaching": ["docs/teach/README", "docs/teach/signs", "docs/teach/[0-9]*"],
    "What held": ["docs/scoreboard", "docs/*_study"],
    "The library": [
        "build/api/*",
        "docs/glossary",
        "docs/quality",
        "docs/kernels",
        "docs/devices",
        "docs/peers",
        "docs/stores",
    ],
    "The project": ["docs/contributing"],
}
# Rooms with a page of their own in the reference, by what one looks for there.
ROOMS = {
    "risk": "the training objective",
    "influence": "influence of examples, groups and tasks",
    "retraining": "the truth: training again",
    "representers": "kernels times importances",
    "meta": "meta-learners",
    "curvature": "matrices and products",
    "solvers": "linear solvers",
    "layerwise": "per-example gradients, layer by layer",
    "training": "minima and ordinary training",
    "models": "networks",
    "datasets": "data",
    "metrics": "agreement of prediction and truth",
    "studies": "the papers' experiments",
    "figures": "tables to pictures",
    "panels": "the widgets",
    "serving": "the panels as pages",
    "explanation": "what a person reads",
    "course": "exercises and their check",
    "gate": "right or refused",
    "kernels": "fused kernels for GPUs",
    "compute": "threads and denormals",
    "checks": "requirements on arguments",
}

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
myst_update_mathjax = False
nb_execution_mode = "off"
nb_merge_streams = True

autodoc_member_order = "groupwise"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "explainlib"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False

RUN = (
    "**Run it yourself.** This page shows saved outputs; its panel needs a running notebook. In a clone, `make lab` "
    "opens it in JupyterLab, and `make panels` serves all panels as pages ([how](../docs/panels.md))."
)


def reference_pages() -> dict[str, str]:
    """Return the text of the reference's pages by name: one for each room, made from its docstrings."""
    pages = {}
    for room, words in ROOMS.items():
        module = importlib.import_module(f"explainlib.{room}")
        options = "   :members:\n   :undoc-members:\n" if not hasattr(module, "__all__") else "   :members:\n"
        title = f"explainlib.{room}" if room == "serving" else f"xl.{room}"
        pages[room] = f"# `{title}`: {words}\n\n```{{eval-rst}}\n.. automodule:: explainlib.{room}\n{options}```\n"
    return pages


def write_reference(app: object) -> None:
    """Write the reference's pages into build/api, where Sphinx then finds them."""
    folder = ROOT / "build" / "api"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, text in reference_pages().items():
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def contents() -> str:
    """Return the table of contents as directives."""
    options = ":hidden:\n:glob:\n:maxdepth: 1\n"
    return "\n".join(
        f"```{{toctree}}\n:caption: {title}\n{options}\n" + "\n".join(f"/{name}" for name in names) + "\n```\n"
        for title, names in SECTIONS.items()
    )


def add_marks(app: object, docname: str, source: list[str]) -> None:
    """Add the contents to the README, and the way to run it to a notebook."""
    if docname == root_doc:
        source[0] += "\n" + contents()
    elif docname.startswith("notebooks/"):
        notebook = json.loads(source[0])
        note = f"```{{admonition}} Saved outputs\n:class: tip\n\n{RUN}\n```\n"
        notebook["cells"].insert(1, {"cell_type": "markdown", "id": "run", "metadata": {}, "source": note})
        source[0] = json.dumps(notebook)


def plain_docstring(app: object, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Keep the bars of absolute values from being read as marks of reStructuredText."""
    for i, line in enumerate(lines):
        parts = line.split("``")
        parts[::2] = [part.replace("|", r"\|") for part in parts[::2]]
        lines[i] = line if line.lstrip().startswith((">>>", "...")) else "``".join(parts)


def visit_formula(translator: object, node: object) -> None:
    """Write a formula as MathML, which browsers draw without a script."""
    from docutils.nodes import SkipNode
    from latex2mathml.converter import convert

    if node.tagname == "math_block":  # a wide one scrolls, by keyboard too
        formula = convert(node.astext(), display="block")
        translator.body.append(f'<div class="formula" tabindex="0" role="group">{formula}</div>')
    else:
        translator.body.append(convert(node.astext()))
    raise SkipNode


def home(app: object, error: Exception | None) -> None:
    """Let the folder open with the README."""
    out = Path(app.outdir)
    if error is None and (out / f"{root_doc}.html").exists():
        shutil.copyfile(out / f"{root_doc}.html", out / "index.html")


def setup(app: object) -> None:
    """Connect all of this to Sphinx."""
    from docutils import nodes
    from docutils.parsers.rst.roles import register_generic_role

    register_generic_role("mpltype", nodes.literal)  # of a docstring that matplotlib hands down
    app.add_html_math_renderer("mathml", (visit_formula, None), (visit_formula, None))
    app.connect("builder-inited", write_reference)
    app.connect("source-read", add_marks)
    app.connect("autodoc-process-docstring", plain_docstring)
    app.connect("build-finished", home)
