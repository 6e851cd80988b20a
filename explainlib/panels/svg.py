"""Plots as SVG text: quick to write anew at each step of a slider, sharp at any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from explainlib.figures.palette import SERIES

DASHES = ("", "9 4", "2 4")  # of lines, in the order of the palette
Point = tuple[int | float, int | float]


def svg(parts: Sequence[str], alt: str, width: int, height: int) -> str:
    """Return the parts as one picture with its text equivalent.

    Args:
        parts: SVG elements.
        alt: the text equivalent.
        width: in pixels.
        height: in pixels.
    """
    return (
        f"<svg role='img' aria-label='{escape(alt, quote=True)}' viewBox='0 0 {width} {height}' width='{width}' "
        f"height='{height}' font-family='sans-serif' font-size='12' style='background:white;color:#222'>"
        f"{''.join(parts)}</svg>"
    )


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Return about ``count`` round numbers, evenly spaced, from ``low`` to ``high``; ``low < high``."""
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw * 0.999)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def axis_ends(values: Sequence[float], margin: float) -> tuple[float, float]:
    """Return the ends of an axis that shows the values and zero.

    Args:
        values: that are shown.
        margin: on either side, a share of the range.
    """
    low, high = min(0.0, *values), max(0.0, *values)
    pad = margin * (high - low) or 1e-6
    return low - pad, high + pad


def grid_line(left: int, right: int, y: float | int, label: str, *, strong: bool = False) -> str:
    """Return a horizontal line with its label on the left.

    Args:
        left: where it begins.
        right: where it ends.
        y: its height.
        label: a number.
        strong: darker, for zero.
    """
    shade = "#666" if strong else "#ddd"
    return (
        f"<line x1='{left}' x2='{right}' y1='{y}' y2='{y}' stroke='{shade}'/>"
        f"<text x='{left - 6}' y='{y + 4}' text-anchor='end' font-size='12'>{label}</text>"
    )


def marker(point: Point, i: int, r: float | int) -> str:
    """Return the marker of series i of the palette.

    Args:
        point: its centre.
        i: 0 to 2.
        r: its radius.
    """
    x, y = point
    look = f"fill='{SERIES[i].colour}' stroke='white' stroke-width='1'"
    if SERIES[i].marker == "o":
        return f"<circle cx='{x}' cy='{y}' r='{r}' {look}/>"
    if SERIES[i].marker == "^":
        return f"<path d='M{x} {y - 1.3 * r:.1f} l{1.2 * r:.1f} {2.2 * r:.1f} h{-2.4 * r:.1f} z' {look}/>"
    return f"<rect x='{x - r:.1f}' y='{y - r:.1f}' width='{2 * r}' height='{2 * r}' {look}/>"


def cross(point: Point, r: int = 6) -> str:
    """Return the cross of a retrained truth, ``r`` to each side."""
    x, y = point
    look = "fill='none' stroke='black' stroke-width='2.6'"
    return (
        f"<path class='xl-cross' d='M{x - r:.1f} {y - r:.1f} l{2 * r} {2 * r} m0 -{2 * r} l-{2 * r} {2 * r}' {look}/>"
    )


def tick_label(value: float | int) -> str:
    """Return a number on an axis: signed, three digits, whole from a thousand on."""
    if abs(value) < 1e-12:
        return "0"
    return f"{value:+.0f}" if abs(value) >= 1e3 else f"{value:+.3g}"
