"""The figure of the fragility design, from its tables alone: cells, averages, Bayesian networks, images, groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas
from matplotlib.axes import Axes

from explainlib.figures.palette import SERIES, style
from explainlib.figures.picture import Picture, literal, set_alt
from explainlib.studies.claims import mean_interval
from explainlib.studies.fragility.design.averages import STATES
from explainlib.studies.fragility.design.images import AGAIN, ALL, GRADIENTS, LAST, SOLVED, TRAINED

PREDICTIONS = {
    "influence, damping 0": "influence",
    "influence, damping 0.01": "influence, damped by .01",
    "gradient product": "gradient product",
    "loss of the example": "loss of the example",
}
COSTS = {
    "L2": "ridge, no prior",
    "sampled_cross_entropy": "sampled cost",
    "gaussian": "the paper's cost",
    "expected_cross_entropy": "Taylor cost",
}
PAIRS = {
    (LAST, TRAINED): "last layer's influence",
    (ALL, TRAINED): "all parameters' influence",
    (GRADIENTS, TRAINED): "gradient product",
    (TRAINED, AGAIN): "the truth, other batches",
}
ORDERS = {
    ("order 1", TRAINED): "first order",
    ("order 2", TRAINED): "second order",
    (SOLVED, TRAINED): "last layer solved",
    (TRAINED, AGAIN): "the truth, other batches",
}
SIZES = {"signal": "what repeats", "noise": "what the batches do", "size_solved": "last layer solved"}


def fragility_design(tables: Mapping[str, pandas.DataFrame]) -> Picture:
    """Return means over networks with 95% intervals, a panel a part of the design."""
    with style():
        picture = Picture(14.2, 12.4)
        grid = picture.subplots(2, 3)
        picture.subplots_adjust(left=0.13, right=0.985, bottom=0.11, top=0.965, wspace=0.5, hspace=0.36)
    _cells(grid[0, 0], tables["factors"])
    _averages(grid[0, 1], tables["averages"])
    _bayes(grid[0, 2], tables["bayes"])
    _pairs(grid[1, 0], tables["images"])
    _noise(grid[1, 1], tables["noise"])
    _groups(grid[1, 2], tables["groups"])
    set_alt(picture, "; ".join(f"{row.id}: {row.verdict}. {row.ours}" for row in tables["claims"].itertuples()))
    return picture


def _dots(ax: Axes, rows: Sequence[str], found: Mapping[str, Mapping[str, Sequence[float]]], title: str) -> None:
    """Draw the mean and interval of each series in each row.

    Args:
        ax: where.
        rows: names from top to bottom.
        found: values over networks, by series and row.
        title: of the panel.
    """
    with style():
        for k, (series, (name, values)) in enumerate(zip(SERIES, found.items(), strict=False)):
            known = {row: v for row in rows if len(v := [x for x in values.get(row, ()) if x == x])}
            if not known:
                continue
            y = [rows.index(row) + 0.16 * (k - (len(found) - 1) / 2) for row in known]
            means = [mean_interval(v) for v in known.values()]
            ends = [(max(low, -1.0), min(high, 1.0)) for _, low, high in means]
            ax.hlines(y, [low for low, _ in ends], [high for _, high in ends], color=series.colour, linewidth=1.4)
            ax.plot([m for m, _, _ in means], y, series.marker, color=series.colour, ms=6, label=literal(name))
        ax.axvline(0, color="0.6", linewidth=1, linestyle=":")
        ax.set_yticks(range(len(rows)), list(map(literal, rows)), fontsize=9)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_xlim(-1.05, 1.05)
        ax.set_xlabel("Spearman")
        ax.set_title(title, loc="left")
        ax.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.42, -0.11), ncols=2, frameon=False)


def _cells(ax: Axes, factors: pandas.DataFrame) -> None:
    table = factors[(factors["status"] == "compared") & (factors["protocol"] == "highest loss")]
    table = table[~table["shape"].str.contains("150 flowers")]
    name = table["parameters"].map({"last": "last layer", "all": "all"}) + ",\n" + table["truth"]
    table = table.assign(row=name + table["ridge"].map(lambda ridge: ", ridge" if ridge else ""))
    rows = sorted(table["row"].unique(), key=lambda row: (not row.endswith("ridge"), row))
    found = {}
    for prediction, label in PREDICTIONS.items():
        part = table[table["prediction"] == prediction]
        by = part.groupby(["row", "split"])["spearman"].mean()  # over the shapes
        found[label] = {row: by[row].tolist() for row in by.index.get_level_values("row").unique()}
    _dots(ax, rows, found, "one factor at a time (Iris)")


def _averages(ax: Axes, averages: pandas.DataFrame) -> None:
    table = averages[averages["status"] == "compared"]
    table = table.assign(
        row=table["shape"].str.replace("relu, ", "") + table["ridge"].map(lambda r: "\nridge" if r else "")
    )
    found = {
        state: {
            row: part["spearman_highest_loss"].tolist() for row, part in table[table["state"] == state].groupby("row")
        }
        for state in STATES
    }
    _dots(ax, sorted(table["row"].unique()), found, "averaging and its twin")


def _bayes(ax: Axes, bayes: pandas.DataFrame) -> None:
    weights = bayes["kl_weight"].where(bayes["cost"] != "L2", 1.0)
    table = bayes[(bayes["status"] == "compared") & (weights == 1.0)]
    found = {
        label: {
            shape: part["spearman_highest_loss"].tolist()
            for shape, part in table[table["cost"] == cost].groupby("shape", sort=False)
        }
        for cost, label in COSTS.items()
    }
    rows = list(bayes["shape"].unique())
    _dots(ax, rows, found, "Bayesian networks by cost")
    with style():
        ax.set_yticks(range(len(rows)), [literal(row.replace(", ", "\n")) for row in rows], fontsize=9)


def _pairs(ax: Axes, images: pandas.DataFrame) -> None:
    table = images[images["status"] == "compared"]
    table = table.assign(row=table["data"] + "\n" + table["network"])
    found = {
        label: {
            row: part["spearman"].tolist()
            for row, part in table[(table["a"] == a) & (table["b"] == b)].groupby("row", sort=False)
        }
        for (a, b), label in PAIRS.items()
    }
    _dots(ax, list(table["row"].unique()), found, "larger networks, trained on")


def _noise(ax: Axes, noise: pandas.DataFrame) -> None:
    table = noise[noise["status"] == "compared"].drop_duplicates(["n", "seed"])
    with style():
        for series, (name, label) in zip(SERIES, SIZES.items(), strict=False):
            by = table.groupby("n")[name]
            ax.vlines(by.min().index, by.min(), by.max(), color=series.colour, linewidth=1.2)
            ax.plot(
                by.median().index, by.median(), series.marker, color=series.colour, label=literal(label), linestyle="-"
            )
        ax.set(xscale="log", yscale="log", xlabel="training examples", ylabel="change of the worst test's loss")
        sizes = sorted(table["n"].unique())
        ax.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=9)
        ax.minorticks_off()
        ax.set_title("signal and batch noise (median, range)", loc="left")
        ax.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.42, -0.11), frameon=False)


def _groups(ax: Axes, groups: pandas.DataFrame) -> None:
    rows = [f"{size} removed" for size in sorted(groups["size"].unique())]
    table = groups.assign(row=groups["size"].map(lambda size: f"{size} removed"))
    found = {
        label: {
            row: part["spearman"].tolist() for row, part in table[(table["a"] == a) & (table["b"] == b)].groupby("row")
        }
        for (a, b), label in ORDERS.items()
    }
    _dots(ax, rows, found, "groups, trained on")
