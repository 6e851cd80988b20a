"""The figure of the bilevel study, from its tables alone: editing, fractions, depth, accuracy, wrong labels found."""

from __future__ import annotations

from collections.abc import Mapping

import pandas
from matplotlib.axes import Axes

from explainlib.figures.bilevel import derivative_reach
from explainlib.figures.palette import SERIES, style
from explainlib.figures.picture import Picture, literal, set_alt

EDITS = ("task influence", "leave-out Newton step", "without third derivative", "first order", "Gamma")
FINDERS = ("task influence", "gradient product", "raw loss", "TracIn", "EK-FAC IF, flat", "random")
RANKERS = ("task influence", "gradient product", "cosine", "random")


def bilevel(tables: Mapping[str, pandas.DataFrame]) -> Picture:
    """Return errors by tasks removed, by the fraction of one, by Neumann depth, and the tasks with wrong labels found.

    With one inner problem the lower left shows the accuracy after the most helpful tasks are gone, else the second one.
    """
    editing, depth, harmful = (tables[name] for name in ("editing", "depth", "harmful"))
    inners = [str(inner) for inner in editing["inner"].unique()][:2]
    inner = inners[0]
    with style():
        picture = Picture(16.2, 8.2)
        grid = picture.subplots(2, 3)
        picture.subplots_adjust(left=0.055, right=0.985, bottom=0.08, top=0.95, wspace=0.24, hspace=0.36)
    for ax, one in zip((grid[0, 0], grid[1, 0]), inners, strict=False):
        _editing(ax, editing[editing["inner"] == one], one)
    if len(inners) == 1:
        _descending(grid[1, 0], tables["descending"])
    derivative_reach(tables["fractions"], title="how far the derivative holds", ax=grid[0, 1])
    _depth(grid[0, 2], depth[depth["inner"] == inner])
    for ax, flipped in zip(grid[1, 1:], sorted(harmful["flipped"].unique()), strict=False):
        _found(ax, harmful[(harmful["inner"] == inner) & (harmful["flipped"] == flipped)], flipped)
    one = editing[(editing["inner"] == inner) & (editing["count"] == 1)].groupby("method")["parameter_error"].median()
    set_alt(
        picture,
        f"Editing beside solving again, {inner} problem: the median relative error of the meta-parameters for one task "
        f"is {one['task influence']:.2f} by task influence, {one['leave-out Newton step']:.3f} by one Newton step and "
        f"{one['Gamma']:.2f} by Gamma. Below: the share of tasks with wrong labels found among those inspected.",
    )
    return picture


def _editing(ax: Axes, table: pandas.DataFrame, inner: str) -> None:
    with style():
        for series, method in zip(SERIES, EDITS, strict=False):
            rows = table[table["method"] == method].groupby("count")["parameter_error"].median()
            if len(rows):
                ax.plot(
                    rows.index, rows, color=series.colour, marker=series.marker, label=literal(method), linewidth=1.6
                )
        ax.set(xscale="log", yscale="log", xlabel="tasks removed at once", ylabel="relative error of the parameters")
        ax.set_title(f"editing against solving again ({literal(inner)})", loc="left")
        ax.legend(fontsize=9)


def _depth(ax: Axes, table: pandas.DataFrame) -> None:
    with style():
        for series, kind in zip(SERIES, ("Neumann depth", "inner descent steps"), strict=False):
            rows = table[table["kind"] == kind].sort_values("steps")
            if len(rows):
                ax.plot(
                    rows["steps"],
                    rows["error"],
                    color=series.colour,
                    marker=series.marker,
                    label=literal(kind),
                    linewidth=1.6,
                )
        floor = float(table[table["kind"] == "dense"]["error"].iloc[0])
        ax.axhline(floor, color="0.4", linewidth=1.2, linestyle="--", label="dense, inner problem solved")
        ax.set(xscale="log", yscale="log", xlabel="terms of the series, or steps", ylabel="error against solving again")
        ax.set_title("how deep, how exact", loc="left")
        ax.legend(fontsize=9)


def _descending(ax: Axes, table: pandas.DataFrame) -> None:
    """Draw the accuracy on new tasks after the share of most helpful training tasks is gone, a line a method."""
    with style():
        for series, method in zip(SERIES, RANKERS, strict=False):
            rows = table[table["method"] == method].groupby("share")["accuracy"].mean()
            look = dict(color=series.colour, marker=series.marker, linewidth=1.6)
            ax.plot(100 * rows.index, 100 * rows, label=literal(method), **look)
        ax.axhline(100 * table["accuracy_before"].mean(), color="0.4", linewidth=1.2, linestyle="--", label="all tasks")
        ax.set(xlabel="most helpful tasks removed, %", ylabel="accuracy on new tasks, %")
        ax.set_title("solved again without them", loc="left")
        ax.legend(fontsize=9)


def _found(ax: Axes, table: pandas.DataFrame, flipped: float) -> None:
    with style():
        for k, (series, method) in enumerate(zip(SERIES, FINDERS, strict=False)):  # moved aside: some are the same
            rows = table[table["method"] == method].groupby("inspected")["found"].mean()
            ax.plot(
                100 * rows.index + 0.9 * (k - 2),
                100 * rows,
                color=series.colour,
                marker=series.marker,
                label=literal(method),
                linewidth=1.6,
            )
        ends = [0, min(1.0, flipped), 1]
        ax.plot([100 * x for x in ends], [0, 100, 100], color="0.4", linestyle="--", linewidth=1.2, label="the most")
        ax.set(xlabel="tasks inspected, % (curves moved aside)", ylabel="tasks with wrong labels found, %")
        ax.set_title(f"labels wrong in {flipped:.0%} of the tasks", loc="left")
        ax.legend(fontsize=8)
