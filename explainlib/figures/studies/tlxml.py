"""The figure of the TLXML study, from its tables alone: what pruning does, what controls know, and two matrices."""

from __future__ import annotations

from collections.abc import Mapping

import pandas
from matplotlib.axes import Axes

from explainlib.figures.palette import SERIES, style
from explainlib.figures.picture import Picture, set_alt
from explainlib.figures.studies.tlxml_order import NETWORK, draw_order

KINDS = {"self": "the training task itself", "queries": "same support, new queries", "unseen": "other tasks"}


def tlxml(tables: Mapping[str, pandas.DataFrame]) -> Picture:
    """Return self-ranks by pruning, the spectrum, the degradation, and exact against Gauss-Newton scores."""
    networks = len(tables["order"][NETWORK].drop_duplicates()) if "order" in tables else 0
    below = 0.6 + 0.55 * networks if networks else 0.0  # inches
    with style():
        picture = Picture(11.0, 8.0 + below)
        parts = picture.add_gridspec(2, 1, height_ratios=(8.0, max(below, 1e-3)), hspace=0.22)
        inner = parts[0].subgridspec(2, 2, wspace=0.25, hspace=0.38)
        grid = inner.subplots()
        picture.subplots_adjust(left=0.08, right=0.97, bottom=0.6 / (8.0 + below), top=1 - 0.5 / (8.0 + below))
        if networks:
            place = parts[1].subgridspec(1, 2, width_ratios=(0.22, 0.78))[1]
            draw_order(picture.add_subplot(place), tables["order"])
    pruning = tables["pruning"]
    maml = pruning[pruning["learner"] == "maml"]
    _ranks(grid[0, 0], maml)
    _spectrum(grid[0, 1], tables["spectrum"])
    _degradation(grid[1, 0], tables["degradation"])
    _buffers(grid[1, 1], tables["gaussnewton"])
    numbers = _by_count(maml)
    best = numbers.loc[numbers["queries_first"].idxmax()]
    plain = maml[maml["method"] == "identity"]["queries_first"].mean()
    tests, count = int(maml["tests"].iloc[0]), int(best["count"])
    set_alt(
        picture,
        f"Of {tests} tests with the same support and new queries, the training task comes first in at most "
        f"{best['queries_first']:.0f}, with {count} eigenvalues kept; plain gradient products reach {plain:.0f}. "
        "Below: how rank and darkness correlate, and how exact and Gauss-Newton scores do."
        + (
            f" Then {networks} networks on normal and noise tasks, with their shares in proper order."
            if networks
            else ""
        ),
    )
    return picture


def _by_count(table: pandas.DataFrame) -> pandas.DataFrame:
    """Return the rows that keep a number of eigenvalues, averaged over seeds, sorted by it."""
    part = table[table["method"].astype(str).str.isdigit()]
    part = part.assign(count=part["method"].astype(int))
    return part.groupby("count", as_index=False).mean(numeric_only=True).sort_values("count")


def _ranks(ax: Axes, table: pandas.DataFrame) -> None:
    lines, identity = _by_count(table), table[table["method"] == "identity"]
    with style():
        for series, (kind, label) in zip(SERIES, KINDS.items(), strict=False):
            column = f"{kind}_first"
            ax.plot(lines["count"], lines[column], color=series.colour, marker=series.marker, label=label)
            ax.axhline(identity[column].mean(), color=series.colour, linestyle=":", linewidth=1.2)
        _count_axis(ax, lines["count"])
        ax.set_title(f"first of {int(table['tests'].iloc[0])} (dotted: no Hessian at all)", loc="left")
        ax.set(xlabel="eigenvalues kept", ylabel="tests whose own task ranks first")
        ax.set_ylim(top=1.45 * table["tests"].iloc[0])
        ax.legend(fontsize=9, loc="upper left")


def _count_axis(ax: Axes, counts: pandas.Series) -> None:
    ax.set_xscale("log", base=2)
    shown = [count for i, count in enumerate(counts) if i < 6 or count in (512, counts.max())]
    ax.set_xticks(shown, shown)
    ax.minorticks_off()


def _spectrum(ax: Axes, table: pandas.DataFrame) -> None:
    one = table[table["seed"] == table["seed"].iloc[0]]
    with style():
        for series, (sign, label) in zip(SERIES, ((1, "positive"), (-1, "negative")), strict=False):
            part = one[sign * one["eigenvalue"] > 0]
            ax.plot(part["index"], part["eigenvalue"].abs(), ".", color=series.colour, markersize=3, label=label)
        top = one["eigenvalue"].abs().max()
        ax.set(
            yscale="log", ylim=(1e-12 * top, 3 * top), xlabel="eigenvalue, from the largest", ylabel="absolute value"
        )
        ax.set_title("spectrum of the meta-Hessian", loc="left")
        ax.legend(fontsize=9, markerscale=4)


def _degradation(ax: Axes, table: pandas.DataFrame) -> None:
    names = {"alpha": "half the pictures fade", "ratio": "more pictures go black"}
    with style():
        for series, (sweep, label) in zip(SERIES, names.items(), strict=False):
            part = table[table["sweep"] == sweep]
            lines = _by_count(part)
            ax.plot(lines["count"], lines["rank_correlation"], color=series.colour, marker=series.marker, label=label)
            for method, look in (("identity", ":"), ("unpruned", "--")):
                level = part[part["method"] == method]["rank_correlation"].mean()
                ax.axhline(level, color=series.colour, linestyle=look, linewidth=1.2)
        _count_axis(ax, lines["count"])
        ax.set_ylim(top=1)
        ax.set_title("own rank against darkness (dashed: unpruned, dotted: no Hessian)", loc="left", fontsize=9.5)
        ax.set(xlabel="eigenvalues kept", ylabel="mean correlation")
        ax.legend(fontsize=9, loc="lower left")


def _buffers(ax: Axes, table: pandas.DataFrame) -> None:
    table = table[table["tasks"] == table["tasks"].max()]
    square = table.pivot_table(index="buffer", columns="kept", values="unseen_correlation")
    with style():
        ax.imshow(square.to_numpy(), cmap="cividis", vmin=0, vmax=1, aspect="auto")
        for i, row in enumerate(square.to_numpy()):
            for j, value in enumerate(row):
                ax.text(j, i, f"{value:.2f}", ha="center", va="center", color="black" if value > 0.5 else "white")
        ax.set_xticks(range(square.shape[1]), square.columns)
        ax.set_yticks(range(square.shape[0]), square.index)
        ax.grid(False)
        ax.set_title("exact against Gauss-Newton on unseen tests: correlation", loc="left")
        ax.set(xlabel="eigenvalues kept of the exact Hessian", ylabel="rows in the Gauss-Newton buffer")
