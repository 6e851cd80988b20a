"""What a fused kernel saves: bytes beside the plain route's, and both routes under the roof of one GPU."""

from __future__ import annotations

import pandas
from matplotlib.axes import Axes

from explainlib.checks import require_choice
from explainlib.figures.palette import PALETTE, SERIES, style
from explainlib.figures.picture import axes_for, literal, set_alt
from explainlib.kernels.report import GPUS

FIRST = 0.3  # flops a byte at the left end of a roofline
ROUTES = {"fused": ("flops_per_byte", SERIES[0]), "plain": ("plain_flops_per_byte", SERIES[1])}


def traffic(times: pandas.DataFrame) -> Axes:
    """Return axes with the gigabytes that each layer's Gram moves, by the fused kernel and by the plain route.

    Args:
        times: rows of the table ``kernels-times`` with one kind of numbers, of one GPU.

    Raises:
        ValueError: no rows.
    """
    rows = _some(times)
    with style():
        ax = axes_for(None, 7.4, 1.2 + 0.5 * len(rows), left=2.5, top=0.4)
        for k, (name, column) in enumerate((("plain", "plain_bytes"), ("fused", "bytes"))):
            look = ROUTES[name][1]
            places = [place + 0.2 - 0.4 * k for place in range(len(rows))]
            shown = dict(color=look.colour, hatch=look.hatch, edgecolor="white", label=f"{name} route")
            ax.barh(places, rows[column] / 1e9, height=0.38, **shown)
        names = [f"{k}  {shape.rpartition(', n ')[0]}" for k, shape in enumerate(rows["shape"], start=1)]
        ax.set_yticks(range(len(rows)), [literal(name) for name in names])
        ax.invert_yaxis()
        ax.set(xscale="log", xlabel="gigabytes read and written (predicted, logarithmic)")
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.1)
    said = [f"{row.shape}: {row.plain_bytes / 1e9:.3g} plain, {row.bytes / 1e9:.3g} fused" for row in rows.itertuples()]
    set_alt(ax, f"Gigabytes of both routes. {'; '.join(said)}.")
    return ax


def roofline(times: pandas.DataFrame) -> Axes:
    """Return axes with the roof of one GPU and every operation under it, one mark for each route.

    The roof is min(peak, intensity x bandwidth): what so many flops a byte can reach at most. Marks stand on
    the roof, where each route would be if nothing else held it up: every number is predicted. An operation that is
    bound by memory stands on the slope; fusing moves it to the right.

    Args:
        times: rows of the table ``kernels-times`` with one kind of numbers and one GPU.

    Raises:
        ValueError: no rows, more than one GPU or kind of numbers, or a GPU that the report does not know.
    """
    rows = _some(times)
    for column in ("gpu", "numbers"):
        if rows[column].nunique() > 1:
            raise ValueError(f"times has rows of {rows[column].nunique()} values of {column!r}; choose one of them.")
    name, numbers = rows["gpu"].iloc[0], rows["numbers"].iloc[0]
    gpu = GPUS[require_choice("gpu", name, tuple(GPUS))]
    peak, slope = gpu.peak[numbers], gpu.bandwidth
    last = 2 * max(rows["flops_per_byte"].max(), peak / slope)
    with style():
        ax = axes_for(None, 6.4, 4.2, top=0.4)
        corner = peak / slope
        ax.plot([FIRST, corner, last], [FIRST * slope / 1e12, peak / 1e12, peak / 1e12], color=PALETTE["black"])
        ax.axvline(corner, color=PALETTE["black"], linewidth=0.8, linestyle=":")
        for route, (column, look) in ROUTES.items():
            heights = (rows[column] * slope).clip(upper=peak) / 1e12
            shown = dict(color=look.colour, marker=look.marker, s=50, zorder=3, label=f"{route} route")
            ax.scatter(rows[column], heights, **shown)
            for k, (x, y) in enumerate(zip(rows[column], heights, strict=True), start=1):
                ax.annotate(str(k), (x, y), xytext=(0, 7 if k % 2 else -15), textcoords="offset points", ha="center")
        ax.set(xscale="log", yscale="log", xlabel="flops a byte", ylabel="10^12 flops a second, at most")
        ax.set_ylim(FIRST * slope / 1e12, 3 * peak / 1e12)
        ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=2, borderaxespad=0.1)
    said = [
        f"{k} {row.shape}: {row.plain_flops_per_byte:.3g} to {row.flops_per_byte:.3g}"
        for k, row in enumerate(rows.itertuples(), start=1)
    ]
    set_alt(
        ax,
        f"The roof of {name} in {numbers}: it rises with {slope / 1e12:.3g} TB a second up to {corner:.3g} flops a "
        f"byte, then stays at {peak / 1e12:.3g} Tflop/s. Flops a byte, plain to fused: {'; '.join(said)}.",
    )
    return ax


def _some(times: pandas.DataFrame) -> pandas.DataFrame:
    if not len(times):
        raise ValueError("times has no rows; choose a kernel, a GPU and a kind of numbers that the table holds.")
    return times
