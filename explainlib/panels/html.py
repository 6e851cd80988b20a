"""The text and bars of a panel as HTML: plain enough for any front end, readable without colour."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from explainlib.figures.palette import SERIES

ROW = "text-align:right;padding-right:8px;white-space:nowrap"
SHOWN = 0.01  # a class below this probability in every row of bars is left out, unless it is the label


class Shown(NamedTuple):
    """One column of the table: the model now, a prediction, or the truth."""

    name: str
    loss: float
    probabilities: Sequence[float]
    linear: float | None = None


def prediction_table(columns: Sequence[Shown], classes: Sequence[str], label: int | None) -> str:
    """Return a table: class probabilities as bars with numbers, then loss and change, one column per model."""
    now = columns[0].loss
    head = "".join(f"<th style='text-align:left;padding:0 10px 4px 0'>{escape(c.name)}</th>" for c in columns)
    body = "".join(
        f"<tr><th style='{ROW}'>{escape(str(classes[c]))}"
        f"{' (label)' if c == label else ''}</th>"
        + "".join(_bar(column.probabilities[c], k) for k, column in enumerate(columns))
        + "</tr>"
        for c in _shown_classes(columns, label)
    )
    losses = "".join(f"<td style='padding-top:4px'><b>{column.loss:.3f}</b></td>" for column in columns)
    changes = "".join(f"<td>{'' if k == 0 else f'{c.loss - now:+.3f}'}</td>" for k, c in enumerate(columns))
    tangent = "".join(f"<td>{'' if c.linear is None else f'{c.linear:+.3f}'}</td>" for c in columns)
    return (
        f"<table style='border-collapse:collapse;font-size:13px'><thead><tr><th></th>{head}</tr></thead><tbody>{body}"
        f"<tr><th style='{ROW}'>test loss</th>{losses}</tr>"
        f"<tr><th style='{ROW}'>change</th>{changes}</tr>"
        f"<tr><th style='{ROW}'>on the tangent</th>{tangent}</tr></tbody></table>"
        f"{_left_out(len(columns[0].probabilities) - len(_shown_classes(columns, label)))}"
    )


def _left_out(count: int) -> str:
    return f"<div style='font-size:11px;color:#555'>{count} classes below 1% are not shown</div>" if count else ""


def _shown_classes(columns: Sequence[Shown], label: int | None) -> list[int]:
    count = len(columns[0].probabilities)
    return [c for c in range(count) if c == label or any(column.probabilities[c] >= SHOWN for column in columns)]


def _bar(value: float, series: int) -> str:
    width, colour = round(64 * min(max(value, 0.0), 1.0)), SERIES[(series - 1) % len(SERIES)].colour
    colour = "#777777" if series == 0 else colour
    return (
        "<td style='padding:1px 10px 1px 0;white-space:nowrap'>"
        f"<span style='display:inline-block;width:64px;height:11px;background:#eee;border:1px solid #ccc'>"
        f"<span style='display:block;height:11px;width:{width}px;background:{colour}'></span></span>"
        f" <span style='display:inline-block;width:2.8em'>{100 * value:.1f}%</span></td>"
    )


def message(text: str, *, wrong: bool = False) -> str:
    """Return a line for the reader; a mistake carries a sign as well as a colour."""
    if not text:
        return "<div style='min-height:1.6em'></div>"
    look = (
        "background:#fdecea;border-left:4px solid #D55E00"
        if wrong
        else "background:#eef4fa;border-left:4px solid #0072B2"
    )
    sign = "&#9888; " if wrong else ""
    return f"<div role='status' style='min-height:1.6em;padding:2px 8px;{look}'>{sign}{escape(text)}</div>"
