"""The picture of the fragility panel: one correlation in its sweep, its scatter plot, and the spectrum."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from explainlib.figures.palette import style
from explainlib.figures.picture import Picture, literal, set_alt
from explainlib.figures.studies import LOOKS
from explainlib.studies.fragility import LEAST, NetworkResult, Truths

OTHERS = "0.75"
TRUTH = dict(color="black", marker="x", s=34, linewidths=1.4, zorder=4)


def fragility_view(
    truths: Truths,
    grows: str,
    size: int,
    kind: str,
    protocol: str,
    stored: NetworkResult,
    again: NetworkResult | None = None,
) -> Picture:
    """Return three axes: Spearman along the sweep, predicted against true for one network, its largest eigenvalues.

    Args:
        truths: of the study.
        grows: "depth" or "width".
        size: the place in the sweep.
        kind: the way of training that is drawn in colour; the others stay grey.
        protocol: "highest_loss" or "most_influential".
        stored: the network of the present choice.
        again: the same one trained again, drawn as crosses.
    """
    with style():
        picture = Picture(10.7, 3.5)
        axes = picture.subplots(1, 3, width_ratios=(1.25, 1.1, 0.85))
        picture.subplots_adjust(left=0.075, right=0.99, bottom=0.155, top=0.9, wspace=0.34)
        _sweep(axes[0], truths, grows, size, kind, protocol, stored)
        _scatter(axes[1], kind, stored, again)
        _spectrum(axes[2], kind, stored, again)
    return picture


def _sweep(ax: Axes, truths: Truths, grows: str, size: int, kind: str, protocol: str, stored: NetworkResult) -> None:
    for other in truths.kinds:
        line = truths.line(grows, other, protocol)
        line = line[line["repeats"] - line["collapsed"] >= line["repeats"].clip(upper=LEAST)]
        if other != kind:
            ax.plot(line["size"], line["spearman"], color=OTHERS, marker=LOOKS[other].marker, markersize=4, zorder=1)
            continue
        look = dict(color=LOOKS[kind].colour, zorder=3)
        ax.plot(
            line["size"],
            line["spearman"],
            marker=LOOKS[kind].marker,
            markersize=7,
            label=f"{literal(kind)}, mean",
            **look,
        )
        ax.vlines(line["size"], line["low"], line["high"], linewidth=2, **look)
    if not stored.collapsed:
        own = float(stored.agreement.spearman)
        ax.plot(
            [size], [own], "o", markersize=12, markerfacecolor="none", color="black", zorder=5, label="this network"
        )
    ax.axvline(size, color="0.3", linewidth=1, linestyle=":", zorder=0)
    ax.axhline(0, color="0.5", linewidth=1, zorder=0)
    ax.set(ylim=(-1.08, 1.08), ylabel="Spearman", xticks=truths.sizes(grows))
    ax.set_xlabel("hidden layers of width 5" if grows == "depth" else "width of one hidden layer")
    ax.set_title("order kept?", loc="left")
    ax.legend(loc="lower left", fontsize=9)
    set_alt(ax, _describe_sweep(truths, grows, size, kind, protocol))


def _describe_sweep(truths: Truths, grows: str, size: int, kind: str, protocol: str) -> str:
    line = truths.line(grows, kind, protocol).dropna(subset=["spearman"])
    said = ", ".join(f"{row.spearman:.2f} at {row.size}" for row in line.itertuples(index=False))
    return f"Mean Spearman of {kind} by {grows}: {said or 'every network collapsed'}. Chosen: {size}."


def _scatter(ax: Axes, kind: str, stored: NetworkResult, again: NetworkResult | None) -> None:
    ax.set_title("sizes kept?", loc="left")
    ax.set(xlabel="predicted change of the test loss", ylabel="retrained")
    if stored.collapsed:
        ax.text(0.5, 0.5, "one class for every example:\nnothing to explain", ha="center", transform=ax.transAxes)
        ax.set(xticks=[], yticks=[])
        set_alt(ax, "The network collapsed; there is no scatter.")
        return
    look = LOOKS[kind]
    dots = dict(color=look.colour, marker=look.marker, s=30, edgecolors="white", linewidths=0.5, zorder=3)
    ax.scatter(stored.predicted, stored.true, label="kept", **dots)
    if again is not None and not again.collapsed:
        ax.scatter(again.predicted, again.true, label="trained again", **TRUTH)
        ax.legend(loc="upper left", fontsize=9)
    both = torch.cat([stored.predicted, stored.true])
    ends = [float(both.min()), float(both.max())]
    ax.plot(ends, ends, color="0.4", linewidth=1, linestyle="--", zorder=1)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4))
    said = stored.agreement
    set_alt(
        ax,
        f"Predicted against retrained change for {len(stored.removed)} removals: slope {float(said.slope):.2f}, R2 "
        f"{float(said.r2):.2f}; the dashed line is perfect prediction.",
    )


def _spectrum(ax: Axes, kind: str, stored: NetworkResult, again: NetworkResult | None) -> None:
    top = _positive(stored.eigenvalues)
    look = LOOKS[kind]
    ax.plot(range(1, len(top) + 1), top, color=look.colour, marker=look.marker, markersize=5, linewidth=1)
    if again is not None:
        other = _positive(again.eigenvalues)
        ax.scatter(range(1, len(other) + 1), other, **TRUTH)
    ax.set_yscale("log")
    ax.set(xlabel="rank", ylabel="eigenvalue")
    ax.set_title("largest eigenvalues", loc="left")
    largest = f"{top[0]:.3g}" if top else "not above zero"
    set_alt(ax, f"The largest eigenvalue of the Hessian is {largest}.")


def _positive(values: Sequence[float] | torch.Tensor) -> list[float]:
    return [float(value) for value in values if value > 0]
