"""The figures of the notebook on fragility: one Spearman for two scatters, matched parameters, sweeps, retraining."""

from __future__ import annotations

from collections.abc import Mapping

import pandas
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from explainlib.figures.palette import SERIES, style
from explainlib.figures.picture import Picture, set_alt
from explainlib.figures.studies import draw_curves, draw_ladder, draw_sweep
from explainlib.metrics import fidelity, same_spearman_pair

DOTS = dict(s=24, edgecolors="white", linewidths=0.4, zorder=3)


def same_spearman_different_r2() -> Picture:
    """Return the two constructed pairs side by side: predictions and truths of one Spearman.

    Source: Epifano et al., Fig. 4, whose point it makes.
    """
    with style():
        picture = Picture(8.6, 3.6)
        axes = picture.subplots(1, 2, sharey=True)
        picture.subplots_adjust(left=0.08, right=0.99, bottom=0.15, top=0.88, wspace=0.08)
        for ax, (predicted, true), series in zip(axes, same_spearman_pair(), SERIES, strict=False):
            _scatter(ax, predicted, true, series)
        axes[0].set_ylabel("true change")
    return picture


def two_by_two(predicted: Mapping[str, Tensor], true: Mapping[str, Tensor]) -> Picture:
    """Return a scatter for every prediction against every truth, with Spearman and R^2 above each.

    Args:
        predicted: changes [g] by name.
        true: changes [g] by name.
    """
    with style():
        picture = Picture(4.4 * len(true), 3.3 * len(predicted))
        axes = picture.subplots(len(predicted), len(true), squeeze=False)
        picture.subplots_adjust(left=0.1, right=0.985, bottom=0.085, top=0.95, wspace=0.3, hspace=0.42)
        for row, (said, x) in zip(axes, predicted.items(), strict=True):
            for ax, (seen, y) in zip(row, true.items(), strict=True):
                _scatter(ax, x, y, SERIES[0 if said.split()[0] == seen.split()[0] else 1])
                ax.set(xlabel=f"{said}, predicted", ylabel=f"{seen}, retrained")
                ends = [float(x.min()), float(x.max())]
                ax.plot(ends, ends, color="0.5", linewidth=1, linestyle="--", zorder=1)  # a perfect prediction
                for axis in (ax.xaxis, ax.yaxis):
                    axis.set_major_locator(MaxNLocator(4))
                set_alt(ax, f"{said} against {seen}: Spearman {float(fidelity(x, y, resamples=1).spearman):.2f}.")
    return picture


def _scatter(ax: Axes, predicted: Tensor, true: Tensor, series: object) -> None:
    said = fidelity(predicted, true, resamples=1)
    ax.scatter(predicted, true, color=series.colour, marker=series.marker, **DOTS)
    ax.set_title(f"Spearman {float(said.spearman):.3f}, R$^2$ {float(said.r2):.2f}", loc="left")
    ax.set_xlabel("predicted change")
    set_alt(ax, f"Spearman {float(said.spearman):.3f}, R2 {float(said.r2):.2f}, slope {float(said.slope):.2f}.")


def sweeps(summary: pandas.DataFrame, measure: str, label: str) -> Picture:
    """Return one measure by depth and by width, a line a way of training, 95% intervals over the repeats.

    Args:
        summary: the study's table ``iris`` or ``spectrum``.
        measure: a column, with columns ``_low`` and ``_high``.
        label: of the y axis.
    """
    with style():
        picture = Picture(10.4, 4.0)
        axes = picture.subplots(1, 2, sharey=True)
        picture.subplots_adjust(left=0.075, right=0.99, bottom=0.135, top=0.83, wspace=0.07)
        for ax, grows in zip(axes, ("depth", "width"), strict=True):
            draw_sweep(ax, summary, grows, measure, f"by {grows}", label if grows == "depth" else "")
            drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
            said = "; ".join(f"{kind} {min(values):.2f} to {max(values):.2f}" for kind, values in drawn.items())
            set_alt(ax, f"{label} by {grows}: {said}.")
        if measure.startswith(("spearman", "pearson")):
            axes[0].set_ylim(-1.05, 1.05)
        elif summary[measure].min() > 0 and summary[measure].max() > 20 * summary[measure].min():
            axes[0].set_yscale("log")
        handles, names = axes[0].get_legend_handles_labels()
        picture.legend(handles, names, loc="upper left", ncols=5, bbox_to_anchor=(0.06, 1.0))
    return picture


def retraining_variability(curves: pandas.DataFrame, ladder: pandas.DataFrame) -> Picture:
    """Return retraining on Iris, retraining on digits, and where the gap to retraining arises, side by side.

    Args:
        curves: the study's table of that name.
        ladder: likewise.
    """
    with style():
        picture = Picture(12.6, 3.7)
        axes = picture.subplots(1, 3, width_ratios=(1, 1, 0.75))
        picture.subplots_adjust(left=0.065, right=0.99, bottom=0.15, top=0.91, wspace=0.42)
        for ax, data in zip(axes, curves["data"].unique(), strict=False):
            draw_curves(ax, curves, data)
            set_alt(ax, f"Loss of one test while a network trains on, without one example each: {data}.")
        draw_ladder(axes[2], ladder)
        means = ladder.dropna(subset=["step"]).groupby("step", sort=False)["share"].mean()
        set_alt(axes[2], "Shares: " + ", ".join(f"{step} {round(100 * share)}%" for step, share in means.items()) + ".")
    return picture
