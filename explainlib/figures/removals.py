"""The figure a panel grows: one mark per removal that was retrained, predicted against true."""

from __future__ import annotations

from collections.abc import Sequence

from explainlib.figures.palette import SERIES, style
from explainlib.figures.picture import Picture, axes_for, literal, set_alt


def removal_points(
    predicted: dict[str, Sequence[float]], true: Sequence[float], *, unit: str = "change of test loss"
) -> Picture:
    """Return a square picture of the removals so far, several predictions of each, with the identity line.

    Args:
        predicted: by method name, one number per removal.
        true: the retrained change of each, same length; empty gives an invitation.
        unit: of both axes.
    """
    with style():
        ax = axes_for(None, 4.0, 3.7, left=0.85, bottom=0.6, top=0.75)
        values = [0.0, *true, *(v for series in predicted.values() for v in series)]
        pad = 0.08 * (max(values) - min(values)) or 0.1
        ends = (min(values) - pad, max(values) + pad)
        ax.plot(ends, ends, color="0.55", linestyle="--", linewidth=1.2, zorder=1)
        for series, (name, numbers) in zip(SERIES, predicted.items(), strict=False):
            marks = dict(s=46, marker=series.marker, color=series.colour, edgecolors="white", linewidths=0.6, zorder=3)
            ax.scatter(numbers, true, label=literal(name), **marks)
            for i, (x, y) in enumerate(zip(numbers, true, strict=True)):
                ax.annotate(str(i + 1), (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8)
        ax.set(xlim=ends, ylim=ends, xlabel=literal(f"predicted {unit}"), ylabel=literal(f"retrained {unit}"))
        ax.set_aspect("equal")
        if true:
            ax.legend(loc="lower left", bbox_to_anchor=(-0.05, 1.0), ncols=len(predicted), borderaxespad=0.2)
        else:
            ax.text(
                0.5, 0.5, "Retrain adds\na mark here", transform=ax.transAxes, ha="center", va="center", color="0.35"
            )
    pairs = "; ".join(
        f"removal {i + 1}: retrained {value:+.3f}, "
        + ", ".join(f"{name} {numbers[i]:+.3f}" for name, numbers in predicted.items())
        for i, value in enumerate(true)
    )
    set_alt(ax, f"Predicted against retrained {unit}. {pairs or 'No removal was retrained yet'}.")
    return ax.figure
