"""The figures of the studies of single examples and of groups, from their tables alone."""

from __future__ import annotations

from collections.abc import Mapping

import pandas
import torch
from matplotlib.axes import Axes

from explainlib.figures.fidelity import predicted_versus_true
from explainlib.figures.palette import SERIES, style
from explainlib.figures.picture import Picture, literal, set_alt

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


def group(tables: Mapping[str, pandas.DataFrame]) -> Picture:
    """Return error and order by size, for random and coherent groups, and the selected groups, predicted and true."""
    images, selection = tables["images"], tables["selection"]
    with style():
        picture = Picture(11.0, 7.6)
        grid = picture.subplots(2, 2)
        picture.subplots_adjust(left=0.08, right=0.98, bottom=0.09, top=0.86, wspace=0.22, hspace=0.42)
    for ax, kind in zip(grid[0], ("random", "coherent"), strict=True):
        part = images[images["kind"] == kind]
        _by_size(ax, part, "parameter_error", f"{kind} groups: error of the parameters", "median relative error")
    _by_size(grid[1, 0], images[images["kind"] == "coherent"], "pearson", "coherent groups: order", "Pearson")
    _selected(grid[1, 1], selection)
    handles, names = grid[0, 0].get_legend_handles_labels()
    with style():
        picture.legend(handles, names, loc="upper left", ncols=5, bbox_to_anchor=(0.05, 0.985), fontsize=10)
    worst = images.sort_values("parameter_error").iloc[-1]
    set_alt(
        picture,
        "Group removal by size: error of the predicted parameters for random and coherent groups, correlation with "
        "the retrained loss changes, and selected groups. The largest median error, "
        f"{worst.parameter_error:.2f}, belongs to {worst.method} on {worst.kind} groups of {worst.fraction:.0%}.",
    )
    return picture


def _by_size(ax: Axes, part: pandas.DataFrame, column: str, title: str, label: str) -> None:
    with style():
        for series, (method, rows) in zip(SERIES, part.groupby("method", sort=False), strict=False):
            line = dict(color=series.colour, marker=series.marker, linewidth=1.6, markersize=6)
            ax.plot(100 * rows["fraction"], rows[column], label=literal(method), **line)
        ax.set_title(title, loc="left")
        ax.set(xlabel="removed, % of the training set", ylabel=label)


def _selected(ax: Axes, selection: pandas.DataFrame) -> None:
    """Draw predicted (open) and retrained (filled) changes of each selection method by size."""
    with style():
        for series, (method, rows) in zip(SERIES, selection.groupby("method", sort=False), strict=False):
            x = 100 * rows["fraction"]
            look = dict(color=series.colour, marker=series.marker, markersize=6)
            ax.plot(x, rows["retrained"], linewidth=1.6, label=literal(method), **look)
            ax.plot(x, rows["predicted"], linewidth=1.0, linestyle=":", markerfacecolor="white", **look)
        ax.set_title("selected groups: retrained (filled), predicted (open)", loc="left")
        ax.set(xlabel="removed, % of the training set", ylabel="change of the test loss")
        ax.legend(fontsize=9, ncols=2)
