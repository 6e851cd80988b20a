"""A study's figure, drawn from its tables on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas

from explainlib.figures.picture import Picture, png
from explainlib.figures.studies.bilevel import bilevel
from explainlib.figures.studies.fragility import fragility
from explainlib.figures.studies.fragility_design import fragility_design
from explainlib.figures.studies.group import group, influence
from explainlib.figures.studies.removal import removal
from explainlib.figures.studies.representers import representers
from explainlib.figures.studies.tlxml import tlxml
from explainlib.storage import write_bytes
from explainlib.studies.record import parse_table

STUDY_FIGURES: dict[str, Callable[[Mapping[str, pandas.DataFrame]], Picture]] = {
    "influence": influence,
    "group": group,
    "tlxml": tlxml,
    "representers": representers,
    "removal": removal,
    "removal_cnn": removal,
    "bilevel": bilevel,
    "fragility": fragility,
    "fragility_design": fragility_design,
}


def draw(name: str, tables: Sequence[Path]) -> Path:
    """Draw a study's figure from its tables on disk, and return the path of the PNG beside them.

    Args:
        name: the study.
        tables: its CSV files, ``<stem>-<table>.csv``; other files are passed over.
    """
    files = {path.stem.rsplit("-", 1)[1]: path for path in tables if path.suffix == ".csv"}
    read = {table: parse_table(path.read_bytes(), path, "run the study again") for table, path in files.items()}
    first = next(path for path in tables if path.suffix == ".csv")
    return write_bytes(png(STUDY_FIGURES[name](read), dpi=120), first.with_name(first.stem.rsplit("-", 1)[0] + ".png"))
