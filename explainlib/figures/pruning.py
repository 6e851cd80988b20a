"""The eigenvalues of a curvature by sign, and what becomes of a score as fewer of them are inverted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from torch import Tensor

from explainlib.checks import require_count, require_finite, require_tensor
from explainlib.figures.palette import PALETTE, SERIES, style
from explainlib.figures.picture import axes_for, literal, set_alt

FLAT = 1e-12  # of the largest: smaller eigenvalues are rounding of zero and are not drawn


def eigenvalue_spectrum(
    values: Float[Tensor, " q"], *, keeps: Sequence[int] = (), ax: Axes | None = None, title: str | None = None
) -> Axes:
    """Return axes with the size of every eigenvalue against its rank, positive and negative in different marks.

    Args:
        values: eigenvalues of a symmetric matrix, in any order; rank 1 is the algebraically largest.
        keeps: counts at which a vertical line stands, where a pruning would cut.
        ax: where to draw; None makes a new picture, reached as ``.figure``.
        title: above the axes.

    Returns:
        The axes; ``alt_text(axes.figure)`` says the same in words.

    Raises:
        ValueError: no eigenvalue or NaN, all zero, or a count below 1.
    """
    require_finite("values", require_tensor("values", values))
    for keep in keeps:
        require_count("keeps", keep)
    down = values.detach().double().flatten().sort(descending=True).values.cpu()
    if not down.numel() or not bool(down.abs().max() > 0):
        raise ValueError("values holds no eigenvalue other than zero, so there is nothing to draw.")
    seen = down.abs() > FLAT * down.abs().max()
    rank = torch.arange(1, len(down) + 1)
    signs = {"positive": seen & (down > 0), "negative": seen & (down < 0)}
    with style():
        ax = axes_for(ax, 6.4, 3.8, top=0.65 if title else 0.4)
        for series, (name, mask) in zip(SERIES, signs.items(), strict=False):
            dots = dict(s=10, marker=series.marker, color=series.colour, linewidths=0)
            ax.scatter(rank[mask].numpy(), down[mask].abs().numpy(), label=f"{name}: {int(mask.sum())}", **dots)
        ax.set_yscale("log")
        for keep in keeps:
            ax.axvline(keep, color=PALETTE["black"], linewidth=1, linestyle="--")
            ax.annotate(f"keep {keep}", (keep, 1.0), xycoords=("data", "axes fraction"), xytext=(4, -12),
                        textcoords="offset points", fontsize=9)  # fmt: skip
        ax.set(xlabel="rank of the eigenvalue, largest first", ylabel="its absolute value")
        ax.set_title(literal(title or ""), loc="left", pad=22 if title else 6)
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.1, markerscale=2)
    counts = f"{int(signs['positive'].sum())} positive, {int(signs['negative'].sum())} negative"
    flat = int((~seen).sum())
    set_alt(ax, f"Eigenvalues by rank, on a logarithmic scale: {counts}, {flat} zero within rounding. The largest is "
                f"{float(down[0]):.2g}, the lowest {float(down[-1]):.2g}.")  # fmt: skip
    return ax


def pruning_curve(
    series: Mapping[str, Sequence[float | int]],
    keeps: Sequence[int | str],
    *,
    levels: Mapping[str, float | int] | None = None,
    label: str = "tests whose own task ranks first",
    most: float | int | None = None,
    ax: Axes | None = None,
    title: str | None = None,
) -> Axes:
    """Return axes with one line per series against the number of eigenvalues kept, evenly spaced.

    Args:
        series: by name, one number for each entry of ``keeps``; at most six.
        keeps: counts from few to many; a word such as "unpruned" may stand at the end.
        levels: by name, numbers that do not depend on the pruning, as horizontal lines in the colour and order of the
            series: the controls.
        label: of the vertical axis.
        most: top of the vertical axis; None fits it.
        ax: where to draw; None makes a new picture, reached as ``.figure``.
        title: above the axes.

    Returns:
        The axes; ``alt_text(axes.figure)`` says the same in words.

    Raises:
        ValueError: no series, more than six, or one of another length.
    """
    if not 1 <= len(series) <= len(SERIES):
        raise ValueError(f"series has {len(series)} lines, expected 1 to {len(SERIES)}; draw two figures.")
    for name, values in series.items():
        if len(values) != len(keeps):
            raise ValueError(f"{name!r} has {len(values)} numbers for {len(keeps)} prunings; give one for each.")
    levels, places = dict(levels or {}), list(range(len(keeps)))
    lines = -(-(len(series) + len(levels)) // 2)
    with style():
        ax = axes_for(ax, 6.4, 3.4 + 0.24 * lines + (0.3 if title else 0), top=0.24 * lines + (0.5 if title else 0.2))
        for look, (name, values) in zip(SERIES, series.items(), strict=False):
            ax.plot(places, list(values), color=look.colour, marker=look.marker, linewidth=1.6, label=literal(name))
        for look, (name, value) in zip(SERIES, levels.items(), strict=False):
            ax.axhline(value, color=look.colour, linewidth=1.4, linestyle=":", label=literal(name))
        ax.set_xticks(places, [literal(keep) for keep in keeps])
        ax.set(xlabel="eigenvalues inverted", ylabel=literal(label), xlim=(-0.3, len(keeps) - 0.5))
        if most is not None:
            ax.set_ylim(0, 1.04 * most)
        ax.set_title(literal(title or ""), loc="left", pad=8 + 17 * lines)
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.1, labelspacing=0.3)
    said = [
        f"{name}: " + ", ".join(f"{value:g} at {keep}" for keep, value in zip(keeps, values, strict=True))
        for name, values in series.items()
    ]
    said += [f"{name}: {value:g} throughout" for name, value in levels.items()]
    set_alt(ax, f"{label[:1].upper()}{label[1:]} against eigenvalues inverted. {'; '.join(said)}.")
    return ax
