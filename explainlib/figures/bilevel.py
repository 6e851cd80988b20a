"""Pictures of bilevel influence: how many spoiled tasks each ranking finds, and how far a derivative reaches."""

from __future__ import annotations

from collections.abc import Mapping

import pandas
from jaxtyping import Bool
from matplotlib.axes import Axes
from torch import Tensor

from explainlib.checks import require_count
from explainlib.figures.palette import PALETTE, SERIES, style
from explainlib.figures.picture import axes_for, literal, set_alt
from explainlib.metrics.mislabels import detection_curve

DASHES = ("-", "--", "-.", ":", "-", "--")
OWN = {"task influence": 0, "gradient product": 1, "raw loss": 2, "random": 3}  # places in SERIES, in every figure


def detection_curves(
    scores: Mapping[str, Tensor],
    spoiled: Bool[Tensor, " M"],
    *,
    inspected: int | None = None,
    title: str | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Return axes with the share of spoiled tasks found against the share inspected, one line for each ranking.

    The grey line is the ceiling min(1, inspected / spoiled): with 80% spoiled, 40% inspected hold half of them at most.

    Args:
        scores: by name, one score for each of M tasks, the most suspicious highest; at most six.
        spoiled: which tasks are; some, and not all.
        inspected: how many tasks are inspected now, a vertical line; None draws none.
        title: above the axes.
        ax: where to draw; None makes a new picture, reached as ``.figure``.

    Returns:
        The axes; ``alt_text(axes.figure)`` says the same in words.

    Raises:
        ValueError: no ranking or more than six, another number of scores, NaN, or spoiled marks of one kind only.
    """
    if not 1 <= len(scores) <= len(SERIES):
        raise ValueError(f"scores has {len(scores)} entries, expected 1 to {len(SERIES)}; draw two figures.")
    curves = {name: detection_curve(values, spoiled).tolist() for name, values in scores.items()}
    m, wrong = len(spoiled), int(spoiled.sum())
    at = wrong if inspected is None else require_count("inspected", inspected, least=0)
    if at > m:
        raise ValueError(f"inspected={at} is more than the {m} tasks; pass a smaller number.")
    shares = [100 * k / m for k in range(m + 1)]
    lines, said = -(-len(curves) // 2), []
    with style():
        top = 0.24 * lines + (0.45 if title else 0.15)
        ax = axes_for(ax, 5.0, 3.1 + top, left=0.7, top=top)
        ceiling = [100 * min(1.0, k / wrong) for k in range(m + 1)]
        ax.fill_between(shares, ceiling, 100, color="0.88", linewidth=0)
        ax.plot(shares, ceiling, color="0.45", linewidth=1.0)
        for (name, found), i in zip(curves.items(), _places(list(curves)), strict=True):
            look = SERIES[i]
            marks = dict(marker=look.marker, markevery=(1 + 2 * i, max(1, m // 8)), markersize=5)
            line = dict(color=look.colour, linestyle=DASHES[i], linewidth=1.8)
            ax.plot(shares, [100 * share for share in found], label=literal(name), **line, **marks)
            said.append(f"{name} {found[at]:.0%}")
        if inspected is not None:
            ax.axvline(shares[at], color=PALETTE["black"], linewidth=1.2)
        ax.set(xlim=(0, 103), ylim=(0, 103), xlabel="% of the tasks inspected", ylabel="% of the spoiled tasks found")
        ax.set_title(literal(title or ""), loc="left", pad=8 + 17 * lines)
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.1)
    most = min(1.0, at / wrong)
    set_alt(
        ax,
        f"Spoiled tasks found by ranking, {wrong} of {m} tasks are spoiled. With {at} inspected at most {most:.0%} "
        f"can be found; found are: {', '.join(said)}.",
    )
    return ax


def derivative_reach(table: pandas.DataFrame, *, title: str | None = None, ax: Axes | None = None) -> Axes:
    """Return axes with the error of task influence against the fraction of a task's weight that is taken away.

    Lines are medians over tasks, bands reach from the least to the largest error.

    Args:
        table: columns inner, fraction, error; the table "fractions" of the bilevel study.
        title: above the axes.
        ax: where to draw; None makes a new picture, reached as ``.figure``.

    Raises:
        ValueError: a table without one of the columns, or without rows.
    """
    missing = {"inner", "fraction", "error"} - set(table.columns)
    if missing or table.empty:
        raise ValueError(f"table has no {', '.join(sorted(missing)) or 'rows'}; pass the study's table 'fractions'.")
    said = []
    with style():
        ax = axes_for(ax, 5.0, 3.5, left=0.8, top=0.35 if title else 0.15)
        for look, (inner, part) in zip(SERIES, table.groupby("inner", sort=False), strict=False):
            rows = part.groupby("fraction")["error"]
            middle = rows.median()
            ax.plot(middle.index, middle, color=look.colour, marker=look.marker, linewidth=1.8, label=literal(inner))
            ax.fill_between(middle.index, rows.min(), rows.max(), color=look.colour, alpha=0.15, linewidth=0)
            said.append(f"{inner} " + ", ".join(f"{error:.2g} at {at:g}" for at, error in middle.items()))
        ax.set(xscale="log", yscale="log", xlabel="of one task's weight taken away", ylabel="relative error")
        ax.set_title(literal(title or ""), loc="left")
        ax.legend()
    set_alt(ax, f"Relative error of task influence by the fraction of a task taken away, medians: {'; '.join(said)}.")
    return ax


def _places(names: list[str]) -> list[int]:
    """Return each name's place in ``SERIES``: its own if it has one, else the first that is free."""
    free = [i for i in range(len(SERIES)) if i not in {OWN[name] for name in names if name in OWN}]
    return [OWN[name] if name in OWN else free.pop(0) for name in names]
