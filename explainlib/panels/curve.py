"""The curve of the group panel as SVG text: quick to write anew at each step of the slider, sharp at any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from explainlib.figures.palette import SERIES

WIDTH, HEIGHT = 536, 322
LEFT, RIGHT, TOP, BOTTOM = 62, 524, 34, 276
DASHES = ("", "9 4", "2 4")
Point = tuple[int | float, int | float]


def group_curve(
    series: Mapping[str, Mapping[int, float]], now: Mapping[str, float], truths: Mapping[int, float], k: int, end: int
) -> str:
    """Return predicted changes of the test loss against the number removed, with what was retrained as crosses.

    Args:
        series: by name, the change at some sizes.
        now: by name, the change at the present size.
        truths: by size, the retrained change.
        k: the present size, a vertical line.
        end: the right end of the picture, at least k; what lies beyond is left out.
    """
    series = {name: {size: v for size, v in points.items() if size <= end} for name, points in series.items()}
    truths = {size: value for size, value in truths.items() if size <= end}
    values = [0.0, *truths.values(), *now.values(), *(v for points in series.values() for v in points.values())]
    pad = 0.06 * (max(values) - min(values)) or 1e-3
    low, high = min(values) - pad, max(values) + pad
    ticks = nice_ticks(low, high, 5)

    def place(size: int | float, value: float) -> Point:
        x, y = size / end, (value - low) / (high - low)
        return round(LEFT + x * (RIGHT - LEFT), 1), round(BOTTOM - y * (BOTTOM - TOP), 1)

    sizes = [size for size in nice_ticks(0.0, float(end), 6) if size == round(size)]
    parts = [_frame(ticks, sizes, place), _present(k, place)]
    for i, (name, points) in enumerate(series.items()):
        line = [place(*point) for point in sorted({0: 0.0, **points, k: now[name]}.items())]
        parts.append(_line(line, i) + "".join(_mark(point, i, 3.2) for point in line[1:]))
        parts.append(_mark(place(k, now[name]), i, 6.0))
    parts += [_cross(place(size, value)) for size, value in truths.items()]
    parts.append(_legend(list(series)))
    said = escape(_describe(now, truths, k), quote=True)
    return (
        f"<svg role='img' aria-label='{said}' viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' height='{HEIGHT}' "
        f"font-family='sans-serif' font-size='12' style='background:white;color:#222'>{''.join(parts)}</svg>"
    )


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Return about ``count`` round numbers, evenly spaced, from ``low`` to ``high``; ``low < high``."""
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw * 0.999)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _frame(ticks: Sequence[float], sizes: Sequence[int | float], place: Callable[..., Point]) -> str:
    places = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    parts = []
    for tick in ticks:
        y = place(0, tick)[1]
        shade = "#666" if abs(tick) < 1e-12 else "#ddd"
        parts.append(f"<line x1='{LEFT}' x2='{RIGHT}' y1='{y}' y2='{y}' stroke='{shade}'/>")
        written = f"{tick + 0.0:.{places}f}" if abs(tick) > 1e-12 else "0"
        parts.append(f"<text x='{LEFT - 6}' y='{y + 4}' text-anchor='end'>{written}</text>")
    for size in sizes:
        x = place(size, 0.0)[0]
        parts.append(f"<line x1='{x}' x2='{x}' y1='{BOTTOM}' y2='{BOTTOM + 4}' stroke='#666'/>")
        parts.append(f"<text x='{x}' y='{BOTTOM + 17}' text-anchor='middle'>{size:g}</text>")
    parts.append(f"<text x='{(LEFT + RIGHT) / 2}' y='{HEIGHT - 8}' text-anchor='middle'>number removed</text>")
    middle = (TOP + BOTTOM) / 2
    turned = f"transform='rotate(-90 14 {middle})'"
    parts.append(f"<text x='14' y='{middle}' text-anchor='middle' {turned}>change of test loss</text>")
    return "".join(parts)


def _present(k: int, place: Callable[..., Point]) -> str:
    x = place(k, 0.0)[0]
    return f"<line x1='{x}' x2='{x}' y1='{TOP}' y2='{BOTTOM}' stroke='#444' stroke-width='1.5'/>"


def _line(points: Sequence[Point], i: int) -> str:
    joined = " ".join(f"{x},{y}" for x, y in points)
    return (
        f"<polyline points='{joined}' fill='none' stroke='{SERIES[i].colour}' stroke-width='2' "
        f"stroke-dasharray='{DASHES[i]}'/>"
    )


def _mark(point: Point, i: int, r: float) -> str:
    x, y = point
    look = f"fill='{SERIES[i].colour}' stroke='white' stroke-width='1'"
    if SERIES[i].marker == "o":
        return f"<circle cx='{x}' cy='{y}' r='{r}' {look}/>"
    if SERIES[i].marker == "^":
        return f"<path d='M{x} {y - 1.3 * r:.1f} l{1.2 * r:.1f} {2.2 * r:.1f} h{-2.4 * r:.1f} z' {look}/>"
    return f"<rect x='{x - r:.1f}' y='{y - r:.1f}' width='{2 * r}' height='{2 * r}' {look}/>"


def _cross(point: Point) -> str:
    x, y = point
    return (
        f"<path class='xl-cross' d='M{x - 6:.1f} {y - 6:.1f} l12 12 m0 -12 l-12 12' fill='none' stroke='black' "
        "stroke-width='2.6'/>"
    )


def _legend(names: Sequence[str]) -> str:
    parts = []
    for i, name in enumerate(names):
        x = LEFT + 4 + i * 122
        parts.append(_line([(x, 16), (x + 26, 16)], i) + _mark((x + 13, 16), i, 4.5))
        parts.append(f"<text x='{x + 32}' y='20'>{escape(name)}</text>")
    x = LEFT + 4 + len(names) * 122
    return "".join(parts) + _cross((x + 8, 16)) + f"<text x='{x + 20}' y='20'>retrained</text>"


def _describe(now: Mapping[str, float], truths: Mapping[int, float], k: int) -> str:
    here = ", ".join(f"{name} {value:+.3f}" for name, value in now.items())
    crosses = ", ".join(f"{value:+.3f} at {size}" for size, value in sorted(truths.items()))
    return f"Change of test loss against the number removed. At {k}: {here}. Retrained: {crosses or 'nothing yet'}."
