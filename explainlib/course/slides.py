"""Slides from notebooks: where a slide begins is computed from the headings, so no notebook is edited for it.

A heading begins a slide: of level 1 or 2 to the right, of a deeper level below. Below begins one as well after a prompt
to predict, so that the outcome is not beside the question, and where the cells so far have filled the page. Saved
outputs are shown, and nothing is run.
"""

from __future__ import annotations

import base64
import copy
import os
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from nbformat import NotebookNode
from nbformat import read as read_notebook
from nbformat.v4 import new_markdown_cell

from explainlib.course.anatomy import PROMPT, tags_of
from explainlib.course.notebooks import notebook_paths
from explainlib.storage import write_text

REVEAL = "https://unpkg.com/reveal.js@4.0.2"  # nbconvert's own default; a folder with a copy works offline
HEADING = re.compile(r"^(#+)\s+\S")
FENCE = re.compile(r"^\s*(?:```|~~~)")
MARKDOWN = re.compile(r"(\]\()(\.\./[^)#]+\.md)(\))")
STILL = re.compile(r"(!\[[^\]]*\]\()([^()\s:]+\.png)(\))")  # a still picture beside the notebooks
LINK = re.compile(r"(\]\()([^()\s/]+)\.ipynb(\))")
PAGE = 24  # lines that a slide holds
WIDTH = 95  # characters of a line of text
PICTURE = 14  # lines that a picture takes
BARE = 4  # lines above which a slide holds more than its heading
LEFT_OUT = ("solution", "hint")  # tags of cells that slides skip


def slides(notebook: NotebookNode) -> NotebookNode:
    """Return a copy whose cells say where a slide begins, in the metadata that nbconvert reads.

    Texts are split at their headings. Solutions and hints of exercises are left out; folded texts stay folded.

    Args:
        notebook: as read from disk, outputs included.
    """
    deck = copy.deepcopy(notebook)
    deck.cells = [part for cell in deck.cells for part in _split(cell)]
    filled, prompt = 0, False
    for cell in deck.cells:
        if set(LEFT_OUT) & set(tags_of(cell)):
            cell.metadata["slideshow"] = {"slide_type": "skip"}
            continue
        level, lines = _level(cell), _lines(cell)
        if level in (1, 2) or filled == 0:
            kind = "slide"
        elif level or prompt or (filled > BARE and filled + lines > PAGE):
            kind = "subslide"
        else:
            kind = "-"
        cell.metadata["slideshow"] = {"slide_type": kind}
        filled = lines + (filled if kind == "-" else 0)
        prompt = cell.cell_type == "markdown" and PROMPT.search(cell.source) is not None
    return deck


def write_slides(
    folder: str | Path, paths: Sequence[str | Path] = (), *, code: bool = True, reveal: str = REVEAL
) -> list[Path]:
    """Write a page of slides for each notebook, pictures inside it, and return the paths.

    Args:
        folder: where ``NAME.slides.html`` goes.
        paths: as in ``notebook_paths``.
        code: False hides code and shows its outputs only.
        reveal: address of reveal.js, or a folder with a copy of it.

    Raises:
        FileNotFoundError: a path that does not exist, or no notebook at all.
    """
    from nbconvert import SlidesExporter

    exporter = SlidesExporter(reveal_scroll=True, reveal_url_prefix=reveal)
    exporter.exclude_input = exporter.exclude_input_prompt = exporter.exclude_output_prompt = not code
    found = notebook_paths(paths)
    names = {path.stem for path in found}
    written = []
    for path in found:
        deck = _linked(_described(slides(read_notebook(path, as_version=4))), names, path.parent, Path(folder))
        place = {"metadata": {"name": path.stem, "path": str(path.parent)}}
        page, _ = exporter.from_notebook_node(deck, resources=place)
        written.append(write_text(page, Path(folder) / f"{path.stem}.slides.html"))
    return written


def _split(cell: NotebookNode) -> list[NotebookNode]:
    """Return a text cut before each heading, any other cell as it is; code fences are not looked into."""
    if cell.cell_type != "markdown":
        return [cell]
    parts: list[list[str]] = [[]]
    fenced = False
    for line in cell.source.splitlines():
        fenced ^= FENCE.match(line) is not None
        if HEADING.match(line) and not fenced and any(text.strip() for text in parts[-1]):
            parts.append([])
        parts[-1].append(line)
    more = {"attachments": cell.attachments} if "attachments" in cell else {}
    return [new_markdown_cell("\n".join(p).strip(), metadata=copy.deepcopy(cell.metadata), **more) for p in parts]


def _level(cell: NotebookNode) -> int:
    """Return the level of the heading that a cell opens with, 0 without one."""
    found = HEADING.match(cell.source.lstrip()) if cell.cell_type == "markdown" else None
    return len(found.group(1)) if found else 0


def _lines(cell: NotebookNode) -> int:
    """Return how many lines of a slide a cell takes, roughly."""
    text = re.sub(r"<details>.*?</details>", "...", cell.source, flags=re.DOTALL)
    total = sum(max(1, -(-len(line) // WIDTH)) for line in text.splitlines())
    if cell.cell_type == "markdown":
        return total + PICTURE * text.count("![")
    return total + sum(_output_lines(output) for output in cell.outputs)


def _output_lines(output: NotebookNode) -> int:
    data = output.get("data", {})
    if "image/png" in data:
        return PICTURE
    return str(output.get("text", data.get("text/plain", ""))).count("\n") + 1


def _described(deck: NotebookNode) -> NotebookNode:
    """Give every picture its text equivalent, which is the plain text beside it; nbconvert would say there is none."""
    for output in (output for cell in deck.cells for output in cell.get("outputs", ())):
        data = output.get("data", {})
        if "image/png" in data and "text/html" not in data:
            source, said = data.pop("image/png").strip(), escape(data.get("text/plain", ""))
            data["text/html"] = f'<img alt="{said}" src="data:image/png;base64,{source}">'
    return deck


def _linked(deck: NotebookNode, names: set[str], here: Path, folder: Path) -> NotebookNode:
    """Take still pictures in; links lead to the slides of a notebook, to itself if it has none, and to pages."""
    for cell in (cell for cell in deck.cells if cell.cell_type == "markdown"):
        cell.source = LINK.sub(lambda found: found[1] + _target(found[2], names, here, folder) + found[3], cell.source)
        cell.source = MARKDOWN.sub(lambda found: found[1] + _from(folder, here / found[2]) + found[3], cell.source)
        stills = {name: here / name for _, name, _ in STILL.findall(cell.source) if (here / name).is_file()}
        for name, path in stills.items():
            cell.source = cell.source.replace(f"({name})", f"(attachment:{path.name})")
            data = base64.b64encode(path.read_bytes()).decode()
            cell.setdefault("attachments", NotebookNode())[path.name] = {"image/png": data}
    return deck


def _target(name: str, names: set[str], here: Path, folder: Path) -> str:
    if name in names:
        return f"{name}.slides.html"
    return _from(folder, here / f"{name}.ipynb")


def _from(folder: Path, path: Path) -> str:
    """Return the link to a file, from a page in the folder."""
    return Path(os.path.relpath(path, folder)).as_posix()
