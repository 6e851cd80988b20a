"""The text and bars of a panel as HTML: plain enough for any front end, readable without colour."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

from explainlib.figures.palette import SERIES

ROW = "text-align:right;padding-right:8px;white-space:nowrap"
BAR = 42  # pixels of a probability of one
SHOWN = 0.01  # a class below this probability in every row of bars is left out, unless it is the label


class PredictionColumn(NamedTuple):
    """One column of the table: the model now, a prediction, or the truth; ``value`` is the test loss or a measure."""

    name: str
    value: float
    probabilities: Sequence[float]
    linear: float | None = None


def prediction_table(
    columns: Sequence[PredictionColumn], classes: Sequence[str], label: int | None, *, unit: str = "test loss"
) -> str:
    """Return a table: class probabilities as bars with numbers, then a measure and its change, one column per model.

    Args:
        columns: the model now, then the others.
        classes: their names.
        label: position of the label's class; None marks none.
        unit: what the measure is called.
    """
    now = columns[0].value
    head = "".join(
        f"<th style='text-align:left;padding:0 10px 4px 0;white-space:nowrap'>{escape(c.name)}</th>" for c in columns
    )
    body = "".join(
        f"<tr><th style='{ROW}'>{escape(str(classes[c]))}"
        f"{' (label)' if c == label else ''}</th>"
        + "".join(_bar(column.probabilities[c], _colour(k)) for k, column in enumerate(columns))
        + "</tr>"
        for c in _classes_to_list(columns, label)
    )
    losses = "".join(f"<td style='padding-top:4px'><b>{column.value:.3f}</b></td>" for column in columns)
    changes = "".join(f"<td>{'' if k == 0 else f'{c.value - now:+.3f}'}</td>" for k, c in enumerate(columns))
    tangent = "".join(f"<td>{'' if c.linear is None else f'{c.linear:+.3f}'}</td>" for c in columns)
    return (
        f"<table style='border-collapse:collapse;font-size:13px'><thead><tr><th></th>{head}</tr></thead><tbody>{body}"
        f"<tr><th style='{ROW}'>{escape(unit)}</th>{losses}</tr>"
        f"<tr><th style='{ROW}'>change</th>{changes}</tr>"
        f"<tr><th style='{ROW}'>on the tangent</th>{tangent}</tr></tbody></table>"
        f"{_left_out(len(columns[0].probabilities) - len(_classes_to_list(columns, label)))}"
    )


def _left_out(count: int) -> str:
    words = "1 class below 1% is" if count == 1 else f"{count} classes below 1% are"
    return f"<div style='font-size:12px;color:#555'>{words} not shown</div>" if count else ""


def _classes_to_list(columns: Sequence[PredictionColumn], label: int | None) -> list[int]:
    count = len(columns[0].probabilities)
    return [c for c in range(count) if c == label or any(column.probabilities[c] >= SHOWN for column in columns)]


def _colour(place: int) -> str:
    return "#777777" if place == 0 else SERIES[(place - 1) % len(SERIES)].colour


def _bar(value: float, colour: str) -> str:
    width = round(BAR * min(max(value, 0.0), 1.0))
    return (
        "<td style='padding:1px 10px 1px 0;white-space:nowrap'>"
        f"<span style='display:inline-block;width:{BAR}px;height:11px;background:#eee;border:1px solid #ccc'>"
        f"<span style='display:block;height:11px;width:{width}px;background:{colour}'></span></span>"
        f" <span style='display:inline-block;width:2.8em'>{100 * value:.1f}%</span></td>"
    )


LIGHTS = {  # the first words of a diagnosis -> sign, colour of the rim, ground
    "trusted": ("&#10004;", "#009E73", "#e8f5f0"),
    "slow": ("&#8776;", "#56B4E9", "#eef7fd"),
    "doubtful": ("&#9888;", "#E69F00", "#fdf5e3"),
    "not trusted": ("&#10006;", "#D55E00", "#fdecea"),
}


def outcome_table(
    columns: Sequence[PredictionColumn], series: Sequence[str], label: int, label_name: str, *, unit: str = "loss"
) -> str:
    """Return a table of one line per model: a measure, its change, and the probability of the label.

    Args:
        columns: the model now, then the others.
        series: names of the models in the order of the palette; those not in ``columns`` get an empty line.
        label: position of the label's class.
        label_name: what the class is called.
        unit: what the measure is called.
    """
    given = {column.name: column for column in columns}
    cell = "padding:2px 12px 2px 0;white-space:nowrap"
    head = "".join(f"<th style='text-align:left;{cell}'>{escape(w)}</th>" for w in ("", unit, "change"))
    body = ""
    for name in (columns[0].name, *series):
        column = given.get(name)
        line = f"<tr><th style='{ROW}'>{escape(name)}</th>"
        if column is None:
            body += f"{line}<td style='{cell}'>?</td><td style='{cell}'>?</td><td style='{cell}'>?</td></tr>"
            continue
        change = "" if column is columns[0] else f"{column.value - columns[0].value:+.3f}"
        colour = "#000000" if name == "retrained" else _colour((columns[0].name, *series).index(name))
        bar = _bar(column.probabilities[label], colour)
        body += f"{line}<td style='{cell}'><b>{column.value:.3f}</b></td><td style='{cell}'>{change}</td>{bar}</tr>"
    return (
        "<table style='border-collapse:collapse;font-size:13px'><thead><tr>"
        f"{head}<th style='text-align:left;{cell}'>P({escape(label_name)})</th></tr></thead>"
        f"<tbody>{body}</tbody></table>"
    )


def trust_light(sentence: str) -> str:
    """Return a diagnosis as a box with a sign, a colour and its words.

    Args:
        sentence: begins with one of the words of ``LIGHTS``.
    """
    word = next(light for light in LIGHTS if sentence.startswith(light))
    sign, rim, ground = LIGHTS[word]
    look = f"background:{ground};border:1px solid {rim};border-left:8px solid {rim}"
    return (
        f"<div role='status' style='line-height:1.35;padding:4px 8px;{look}'><span style='font-size:17px' "
        f"aria-hidden='true'>{sign}</span> the series is <b>{word}</b>{escape(sentence[len(word) :])}</div>"
    )


def picture_html(png: bytes, alt: str, *, width: int) -> str:
    """Return a PNG as an image tag, because an Image widget has no place for the text equivalent."""
    data = base64.b64encode(png).decode()
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}" width="{width}">'


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


def lines_html(lines: Sequence[str], line_height: float) -> str:
    """Return lines of text, one below the other."""
    body = "".join(f"<div>{escape(line)}</div>" for line in lines)
    return f"<div style='font-size:13px;line-height:{line_height}'>{body}</div>"
