"""Methods against truths: a table of agreement, its course over the length of training, and its price."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pandas
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from torch import Tensor

from explainlib.datasets import Examples
from explainlib.figures.examples import class_name, draw_example
from explainlib.figures.palette import PALETTE, SERIES, style
from explainlib.figures.picture import Picture, literal, set_alt


def ranked_by_method(
    train: Examples,
    scores: Mapping[str, Float[Tensor, " n"]],
    *,
    explained: Examples,
    k: int = 6,
    marked: Bool[Tensor, " n"] | None = None,
) -> Picture:
    """Return the explained example, and a row a method: the k training examples of highest score, the highest first.

    Args:
        train: n examples.
        scores: by the method's name; positive is harmful.
        explained: one example, drawn above all rows.
        k: thumbnails in a row.
        marked: the training examples whose title gets a star; None marks none.
    """
    names = {name: values.argsort(descending=True)[:k].tolist() for name, values in scores.items()}
    width, height = 2.3 + 1.15 * k, 1.38 * (len(names) + 1)
    stars = [""] * len(train) if marked is None else [" *" if star else "" for star in marked]
    with style():
        picture = Picture(width, height)
        grid = picture.subplots(len(names) + 1, k, squeeze=False)
        picture.subplots_adjust(
            left=2.2 / width, right=0.99, bottom=0.02, top=1 - 0.3 / height, hspace=0.38, wspace=0.1
        )
        draw_example(grid[0][0], explained, 0, title=class_name(explained, 0))
        for ax in grid[0][1:]:
            ax.set_axis_off()
        for row, order in zip(grid[1:], names.values(), strict=True):
            for ax, index in zip(row, order, strict=False):
                draw_example(ax, train, index, title=f"#{index} {class_name(train, index)}{stars[index]}")
        place = {"xy": (-0.14, 0.5), "xycoords": "axes fraction", "ha": "right", "va": "center"}
        for row, name in zip(grid, ("explained:", *names), strict=True):
            row[0].annotate(literal(name), **place, fontsize=11)
    said = "; ".join(
        f"{name}: " + ", ".join(f"#{index}{stars[index]}" for index in order) for name, order in names.items()
    )
    about = f"The {k} training examples of highest score for a test example of class {class_name(explained, 0)}"
    set_alt(picture, f"{about}, by {len(names)} methods. {said}.")
    return picture


def agreement_table(table: pandas.DataFrame, *, controls: Collection[str] = ()) -> Picture:
    """Return a table of numbers from 0 to 1, light to dark, with a star at the largest of each column.

    Args:
        table: rows are methods, columns are questions; nan where a method has no answer.
        controls: rows that are shown and do not compete for the star.
    """
    competing = table.drop(index=list(controls))
    first = {column: competing[column].idxmax() for column in table}
    width, height = 2.6 + 1.75 * table.shape[1], 0.75 + 0.36 * len(table)
    with style():
        picture = Picture(width, height)
        ax = picture.add_axes((2.45 / width, 0.01, 0.985 - 2.45 / width, 0.98 - 0.62 / height))
        ax.imshow(table.to_numpy(), cmap="cividis_r", vmin=0, vmax=1, aspect="auto")  # white where there is none
        ax.grid(False)
        for i, name in enumerate(table.index):
            for j, column in enumerate(table.columns):
                _entry(ax, j, i, float(table.iloc[i, j]), first=first[column] == name)
        if len(controls):
            ax.axhline(len(table) - len(controls) - 0.5, color="black", linewidth=1.5)
        ax.set_xticks(range(table.shape[1]), [literal(column) for column in table.columns])
        ax.set_yticks(range(len(table)), [literal(name) for name in table.index])
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
    best = "; ".join(f"{' '.join(c.split())}: {name} {table.loc[name, c]:.2f}" for c, name in first.items())
    set_alt(picture, f"{len(competing)} methods by {table.shape[1]} questions. Best: {best}.")
    return picture


def _entry(ax: Axes, x: int, y: int, value: float, *, first: bool) -> None:
    """Write one number of the table; a dash where there is none."""
    word = "-" if value != value else f"{value:.2f}" + (" *" if first else "")
    look = {"color": "white" if value > 0.55 else "black", "weight": "bold" if first else "normal"}
    ax.text(x, y, word, ha="center", va="center", fontsize=11, **look)


def agreement_by_steps(
    agreement: Mapping[str, Mapping[int, float]], *, at_rest: Mapping[str, float], unit: str = "steps of training"
) -> Picture:
    """Return a line a method: agreement with the truth against the length of training, and at the minimum.

    Args:
        agreement: by the method's name, by the number of steps.
        at_rest: by the method's name, at the minimum: drawn apart, on the right.
        unit: of the horizontal axis.
    """
    with style():
        picture = Picture(8.2, 4.2)
        ax = picture.add_axes((0.09, 0.14, 0.89, 0.7))
        steps = sorted({step for line in agreement.values() for step in line})
        end = 4.5 * steps[-1]
        for series, (name, line) in zip(SERIES, agreement.items(), strict=False):
            x = list(line)
            ax.plot(x, [line[step] for step in x], color=series.colour, marker=series.marker, label=literal(name))
            look = {"color": series.colour, "marker": series.marker, "linestyle": "none", "markersize": 9}
            ax.plot([end], [at_rest[name]], **look)
        ax.axvline(2.1 * steps[-1], color="0.6", linewidth=1, linestyle="--")
        ax.set_xscale("log")
        ax.set_xticks([*steps, end], [*(str(step) for step in steps), "at rest"])
        ax.minorticks_off()
        ax.set(ylim=(-0.05, 1.05), xlabel=unit, ylabel="Spearman with the truth of that run")
        ax.legend(
            loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=len(agreement), borderaxespad=0.1, columnspacing=1.4
        )
    said = "; ".join(
        f"{name} "
        + ", ".join(f"{value:.2f} at {step}" for step, value in line.items())
        + f", {at_rest[name]:.2f} at rest"
        for name, line in agreement.items()
    )
    set_alt(picture, f"Agreement with retraining by {unit}: {said}.")
    return picture


def cost_and_agreement(passes: Mapping[str, Sequence[int]], agreement: pandas.DataFrame) -> Picture:
    """Return agreement with the truth against the passes over the training data, one panel a question.

    Args:
        passes: by method, one number for each question, above zero.
        agreement: rows are methods, columns are questions.
    """
    cost = pandas.DataFrame(dict(passes), index=agreement.columns).T
    with style():
        picture = Picture(5.4 * agreement.shape[1], 4.4)
        axes = picture.subplots(1, agreement.shape[1], sharey=True, squeeze=False)[0]
        width = picture.get_figwidth()
        picture.subplots_adjust(left=0.65 / width, right=1 - 0.15 / width, bottom=0.13, top=0.92, wspace=0.05)
        for ax, column in zip(axes, agreement.columns, strict=True):
            _price(ax, cost[column], agreement[column])
            ax.set_title(literal(" ".join(column.split())), loc="left")
            said = "; ".join(
                f"{name} {cost.loc[name, column]:,.0f}, {value:.2f}" for name, value in agreement[column].items()
            )
            set_alt(ax, f"Passes over the training data and agreement, {' '.join(column.split())}: {said}.")
        axes[0].set_ylabel("Spearman with the truth")
    return picture


REACH, ROOM = 40, 0.06  # how far a name reaches to the right, as a factor, and how high it is
MARK = 40  # how far it reaches over a mark


def _price(ax: Axes, passes: pandas.Series, agreement: pandas.Series) -> None:
    """Draw one question: a mark for each method with its name, moved up where another name stands in its way."""
    taken: list[tuple[float, float]] = []
    for name in agreement.sort_values().index:
        x, y = float(passes[name]), float(agreement[name])
        ax.plot([x], [y], marker="o", color=PALETTE["blue"], markersize=7, linestyle="none", zorder=3)
        place = y
        marks = [(float(passes[other]), float(agreement[other])) for other in agreement.index if other != name]
        while any(1 / REACH < other / x < REACH and abs(height - place) < ROOM for other, height in taken) or any(
            1 < other / x < MARK and abs(height - place) < ROOM for other, height in marks
        ):
            place += ROOM / 4
        taken.append((x, place))
        line = {"arrowstyle": "-", "color": "0.6", "linewidth": 0.6} if place - y > ROOM / 2 else None
        ax.annotate(literal(name), (x, y), xytext=(x * 1.3, place), va="center", fontsize=9.5, arrowprops=line)
    ax.set_xscale("log")
    ax.set(xlim=(0.6, float(passes.max()) * 200), ylim=(-0.1, 1.16), xlabel="passes over the training data")
