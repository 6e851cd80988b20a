"""The figure of the study of removed tasks: agreement with meta-training again, by the size of the groups."""

from __future__ import annotations

from collections.abc import Mapping

import pandas
from matplotlib.axes import Axes

from explainlib.figures.palette import SERIES, style
from explainlib.figures.picture import Picture, set_alt

METHODS = {
    "hessian": "exact Hessian",
    "gauss-newton": "Gauss-Newton",
    "identity": "no curvature",
    "cosine": "cosine",
    "other batches": "training again, other batches",
}
NETWORKS = {"small": "two layers", "cnn": "convolutional network"}
STATES = {"trained": "after training", "near rest": "brought towards rest"}


def removal(tables: Mapping[str, pandas.DataFrame]) -> Picture:
    """Return the linear datamodeling score by size of the removed groups, a panel for each network and state."""
    table = tables["removal"]
    networks = [name for name in NETWORKS if name in set(table["network"])]
    with style():
        height = 1.6 + 3.1 * len(networks)
        picture = Picture(9.0, height)
        grid = picture.subplots(len(networks), 2, sharey=True, squeeze=False)
        picture.subplots_adjust(left=0.09, right=0.98, bottom=0.62 / height, top=1 - 1.0 / height, hspace=0.42)
    for row, network in zip(grid, networks, strict=True):
        for ax, state in zip(row, STATES, strict=True):
            _scores(ax, table[(table["network"] == network) & (table["state"] == state)])
            ax.set_title(f"{NETWORKS[network]}, {STATES[state]}", loc="left", fontsize=10)
        row[0].set_ylabel("LDS on unseen tasks")
    for ax in grid[-1]:
        ax.set_xlabel("tasks removed together")
    drawn = {label: line for ax in grid.flat for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    picture.legend(drawn.values(), drawn.keys(), ncol=3, fontsize=9, loc="upper center")
    set_alt(picture, f"Mean linear datamodeling score over seeds. {'; '.join(_said(table, networks))}.")
    return picture


def _scores(ax: Axes, table: pandas.DataFrame) -> None:
    """Draw a line a method, with the range over seeds."""
    sizes = sorted(table["size"].unique())
    with style():
        for k, (series, (method, label)) in enumerate(zip(SERIES, METHODS.items(), strict=False)):
            part = table[table["method"] == method].groupby("size")["lds"].agg(["mean", "min", "max"])
            if not len(part):
                continue
            places = [sizes.index(size) + 0.09 * (k - 2) for size in part.index]
            ax.vlines(places, part["min"], part["max"], color=series.colour, linewidth=1.4)
            ax.plot(places, part["mean"], color=series.colour, marker=series.marker, label=label)
        ax.axhline(0, color="grey", linewidth=1, linestyle=":")
        ax.set_xticks(range(len(sizes)), sizes)
        ax.set_ylim(min(-0.1, table["lds"].min() - 0.05), 1.02)


def _said(table: pandas.DataFrame, networks: list[str]) -> list[str]:
    said = []
    for network in networks:
        method = "hessian" if network == "small" else "gauss-newton"
        for state, name in STATES.items():
            part = table[(table["network"] == network) & (table["state"] == state) & (table["method"] == method)]
            means = [f"{mean:.2f} for {size}" for size, mean in part.groupby("size")["lds"].mean().items()]
            said.append(f"{NETWORKS[network]}, {name}, {METHODS[method]}: {', '.join(means)} removed")
    return said
