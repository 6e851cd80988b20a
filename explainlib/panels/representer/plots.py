"""The deletion curve of the representer panel as SVG text: what the scores predict, and what training again says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from explainlib.figures.palette import SERIES
from explainlib.panels.svg import Point, axis_ends, cross, grid_line, nice_ticks, svg, tick_label

WIDTH, HEIGHT = 392, 330
LEFT, RIGHT, TOP, BOTTOM = 46, 346, 62, 282
MARGIN = 0.07  # of the axes
APART = 3.0  # predictions and truths that differ by more than this factor get a scale each


def deletion_plot(predicted: Sequence[float], truths: Mapping[int, float], k: int, *, sign: str, own_unit: bool) -> str:
    """Return the predicted change of the output against the number deleted, with what was retrained as crosses.

    Args:
        predicted: the change after 0, 1, ... deletions.
        truths: by number deleted, the retrained change.
        k: the present number, a vertical line.
        sign: in words, which scores go first.
        own_unit: the prediction's size means nothing, only its shape.

    Returns:
        SVG with its text equivalent. Where predictions and truths are of very different size, the truths have the
        scale on the right; zero is at one height.
    """
    left, right = _scales(predicted, list(truths.values()), own_unit)
    end = max(1, len(predicted) - 1)

    def place(at: int, value: float, scale: tuple[float, float]) -> Point:
        low, high = scale
        up = (value - low) / (high - low)
        return round(LEFT + at / end * (RIGHT - LEFT), 1), round(BOTTOM - up * (BOTTOM - TOP), 1)

    parts = [
        grid_line(LEFT, RIGHT, place(0, tick, left)[1], tick_label(tick), strong=abs(tick) < 1e-12)
        for tick in nice_ticks(*left, 5)
    ]
    if truths:
        for tick in nice_ticks(*right, 5):
            y = place(0, tick, right)[1]
            parts.append(f"<line x1='{RIGHT}' x2='{RIGHT + 4}' y1='{y}' y2='{y}' stroke='#222'/>")
            parts.append(f"<text x='{RIGHT + 7}' y='{y + 4}' font-size='12'>{tick_label(tick)}</text>")
    for size in (size for size in nice_ticks(0.0, float(end), 6) if size == round(size)):
        x = place(int(size), 0.0, left)[0]
        parts.append(f"<text x='{x}' y='{BOTTOM + 17}' text-anchor='middle' font-size='12'>{size:g}</text>")
    x = place(k, 0.0, left)[0]
    parts.append(f"<line x1='{x}' x2='{x}' y1='{TOP}' y2='{BOTTOM}' stroke='#444' stroke-width='1.5'/>")
    line = [place(at, value, left) for at, value in enumerate(predicted)]
    blue = SERIES[0].colour
    joined = " ".join(f"{x},{y}" for x, y in line)
    parts.append(f"<polyline points='{joined}' fill='none' stroke='{blue}' stroke-width='2'/>")
    parts.append(f"<circle cx='{line[k][0]}' cy='{line[k][1]}' r='6' fill='{blue}' stroke='white'/>")
    crosses = [place(at, value, right) for at, value in sorted({0: 0.0, **truths}.items())] if truths else []
    path = " ".join(f"{x},{y}" for x, y in crosses)
    parts.append(f"<polyline points='{path}' fill='none' stroke='#222' stroke-width='1.5' stroke-dasharray='5 4'/>")
    parts += [cross(point) for point in crosses[1:]]
    parts += _legend(bool(truths), left != right, own_unit)
    return _svg(parts, _describe(predicted, truths, k, sign), f"change of the output, {sign} scores deleted first")


def _scales(predicted: Sequence[float], truths: Sequence[float], own_unit: bool) -> tuple[tuple, tuple]:
    """Return the ends of the left and the right axis; one scale where the numbers are of one size."""
    sizes = [max((abs(v) for v in values), default=0.0) for values in (predicted, truths)]
    apart = own_unit or not all(sizes) or max(sizes) > APART * min(sizes)
    if not truths or not apart:
        both = axis_ends([*predicted, *truths], MARGIN)
        return both, both
    biggest = max(sizes[1], 1e-12) / max(sizes[0], 1e-12)
    low, high = axis_ends([*predicted, *(value / biggest for value in truths)], MARGIN)
    return (low, high), (low * biggest, high * biggest)


def _legend(known: bool, two_scales: bool, own_unit: bool) -> list[str]:
    blue = SERIES[0].colour
    unit = "predicted (in its own unit)" if own_unit else "predicted"
    words = f"{unit}, left scale" if two_scales else unit
    parts = [
        f"<line x1='{LEFT}' x2='{LEFT + 24}' y1='30' y2='30' stroke='{blue}' stroke-width='2'/>",
        f"<circle cx='{LEFT + 12}' cy='30' r='4.5' fill='{blue}'/><text x='{LEFT + 30}' y='34'>{words}</text>",
    ]
    if known:
        words = "retrained, right scale" if two_scales else "retrained"
        parts += [cross((LEFT + 12, 49)), f"<text x='{LEFT + 30}' y='53'>{words}</text>"]
    else:
        parts.append(f"<text x='{LEFT + 30}' y='53' fill='#555'>Retrain adds the truth</text>")
    return parts


def _svg(parts: Sequence[str], alt: str, title: str) -> str:
    head = f"<text x='{LEFT}' y='14' font-weight='bold'>{escape(title)}</text>"
    foot = f"<text x='{(LEFT + RIGHT) / 2}' y='{HEIGHT - 12}' text-anchor='middle'>number deleted</text>"
    return svg([head, *parts, foot], alt, WIDTH, HEIGHT)


def _describe(predicted: Sequence[float], truths: Mapping[int, float], k: int, sign: str) -> str:
    crosses = ", ".join(f"{value:+.3g} at {size}" for size, value in sorted(truths.items()))
    return (
        f"Change of the output against the number of examples deleted, {sign} scores first. Predicted at {k}: "
        f"{predicted[k]:+.3g}. Retrained: {crosses or 'nothing yet'}."
    )
