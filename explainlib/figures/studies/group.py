"""The figures of the studies of single examples and of groups, from their tables alone."""

from __future__ import annotations

from collections.abc import Mapping

import pandas
import torch
from matplotlib.axes import Axes

from explainlib.figures.fidelity import predicted_versus_true
from explainlib.figures.palette import SERIES, Series, style
from explainlib.figures.picture import Picture, literal, set_alt
from explainlib.studies.claims import student_interval

METHODS = {"first_order": "first order", "newton_step": "Newton step"}
ORDERS = {"Koh first order": SERIES[0], "second order": SERIES[2]}
GAINS = (
    ("within tests", "per_test", "preserve", SERIES[2]),
    ("pooled", "pearson", "preserve", SERIES[1]),
    ("pooled, plain truth", "pearson", "plain", SERIES[3]),
)


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
    """Return the paper's Figure 2 (correlation by size), the gains by ridge, the errors, and the selected groups."""
    images = tables["images"]
    images = images[images["damping"] == 0]
    paper, ridges = images[images["truth"] == "preserve"], sorted(images["ridge"].unique(), reverse=True)
    with style():
        picture = Picture(14.0, 8.4)
        grid = picture.subplots(2, 3)
        picture.subplots_adjust(left=0.06, right=0.98, bottom=0.08, top=0.95, wspace=0.24, hspace=0.34)
    for column, kind in enumerate(("random", "coherent")):
        part = paper[paper["kind"] == kind]
        _correlation(grid[0, column], part, f"{kind} groups: correlation within a test", ridges)
        errors = part[(part["ridge"] == ridges[0]) & (part["weighting"] == "preserve")]
        _errors(grid[1, column], errors, f"{kind} groups: error of the parameters, ridge {ridges[0]:g}")
    gains = _gains(grid[0, 2], images, ridges)
    if "selection" in tables:
        _selected(grid[1, 2], tables["selection"])
    else:
        grid[1, 2].set_axis_off()
        grid[1, 2].text(0.5, 0.5, "selected groups: in the run on MNIST", ha="center", transform=grid[1, 2].transAxes)
    set_alt(
        picture,
        "Group removal by size: correlation of predicted and retrained changes within a test, by order and ridge, for "
        f"random and coherent groups; error of the parameters; selected groups. From Koh's first order to second, "
        f"random groups of {paper['fraction'].max():.0%} gain {gains}.",
    )
    return picture


def _over_seeds(rows: pandas.DataFrame, column: str, by: str) -> pandas.DataFrame:
    """Return mean and half width of Student's interval over seeds, by a column."""
    seeds = rows.groupby([by, "seed"])[column].median().unstack("seed")
    found = {}
    for at, values in seeds.iterrows():
        mean, low, high = (float(end) for end in student_interval(values.dropna().to_numpy()))
        found[at] = (mean, (high - low) / 2 if high < float("inf") else 0.0)
    return pandas.DataFrame(found, index=["mean", "half"]).T


def _draw(ax: Axes, line: pandas.DataFrame, x: list[float], label: str, look: Series, linestyle: str = "-") -> None:
    options = dict(color=look.colour, marker=look.marker, linewidth=1.6, markersize=6, capsize=3, elinewidth=1.0)
    ax.errorbar(x, line["mean"], yerr=line["half"], label=literal(label), linestyle=linestyle, **options)


def _correlation(ax: Axes, part: pandas.DataFrame, title: str, ridges: list[float]) -> None:
    """Draw the two orders of Figure 2 at the largest ridge (solid) and at the smallest (dashed)."""
    with style():
        for ridge, linestyle in dict(zip((ridges[-1], ridges[0]), ("--", "-"), strict=True)).items():
            for method, look in ORDERS.items():
                rows = part[(part["method"] == method) & (part["ridge"] == ridge)]
                line = _over_seeds(rows, "per_test", "fraction")
                _draw(ax, line, list(100 * line.index), f"{method}, ridge {ridge:g}", look, linestyle)
        ax.set_title(title, loc="left")
        ax.set(xlabel="removed, % of the training set", ylabel="Pearson, median over tests")
        low, high = ax.get_ylim()
        ax.set_ylim(bottom=low - 0.45 * (high - low))  # room for the legend
        ax.legend(fontsize=9, loc="lower left")


def _errors(ax: Axes, part: pandas.DataFrame, title: str) -> None:
    with style():
        for look, (method, rows) in zip(SERIES[1:], part.groupby("method", sort=False), strict=False):
            line = _over_seeds(rows, "parameter_error", "fraction")
            _draw(ax, line, list(100 * line.index), method, look)
        ax.set_title(title, loc="left")
        ax.set(xlabel="removed, % of the training set", ylabel="median relative error")
        ax.legend(fontsize=9)


def _gains(ax: Axes, images: pandas.DataFrame, ridges: list[float]) -> str:
    """Draw the relative gain of the largest random groups by ridge; return it in words."""
    most = images[images["truth"] == "plain"]["fraction"].max()
    rows, said = images[(images["kind"] == "random") & (images["fraction"] == most)], []
    with style():
        for shift, (name, column, truth, look) in zip((-0.12, 0.0, 0.12), GAINS, strict=True):
            wide = rows[rows["truth"] == truth].pivot(index=["ridge", "seed"], columns="method", values=column)
            gain = (100 * (wide["second order"] / wide["Koh first order"] - 1)).rename("gain").reset_index()
            line = _over_seeds(gain, "gain", "ridge").loc[ridges]
            _draw(ax, line, [k + shift for k in range(len(ridges))], name, look, "none")
            said.append(f"{line['mean'].max():.0f}% at most {name}")
        ax.axhline(40, color="0.4", linewidth=1.0, linestyle=":")
        ax.text(0.99, 41, "40%", fontsize=9, color="0.3", ha="right", transform=ax.get_yaxis_transform())
        ax.set_xlim(-0.4, len(ridges) - 0.6)
        ax.set_xticks(range(len(ridges)), [f"{ridge:g}" for ridge in ridges])
        ax.set_title(f"random groups of {most:.0%}: gain of second order", loc="left")
        ax.set(xlabel="ridge", ylabel="gain of Pearson over Koh's first order, %")
        ax.legend(fontsize=9)
    return ", ".join(said)


def _selected(ax: Axes, selection: pandas.DataFrame) -> None:
    """Draw predicted (open) and retrained (filled) changes of each selection method by size, means over the draws."""
    with style():
        for series, (method, rows) in zip(SERIES, selection.groupby("method", sort=False), strict=False):
            mean = rows.groupby("fraction")[["predicted", "retrained"]].mean()
            x = 100 * mean.index
            look = dict(color=series.colour, marker=series.marker, markersize=6)
            ax.plot(x, mean["retrained"], linewidth=1.6, label=literal(method), **look)
            ax.plot(x, mean["predicted"], linewidth=1.0, linestyle=":", markerfacecolor="white", **look)
        ax.set_title("selected: retrained (filled), predicted (open)", loc="left")
        ax.set(xlabel="removed, % of the training set", ylabel="change of the test loss")
        ax.set_ylim(top=1.3 * ax.get_ylim()[1])  # room for the legend
        ax.legend(fontsize=9, ncols=3, loc="upper left")
