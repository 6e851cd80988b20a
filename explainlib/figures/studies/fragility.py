"""The figure of the fragility study, from its tables alone: sweeps, spectrum, 2 x 2, pictures, curves, ladder."""

from __future__ import annotations

from collections.abc import Mapping

import pandas
from matplotlib.axes import Axes

from explainlib.figures.palette import PALETTE, SERIES, style
from explainlib.figures.picture import Picture, literal, set_alt
from explainlib.studies.fragility import KINDS, LEAST

LOOKS = dict(zip(KINDS, SERIES, strict=False))


def fragility(tables: Mapping[str, pandas.DataFrame]) -> Picture:
    """Return Spearman and top eigenvalue by depth and width, the 2 x 2 table, pictures, curves and the ladder."""
    with style():
        picture = Picture(13.6, 11.6)
        grid = picture.subplots(3, 3)
        picture.subplots_adjust(left=0.065, right=0.985, bottom=0.06, top=0.92, wspace=0.4, hspace=0.42)
    for ax, grows in zip(grid[0], ("depth", "width"), strict=False):
        draw_sweep(ax, tables["iris"], grows, "spearman_highest_loss", f"order by {grows} (last layer)", "Spearman")
        ax.set_ylim(-1.05, 1.05)
    for ax, grows in zip(grid[1], ("depth", "width"), strict=False):
        draw_sweep(ax, tables["spectrum"], grows, "top_eigenvalue", f"top eigenvalue by {grows}", "top eigenvalue")
        ax.set_yscale("log")
    _like_with_like(grid[0, 2], tables["two"])
    draw_pictures(grid[1, 2], tables["points"], tables["pictures"])
    for ax, data in zip(grid[2], tables["curves"]["data"].unique(), strict=False):
        draw_curves(ax, tables["curves"], data)
    draw_ladder(grid[2, 2], tables["ladder"])
    handles, names = grid[0, 0].get_legend_handles_labels()
    with style():
        picture.legend(handles, names, loc="upper left", ncols=5, bbox_to_anchor=(0.05, 0.99), fontsize=11)
    set_alt(picture, str(tables["closing"]["text"].iloc[0]))
    return picture


def draw_sweep(ax: Axes, table: pandas.DataFrame, grows: str, measure: str, title: str, label: str) -> None:
    """Draw one line a kind with its interval, moved aside a little; sizes with few networks alive are left out."""
    part = table[table["sweep"] == grows]
    alive = part["repeats"] - part["collapsed"]
    part = part[alive >= part["repeats"].clip(upper=LEAST)]
    unit = 0.012 * (part["size"].max() - part["size"].min() or 1)
    with style():
        for k, (kind, look) in enumerate(LOOKS.items()):
            rows = part[part["kind"] == kind].sort_values("size").dropna(subset=[measure])
            if not len(rows):
                continue
            x = rows["size"] + (k - 2) * unit
            ax.plot(
                x,
                rows[measure],
                color=look.colour,
                marker=look.marker,
                markersize=6,
                linewidth=1.4,
                label=literal(kind),
            )
            ax.vlines(x, rows[f"{measure}_low"], rows[f"{measure}_high"], color=look.colour, linewidth=1.4)
        ax.set_title(title, loc="left")
        ax.set(xlabel="hidden layers of width 5" if grows == "depth" else "width of one hidden layer", ylabel=label)
        ax.set_xticks(sorted(part["size"].unique()))


def _like_with_like(ax: Axes, two: pandas.DataFrame) -> None:
    part = two[two["over"] == "highest loss"]
    pairs = list(part[["a", "b"]].drop_duplicates().itertuples(index=False, name=None))
    with style():
        for series, (activation, rows) in zip(SERIES, part.groupby("activation", sort=False), strict=False):
            y = [pairs.index((r.a, r.b)) for r in rows.itertuples()]
            place = [at + (0.14 if activation == "relu" else -0.14) for at in y]
            ax.hlines(place, rows["spearman_25"], rows["spearman_75"], color=series.colour, linewidth=2)
            ax.plot(
                rows["spearman"], place, series.marker, color=series.colour, markersize=8, label=literal(activation)
            )
        ax.set_yticks(range(len(pairs)), [literal(f"{a}\n{b}") for a, b in pairs], fontsize=9)
        ax.set_ylim(len(pairs) - 0.5, -0.5)
        ax.set_xlim(min(0.0, part["spearman_25"].min()) - 0.03, 1.05)
        ax.set_title("like with like (medians, quartiles)", loc="left")
        ax.set_xlabel("Spearman")
        ax.legend(loc="lower left", fontsize=9)


def draw_pictures(ax: Axes, points: pandas.DataFrame, numbers: pandas.DataFrame) -> None:
    """Draw the constructed pairs of one Spearman into one frame."""
    with style():
        for series, row in zip(SERIES, numbers.itertuples(), strict=False):
            if not row.picture.startswith("constructed"):
                continue
            part = points[points["picture"] == row.picture]
            caption = f"Spearman {row.spearman:.3f}, R$^2$ {row.r2:.2f}"
            look = dict(color=series.colour, marker=series.marker, s=22, edgecolors="white", linewidths=0.4)
            ax.scatter(part["predicted"], part["true"], label=caption, **look)
        ax.set_title("one order, two pictures", loc="left")
        ax.set(xlabel="predicted", ylabel="true")
        ax.legend(loc="upper left", fontsize=9)


def draw_curves(ax: Axes, curves: pandas.DataFrame, data: str) -> None:
    """Draw the loss of the worst test while the network trains on, without one example and with all."""
    rows = curves[curves["data"] == data]
    with style():
        for removed, line in rows.groupby("removed"):
            whole = removed < 0
            look = dict(color=PALETTE["blue"], alpha=0.6)
            if whole:
                look = dict(color=PALETTE["black"], linestyle="--", zorder=5)
            first = removed == rows[rows["removed"] >= 0]["removed"].min()
            label = "with all examples" if whole else "without one" if first else None
            ax.plot(line["epoch"], line["loss"], linewidth=1.2, label=label, **look)
        ax.set_title(f"retraining on {literal(data)}", loc="left")
        ax.set(xlabel="epoch", ylabel="loss of the worst test")
        ax.legend(fontsize=9)


def draw_ladder(ax: Axes, ladder: pandas.DataFrame) -> None:
    """Draw each step's share of the disagreement between influence and cold-start retraining, a dot a network."""
    shares = ladder.dropna(subset=["step"])
    means = shares.groupby("step", sort=False)["share"].mean()
    with style():
        y = range(len(means))
        ax.barh(y, 100 * means, color=SERIES[0].colour, alpha=0.75)
        ax.plot(100 * shares["share"], [list(means.index).index(s) for s in shares["step"]], "o", color="black", ms=4)
        ax.set_yticks(y, list(map(literal, means.index)), fontsize=9)
        ax.set_ylim(len(means) - 0.5, -0.5)
        ax.axvline(0.0, color="0.5", linewidth=1)
        ax.set_title("where the gap to retraining arises", loc="left")
        ax.set_xlabel("share of the disagreement, %")
