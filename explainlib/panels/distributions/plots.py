"""The two plots of the panel of distributions as SVG text: noise tasks in the ranking, and order against accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from explainlib.figures.palette import SERIES
from explainlib.panels.svg import Point, cross, grid_line, marker, nice_ticks, svg

WIDTH, HEIGHT = 440, 296
LEFT, RIGHT, TOP, BOTTOM = 52, 420, 50, 240


class NetworkPoint(NamedTuple):
    """A kind of network in the plot of order against accuracy; means over its networks.

    Attributes:
        name: in words.
        accuracy: on unseen tasks.
        share: of tests in proper order.
        series: of the palette: 0 as it is, 1 copies, 2 weight decay.
        chosen: whether it is the one that is shown.
    """

    name: str
    accuracy: float
    share: float
    series: int
    chosen: bool


def tenths_plot(shares: Sequence[float], here: Sequence[float] | None) -> str:
    """Return where the noise tasks are in the ranking: a bar a tenth, the most helpful on the left.

    Args:
        shares: of the noise tasks, ten that add up to one.
        here: of the small learner that was trained here, as crosses; None if there is none.
    """
    top = max(0.2, *shares, *(here or ()))

    def height(share: float) -> float:
        return round(BOTTOM - share / top * (BOTTOM - TOP), 1)

    step = (RIGHT - LEFT) / 10
    parts = [grid_line(LEFT, RIGHT, height(tick), f"{tick:.0%}") for tick in nice_ticks(0.0, top, 4)]
    for k, share in enumerate(shares):
        x, y = round(LEFT + k * step + 4, 1), height(share)
        look = f"fill='{SERIES[0].colour}' opacity='.85'"
        parts.append(f"<rect x='{x}' y='{y}' width='{step - 8:.1f}' height='{BOTTOM - y:.1f}' {look}/>")
        parts.append(f"<text x='{x + step / 2 - 4:.1f}' y='{BOTTOM + 16}' text-anchor='middle'>{k + 1}</text>")
        if here is not None:
            parts.append(cross((round(x + step / 2 - 4, 1), height(here[k])), 5))
    y = height(0.1)
    parts.append(f"<line x1='{LEFT}' x2='{RIGHT}' y1='{y}' y2='{y}' stroke='#222' stroke-dasharray='5 4'/>")
    legend = "dashed: if noise tasks were anywhere" + (", crosses: trained here" if here is not None else "")
    said = ", ".join(f"{share:.0%}" for share in shares)
    alt = f"Share of the noise tasks in each tenth of the ranking, most helpful first: {said}; 10% each by chance."
    if here is not None:
        alt += f" Trained here: {', '.join(f'{share:.0%}' for share in here)}."
    below = "tenth of the training tasks (1: the most helpful)"
    return _plot(alt, parts, "where the noise tasks are", legend, below)


def accuracy_plot(points: Sequence[NetworkPoint]) -> str:
    """Return the share of tests in proper order against the accuracy on unseen tasks, a mark a kind of network.

    Args:
        points: of one learner.
    """
    low = min(0.6, *(point.accuracy for point in points)) - 0.05

    def place(accuracy: float | int, share: float | int) -> Point:
        across = (accuracy - low) / (1 - low)
        return round(LEFT + across * (RIGHT - LEFT), 1), round(BOTTOM - share * (BOTTOM - TOP), 1)

    parts = [grid_line(LEFT, RIGHT, place(1, t)[1], f"{t:.0%}", strong=t == 0.5) for t in (0, 0.25, 0.5, 0.75, 1)]
    for tick in nice_ticks(low, 1.0, 5):
        x = place(tick, 0)[0]
        parts.append(f"<text x='{x}' y='{BOTTOM + 16}' text-anchor='middle'>{tick:.2f}</text>")
    for point in sorted(points, key=lambda one: one.chosen):
        x, y = place(point.accuracy, point.share)
        if point.chosen:
            parts.append(f"<circle cx='{x}' cy='{y}' r='11' fill='none' stroke='#222' stroke-width='2'/>")
        parts.append(marker((x, y), point.series, 5))
    for k, word in enumerate(("as it is", "turned copies", "weight decay")):
        parts.append(marker((LEFT + 5 + 118 * k, 32), k, 5) + f"<text x='{LEFT + 15 + 118 * k}' y='36'>{word}</text>")
    said = "; ".join(
        f"{p.name}: accuracy {p.accuracy:.2f}, {p.share:.0%} in order{' (chosen)' if p.chosen else ''}" for p in points
    )
    alt = f"Share of tests in proper order against accuracy on unseen tasks, 50% by chance. {said}."
    return _plot(alt, parts, "tests in proper order, by accuracy", "", "accuracy on unseen tasks")


def _plot(alt: str, parts: Sequence[str], title: str, legend: str, below: str) -> str:
    head = f"<text x='{LEFT}' y='14' font-weight='bold'>{escape(title)}</text>"
    head += f"<text x='{LEFT}' y='36'>{escape(legend)}</text>" if legend else ""
    foot = f"<text x='{(LEFT + RIGHT) / 2}' y='{HEIGHT - 16}' text-anchor='middle'>{escape(below)}</text>"
    return svg([head, *parts, foot], alt, WIDTH, HEIGHT)
