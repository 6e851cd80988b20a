"""The two plots of the task panel as SVG text: ranks against pruning, and predicted against retrained changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from explainlib.figures.palette import SERIES
from explainlib.panels.svg import DASHES, Point, axis_ends, cross, grid_line, marker, nice_ticks, svg, tick_label

WIDTH, HEIGHT = 400, 304
LEFT, RIGHT, TOP, BOTTOM = 58, 388, 58, 256
MARGIN = 0.08  # of the axes


def rank_plot(ranks: Mapping[str, Sequence[int | float]], keeps: Sequence[str], now: str, m: int) -> str:
    """Return the ranks of a few training tasks against the number of eigenvalues inverted; rank 0 is on top.

    Args:
        ranks: by the task's name, its rank under each pruning; at most three.
        keeps: the prunings in words, from few to many.
        now: the present one, a vertical line.
        m: the number of training tasks.
    """
    last = max(1, *(rank for row in ranks.values() for rank in row))
    step = (RIGHT - LEFT - 36) / max(1, len(keeps) - 1)

    def place(i: int, rank: float | int) -> Point:
        return round(LEFT + 12 + i * step, 1), round(TOP + 8 + rank / last * (BOTTOM - TOP - 16), 1)

    marks = sorted({0, *(round(tick) for tick in nice_ticks(0.0, float(last), 4))})
    parts = [grid_line(LEFT, RIGHT, place(0, rank)[1], str(rank)) for rank in marks]
    for i, keep in enumerate(keeps):
        x = place(i, 0)[0]
        parts.append(f"<text x='{x}' y='{BOTTOM + 17}' text-anchor='middle' font-size='12'>{escape(keep)}</text>")
        if keep == now:
            parts.append(
                f"<line x1='{x}' x2='{x}' y1='{TOP}' y2='{BOTTOM}' stroke='#444' stroke-width='7' opacity='.2'/>"
            )
    for i, (name, row) in enumerate(ranks.items()):
        points = [place(j, rank) for j, rank in enumerate(row)]
        joined = " ".join(f"{x},{y}" for x, y in points)
        look = f"fill='none' stroke='{SERIES[i].colour}' stroke-width='2' stroke-dasharray='{DASHES[i]}'"
        parts.append(f"<polyline points='{joined}' {look}/>" + "".join(marker(point, i, 4) for point in points))
        start = LEFT + 116 * i
        sample = f"<polyline points='{start},36 {start + 26},36' {look}/>" + marker((start + 13, 36), i, 4)
        parts.append(f"{sample}<text x='{start + 31}' y='40'>{escape(name)}</text>")
    title = "rank among the training tasks (0: most helpful)"
    said = "; ".join(
        f"{name}: " + ", ".join(f"{rank} at {keep}" for keep, rank in zip(keeps, row, strict=True))
        for name, row in ranks.items()
    )
    alt = f"Rank of training tasks, of {m}, against eigenvalues inverted, now {now}. {said}."
    return _svg(alt, parts, title, "eigenvalues inverted")


def truth_plot(
    predicted: Sequence[float], true: Sequence[float] | None, known: Sequence[bool], test: int, verdict: str
) -> str:
    """Return retrained against predicted changes of all test tasks, with the line of perfect prediction.

    Args:
        predicted: one a test task.
        true: one a test task; None before anything was retrained, which gives an invitation.
        known: whether a training task shares its support; it decides the mark.
        test: the chosen test task, marked with a cross.
        verdict: the agreement in words, shown above.
    """
    x_ends, y_ends = axis_ends(predicted, MARGIN), axis_ends(true or predicted, MARGIN)
    if true is not None and 1 / 3 < (x_ends[1] - x_ends[0]) / (y_ends[1] - y_ends[0]) < 3:
        x_ends = y_ends = (min(x_ends[0], y_ends[0]), max(x_ends[1], y_ends[1]))  # one scale, unless it would squeeze

    def place(x: float | int, y: float | int) -> Point:
        across, up = ((v - low) / (high - low) for v, (low, high) in ((x, x_ends), (y, y_ends)))
        return round(LEFT + across * (RIGHT - LEFT), 1), round(BOTTOM - up * (BOTTOM - TOP), 1)

    parts = [
        grid_line(LEFT, RIGHT, place(0, tick)[1], tick_label(tick), strong=abs(tick) < 1e-12)
        for tick in nice_ticks(*y_ends, 4)
    ]
    for tick in nice_ticks(*x_ends, 4):
        x = place(tick, 0)[0]
        parts.append(f"<text x='{x}' y='{BOTTOM + 17}' text-anchor='middle' font-size='12'>{tick_label(tick)}</text>")
    low, high = max(x_ends[0], y_ends[0]), min(x_ends[1], y_ends[1])
    (x1, y1), (x2, y2) = place(low, low), place(high, high)
    parts.append(f"<line x1='{x1}' y1='{y1}' x2='{x2}' y2='{y2}' stroke='#666' stroke-dasharray='5 4'/>")
    if true is None:
        x, y = (LEFT + RIGHT) / 2, (TOP + BOTTOM) / 2 - 20
        parts.append(f"<text x='{x}' y='{y}' text-anchor='middle' fill='#555'>Retrain puts a mark for each test</text>")
        said = "nothing was retrained for this removal yet"
    else:
        points = [place(*pair) for pair in zip(predicted, true, strict=True)]
        parts += [marker(point, 0 if own else 1, 4) for point, own in zip(points, known, strict=True)]
        parts.append(cross(points[test], 7))
        said = f"{verdict}; the chosen one is predicted {predicted[test]:+.4f}, retrained {true[test]:+.4f}"
        parts += [marker((LEFT + 6, 46), 0, 4), marker((LEFT + 176, 46), 1, 4)]
        parts.append(f"<text x='{LEFT + 15}' y='50'>support seen in training</text>")
        parts.append(f"<text x='{LEFT + 185}' y='50'>new support</text>")
    parts.append(f"<text x='{LEFT}' y='32'>{escape(verdict)}</text>")
    alt = f"Retrained against predicted change of the loss of {len(predicted)} test tasks: {said}."
    return _svg(alt, parts, "retrained change of each test task's loss", "predicted change")


def _svg(alt: str, parts: Sequence[str], title: str, below: str) -> str:
    head = f"<text x='{LEFT}' y='14' font-weight='bold'>{escape(title)}</text>"
    foot = f"<text x='{(LEFT + RIGHT) / 2}' y='{HEIGHT - 10}' text-anchor='middle'>{escape(below)}</text>"
    return svg([head, *parts, foot], alt, WIDTH, HEIGHT)
