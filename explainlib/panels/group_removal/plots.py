"""The curve of the group panel: predicted and retrained changes of the test loss against the number removed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from explainlib.figures.palette import SERIES
from explainlib.panels.svg import DASHES, Point, cross, marker, nice_ticks, svg

START = 16  # of the legend
WIDTH, HEIGHT = 460, 314
LEFT, RIGHT, TOP, BOTTOM = 62, 448, 34, 268


def group_curve(
    series: Mapping[str, Mapping[int, float]],
    now: Mapping[str, float],
    truths: Mapping[int, float],
    k: int,
    end: int,
    unit: str = "test loss",
) -> str:
    """Return predicted changes of a measure against the number removed, with what was retrained as crosses.

    Args:
        series: by name, the change at some sizes.
        now: by name, the change at the present size.
        truths: by size, the retrained change.
        k: the present size, a vertical line.
        end: the right end of the picture, at least k; what lies beyond is left out.
        unit: what changes.
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
    parts = [_frame(ticks, sizes, place, unit), _present(k, place)]
    for i, (name, points) in enumerate(series.items()):
        line = [place(*point) for point in sorted({0: 0.0, **points, k: now[name]}.items())]
        parts.append(_line(line, i) + "".join(marker(point, i, 3.2) for point in line[1:]))
        parts.append(marker(place(k, now[name]), i, 6.0))
    parts += [cross(place(size, value)) for size, value in truths.items()]
    parts.append(_legend(list(series)))
    return svg(parts, _describe(now, truths, k, unit), WIDTH, HEIGHT)


def _frame(ticks: Sequence[float], sizes: Sequence[int | float], place: Callable[..., Point], unit: str) -> str:
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
    parts.append(f"<text x='14' y='{middle}' text-anchor='middle' {turned}>change of {escape(unit)}</text>")
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


def _legend(names: Sequence[str]) -> str:
    parts = []
    for i, name in enumerate(names):
        x = START + i * 112
        parts.append(_line([(x, 16), (x + 26, 16)], i) + marker((x + 13, 16), i, 4.5))
        parts.append(f"<text x='{x + 32}' y='20'>{escape(name)}</text>")
    x = START + len(names) * 112
    return "".join(parts) + cross((x + 8, 16)) + f"<text x='{x + 20}' y='20'>retrained</text>"


def _describe(now: Mapping[str, float], truths: Mapping[int, float], k: int, unit: str) -> str:
    here = ", ".join(f"{name} {value:+.3f}" for name, value in now.items())
    crosses = ", ".join(f"{value:+.3f} at {size}" for size, value in sorted(truths.items()))
    return f"Change of {unit} against the number removed. At {k}: {here}. Retrained: {crosses or 'nothing yet'}."
