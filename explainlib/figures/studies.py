"""The figures of the studies, drawn from their tables alone: the same file gives the same figure anywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas
import torch

from explainlib.figures.fidelity import predicted_versus_true
from explainlib.figures.palette import style
from explainlib.figures.picture import Picture, png
from explainlib.storage import write_bytes

METHODS = {"first_order": "first order", "newton_step": "Newton step"}


def influence(tables: Mapping[str, pandas.DataFrame]) -> Picture:
    """Return predicted against retrained loss changes, one panel per ridge."""
    pairs = tables["pairs"]
    ridges = sorted(pairs["l2"].unique(), reverse=True)
    with style():
        picture = Picture(5.2 * len(ridges), 5.4)
        grid = picture.subplots(1, len(ridges), squeeze=False)[0]
        picture.subplots_adjust(left=0.09, right=0.98, bottom=0.12, top=0.82, wspace=0.3)
    for ax, l2 in zip(grid, ridges, strict=True):
        part = pairs[pairs["l2"] == l2]
        predicted = {label: torch.tensor(part[column].to_numpy()) for column, label in METHODS.items()}
        true = torch.tensor(part["retrained"].to_numpy())
        predicted_versus_true(predicted, true, ax=ax, title=f"ridge {l2:g}", unit="change of test loss")
    return picture


STUDY_FIGURES: dict[str, Callable[[Mapping[str, pandas.DataFrame]], Picture]] = {"influence": influence}


def draw(name: str, tables: Sequence[Path]) -> Path:
    """Draw a study's figure from its tables on disk, and return the path of the PNG beside them.

    Args:
        name: the study.
        tables: its CSV files, ``<stem>-<table>.csv``; other files are passed over.
    """
    read = {path.stem.rsplit("-", 1)[1]: pandas.read_csv(path) for path in tables if path.suffix == ".csv"}
    first = next(path for path in tables if path.suffix == ".csv")
    return write_bytes(png(STUDY_FIGURES[name](read), dpi=120), first.with_name(first.stem.rsplit("-", 1)[0] + ".png"))
