"""One palette that colour-blind readers can tell apart; and never colour alone: a series has its marker and hatch too.

Source: Okabe & Ito 2008, Color Universal Design.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import matplotlib
import seaborn

PALETTE = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
}


class Series(NamedTuple):
    """What tells one series from another, with or without colour."""

    colour: str
    marker: str
    hatch: str


# In order of use; yellow is left out because thin yellow marks vanish on white.
SERIES = (
    Series(PALETTE["blue"], "o", ""),
    Series(PALETTE["orange"], "^", "//"),
    Series(PALETTE["green"], "s", ".."),
    Series(PALETTE["purple"], "D", "xx"),
    Series(PALETTE["vermillion"], "v", "\\\\"),
    Series(PALETTE["sky"], "P", "++"),
)

HELPFUL = Series(PALETTE["blue"], "^", "")
HARMFUL = Series(PALETTE["vermillion"], "v", "//")


@cache
def _settings() -> dict[str, object]:
    return {
        **seaborn.axes_style("whitegrid"),
        **seaborn.plotting_context("notebook"),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "axes.labelsize": 11,
        "xtick.labelsize": 10,
        "ytick.labelsize": 10,
        "legend.fontsize": 10,
        "figure.dpi": 110,
        "savefig.dpi": 110,
        "hatch.linewidth": 0.8,
        "legend.frameon": False,
    }


@contextmanager
def style() -> Iterator[None]:
    """Return a context in which figures have a white grid, readable text and no box; the settings come back after."""
    with matplotlib.rc_context(_settings()):
        yield
