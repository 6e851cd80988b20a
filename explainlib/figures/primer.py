"""Pictures of meta-learning itself: the course of meta-training, and what a step down the support loss does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from explainlib.checks import require_count
from explainlib.figures.palette import PALETTE, SERIES, style
from explainlib.figures.picture import Picture, axes_for, literal, set_alt


def training_curves(
    histories: Mapping[str, Sequence[float]], *, window: int = 25, unit: str = "query loss of the meta-batch"
) -> Axes:
    """Return axes with the loss of every meta-batch as a faint line, and its running mean as a strong one.

    Args:
        histories: by learner, ``Trained.history``; one to six.
        window: meta-batches in the running mean.
        unit: of the losses.

    Raises:
        ValueError: no history, too many, or one shorter than the window.
    """
    require_count("window", window)
    if not 1 <= len(histories) <= len(SERIES) or min(map(len, histories.values())) < window:
        lengths = {name: len(history) for name, history in histories.items()}
        raise ValueError(
            f"histories have lengths {lengths}, expected 1 to {len(SERIES)} of at least window={window} numbers."
        )
    with style():
        ax = axes_for(None, 6.2, 3.2)
        for look, dash, (name, history) in zip(
            SERIES, ("-", "--", "-.", ":", "-", "--"), histories.items(), strict=False
        ):
            mean = np.convolve(history, np.ones(window) / window, mode="valid")
            at = np.arange(len(mean)) + window
            ax.plot(np.arange(len(history)) + 1, history, color=look.colour, alpha=0.25, linewidth=0.8)
            line = dict(color=look.colour, linestyle=dash, linewidth=2.2, marker=look.marker, markersize=6)
            ax.plot(at, mean, label=literal(name), markevery=max(1, len(mean) // 8), **line)
        ax.set(xlabel="meta-batch", ylabel=literal(unit), ylim=(0, None), xlim=(0, None))
        ax.legend(loc="upper right")
    ends = "; ".join(
        f"{name} from {np.mean(h[:window]):.2f} to {np.mean(h[-window:]):.2f}" for name, h in histories.items()
    )
    set_alt(ax, f"{unit[0].upper()}{unit[1:]} over meta-training, mean of {window}: {ends}.")
    return ax


def step_line(now: float, slope: float, at: float, truths: Sequence[tuple[float, float, int]]) -> Picture:
    """Return a picture of a query loss against the length of the way down the support loss.

    Args:
        now: the query loss before any step.
        slope: its first-order change by unit of length.
        at: the present length, steps times rate.
        truths: (length, real query loss, number of steps) of each way that was taken.
    """
    end = _round_up(
        1.05 * max([at, *(length for length, _, _ in truths)])
    )  # axes that move with each drag seem to jump
    real = [loss for _, loss, _ in truths]
    low, high = min([0.0, *real]), max([now, *real, min(now + slope * at, 3 * now)])
    bottom = low - 0.06 * high
    with style():
        ax = axes_for(None, 4.4, 3.5, top=0.75)
        first, adapted = SERIES[0], SERIES[1]
        ax.plot([0, end], [now, now + slope * end], color=first.colour, linestyle="--", linewidth=1.6, label="tangent")
        ax.plot([at], [now + slope * at], color=first.colour, marker=first.marker, markersize=9, ls="")
        ax.plot([0], [now], color=PALETTE["black"], marker="D", markersize=7, label="before", ls="")
        edge = dict(marker=adapted.marker, markersize=10, color=adapted.colour, markeredgecolor="black")
        ax.plot([length for length, _, _ in truths], real, ls="", label="adapted (steps)", **edge)
        for length, loss, steps in truths:
            ax.annotate(
                f"{steps}", (length, loss), (-8, 0), textcoords="offset points", fontsize=9, ha="right", va="center"
            )
        ax.set(xlim=(-0.04 * end, end), ylim=(bottom, 1.1 * high), xlabel="steps x inner_lr", ylabel="query loss")
        if now + slope * at < bottom:
            place = ((bottom - now) / slope / end + 0.06, 0.93)
            ax.text(*place, f"the tangent is at {now + slope * at:.1f},\nbelow the picture", color=first.colour,
                    transform=ax.transAxes, va="top", fontsize=9)  # fmt: skip
        ax.legend(loc="lower left", bbox_to_anchor=(-0.2, 1.0), ncols=3, borderaxespad=0.2, handletextpad=0.4)
    told = "; ".join(f"{n} step{'s' if n > 1 else ''}, length {x:g}: {loss:.3f}" for x, loss, n in truths)
    said = f"first order {now + slope * at:.3f} at length {at:g}"
    set_alt(ax, f"Query loss {now:.3f} before adapting; {said}. Adapted: {told or 'nothing yet'}.")
    return ax.figure


def _round_up(value: float) -> float:
    """Return the next of 1, 1.5, 2, 3, 5, 7.5 and 10 times a power of ten."""
    unit = 10.0 ** math.floor(math.log10(value))
    return next(m * unit for m in (1, 1.5, 2, 3, 5, 7.5, 10) if m * unit >= value)
