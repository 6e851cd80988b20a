"""Documents and notebooks about studies: from which runs the numbers of each are, and which words of its own it has."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas

from explainlib.studies import bilevel, fragility, group, removal, representers, tlxml
from explainlib.studies.documents import Maker, Tables, fill_document
from explainlib.studies.kept import kept_tables


@dataclass(frozen=True)
class Document:
    """What the marks of a document may name.

    Attributes:
        runs: study, data and scale of each run, by its name in the marks.
        makers: the study's own words.
        together: names for several runs whose tables are one, with the run's name in the column "run".
    """

    runs: Mapping[str, str]
    makers: Mapping[str, Maker] = field(default_factory=dict)
    together: Mapping[str, Sequence[str]] = field(default_factory=dict)


def _by_data(study: str, *data: str) -> dict[str, str]:
    return {name: f"{study}-{name}-cpu" for name in data}


DOCUMENTS = {
    "bilevel_study.md": Document(
        _by_data("bilevel", "digits", "mnist", "omniglot", "glyphs"),
        bilevel.MAKERS,
        {"hands": ("digits", "mnist"), "anew": ("omniglot", "glyphs")},
    ),
    "fragility_study.md": Document(
        {"networks": "fragility-iris-cpu", "design": "fragility_design-iris-cpu"}, fragility.MAKERS
    ),
    "group_study.md": Document(_by_data("group", "mnist", "digits"), group.MAKERS),
    "removal_study.md": Document(
        {
            "small": "removal-omniglot-cpu",
            "cnn": "removal_cnn-omniglot-cpu",
            "tlxml": "tlxml-omniglot-cpu",
        },
        removal.MAKERS,
    ),
    "representers_study.md": Document(
        _by_data("representers", "mnist", "cifar10", "ag_news", "toxicity"), representers.MAKERS
    ),
    "tlxml_study.md": Document(_by_data("tlxml", "omniglot"), tlxml.MAKERS),
}


NOTEBOOKS = {
    "03_fragility.ipynb": DOCUMENTS["fragility_study.md"],
    "07_tlxml_distributions.ipynb": DOCUMENTS["tlxml_study.md"],
    "08_bilevel_influence.ipynb": DOCUMENTS["bilevel_study.md"],
    "09_which_explanation_when.ipynb": Document({}),
}


def filled_notebook(name: str, text: str, folder: Path, board: pandas.DataFrame) -> str:
    """Return a notebook, as JSON, with every mark in its texts filled in; its code and outputs stay.

    Args:
        name: of the notebook, one of ``NOTEBOOKS``.
        text: of its file.
        folder: of tables.
        board: the scoreboard.
    """
    notebook, fill = json.loads(text), _filler(NOTEBOOKS[name], folder, board)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = fill("".join(cell["source"])).splitlines(keepends=True)
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def filled_document(name: str, text: str, folder: Path, board: pandas.DataFrame) -> str:
    """Return a study's document with every mark filled in.

    Args:
        name: of the document, one of ``DOCUMENTS``.
        text: of it.
        folder: of tables.
        board: the scoreboard.
    """
    return _filler(DOCUMENTS[name], folder, board)(text)


def _filler(document: Document, folder: Path, board: pandas.DataFrame) -> Callable[[str], str]:
    runs: dict[str, Tables] = {run: kept_tables(stem, folder) for run, stem in document.runs.items()}
    runs |= {both: _joined({run: runs[run] for run in parts}) for both, parts in document.together.items()}
    return lambda text: fill_document(text, runs, board, document.makers)


def _joined(runs: Mapping[str, Tables]) -> Tables:
    """Return the tables that all runs have, one below the other."""
    names = set.intersection(*(set(tables) for tables in runs.values()))
    return {
        name: pandas.concat([tables[name].assign(run=run) for run, tables in runs.items()], ignore_index=True)
        for name in sorted(names)
    }
