"""The figure of the representers study, from its tables alone: areas by experiment, and the deletion curves."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import fill

import pandas
from matplotlib.axes import Axes

from explainlib.figures.palette import SERIES, style
from explainlib.figures.picture import Picture, literal, set_alt
from explainlib.studies.representers import PARTS, SUMMED

TITLES = {
    "I": "I: which global importance? (kernel: NTK final)",
    "II": "II: which kernel? (importance: tracking)",
    "III": "III: which method?",
}
IMPORTANCES = {  # with the kernel that the surrogate has
    "tracking": "tracking, NTK final" + SUMMED,
    "target": "target, NTK final" + SUMMED,
    "surrogate": "surrogate, NTK final",
    "random": "random",
}
WIDEST = 26  # letters of a label in one line
DRAWN = ("tracking, NTK final", "TracInCP", "influence function", "surrogate, NTK final", "random")


def representers(tables: Mapping[str, pandas.DataFrame]) -> Picture:
    """Return AUC-DEL- with its intervals for each experiment, and five deletion curves with theirs.

    The first experiment is shown under one kernel and by stop, in tables that have that kernel.

    Args:
        tables: of the study.
    """
    areas = tables["methods"][tables["methods"]["part"] == "main"]
    curves = tables["curves"][tables["curves"]["part"] == "main"]
    with style():
        picture = Picture(11.6, 8.2)
        grid = picture.subplots(2, 2)
        picture.subplots_adjust(left=0.2, right=0.985, bottom=0.08, top=0.95, wspace=0.6, hspace=0.36)
    limits = min(0.0, areas["auc_low"].min()), areas["auc_high"].max()
    for ax, name in zip(grid.flat, TITLES, strict=False):
        if name == "I" and IMPORTANCES["tracking"] in set(areas["method"]):
            _importances(ax, tables["methods"])
            continue
        _areas(ax, areas[[name in where.split(", ") for where in areas["experiments"]]], TITLES[name], limits)
    _curves(grid[1, 1], curves)
    best = areas.loc[areas["auc"].idxmax()]
    set_alt(
        picture,
        f"Mean rise of the explained output after deletion, by method. The highest is {best.method} with "
        f"{best.auc:.2f}; random deletion gives {areas[areas['method'] == 'random']['auc'].iloc[0]:.2f}.",
    )
    return picture


def _areas(ax: Axes, part: pandas.DataFrame, title: str, limits: tuple[float, float]) -> None:
    part = part.sort_values("auc")
    names = [name.removeprefix("tracking, ") if title.startswith("II:") else name for name in part["method"]]
    with style():
        for y, row in enumerate(part.itertuples()):
            ax.plot([row.auc_low, row.auc_high], [y, y], color=SERIES[0].colour, linewidth=2)
            ax.plot(row.auc, y, marker=SERIES[0].marker, color=SERIES[0].colour, markersize=7)
        ax.axvline(0.0, color="0.5", linewidth=1)
        ax.set_yticks(range(len(part)), [literal(fill(name, WIDEST)) for name in names])
        span = limits[1] - limits[0]
        ax.set_xlim(limits[0] - 0.05 * span, limits[1] + 0.05 * span)
        ax.set_ylim(-0.6, len(part) - 0.4)
        ax.set_title(title, loc="left")
        ax.set_xlabel("mean rise of the logit (AUC-DEL$_-$)")


def _importances(ax: Axes, methods: pandas.DataFrame) -> None:
    """Draw the importances with one kernel, a group of intervals each stop, the first on top."""
    stops = [part for part in PARTS if part in set(methods["part"])]
    with style():
        for at, (series, (name, method)) in enumerate(zip(SERIES, IMPORTANCES.items(), strict=False)):
            rows = methods[methods["method"] == method].set_index("part").loc[stops]
            y = [len(stops) - 1 - i + 0.27 - 0.18 * at for i in range(len(stops))]
            ax.hlines(y, rows["auc_low"], rows["auc_high"], color=series.colour, linewidth=2)
            ax.plot(rows["auc"], y, color=series.colour, marker=series.marker, linestyle="", label=name)
        ax.axvline(0.0, color="0.5", linewidth=1)
        ax.set_yticks(range(len(stops)), [PARTS[part] for part in reversed(stops)])
        ax.set_ylim(-0.6, len(stops) - 0.4)
        right = ax.get_xlim()[1]
        ax.set_xlim(right=1.45 * right)  # room for the legend
        ax.set_title("I: which global importance? (one kernel)", loc="left")
        ax.set_xlabel("mean rise of the logit (AUC-DEL$_-$)")
        ax.legend(fontsize=9, loc="lower right")


def _curves(ax: Axes, curves: pandas.DataFrame) -> None:
    with style():
        for series, method in zip(SERIES, DRAWN, strict=False):
            rows = curves[curves["method"] == method]
            ax.fill_between(
                100 * rows["share"], rows["low"], rows["high"], color=series.colour, alpha=0.15, linewidth=0
            )
            ax.plot(
                100 * rows["share"],
                rows["change"],
                color=series.colour,
                marker=series.marker,
                label=literal(method),
                linewidth=1.6,
            )
        ax.axhline(0.0, color="0.5", linewidth=1)
        ax.set_title("lowest scores deleted first", loc="left")
        ax.set(xlabel="deleted, % of the training set", ylabel="rise of the logit")
        top = ax.get_ylim()[1]
        ax.set_ylim(top=1.45 * top)  # room for the legend
        ax.legend(fontsize=9, ncols=2, loc="upper left")
