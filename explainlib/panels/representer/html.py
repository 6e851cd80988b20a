"""The representer panel as HTML: global times local as bars, and a light for each axiom; readable without colour."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import pandas

from explainlib.datasets import Examples
from explainlib.figures.examples import class_name
from explainlib.figures.html import example_html
from explainlib.figures.palette import HARMFUL, HELPFUL

HOLDS, NEARLY = 1e-6, 0.05  # violations up to here are rounding, or small
BAR = 64  # pixels from end to end
LIGHTS = {  # state -> sign, colour of the rim, ground
    "holds": ("&#10004;", "#009E73", "#e8f5f0"),
    "nearly": ("&#8776;", "#E69F00", "#fdf5e3"),
    "broken": ("&#10006;", "#D55E00", "#fdecea"),
}


class Product(NamedTuple):
    """One training example's share: alpha, K and their product."""

    index: int
    importance: float
    kernel: float
    score: float


def product_table(rows: Sequence[Product], train: Examples, split: int) -> str:
    """Return a table with one training example a row: what it looks like, then alpha x K = phi as bars with numbers.

    Args:
        rows: those that raise the output first, then those that lower it.
        train: where the examples are, as they may be shown.
        split: how many rows stand above the line.
    """
    heads = ("training example", "global &#945;<sub>i</sub>", "&#215; local K(x<sub>i</sub>, x)", "= score &#966;")
    cell = "padding:0 8px 2px 0;text-align:left;font-weight:600"
    head = "".join(f"<th scope='col' style='{cell}'>{word}</th>" for word in heads)
    columns = [[row.importance for row in rows], [row.kernel for row in rows], [row.score for row in rows]]
    ends = [max(map(abs, column)) or 1.0 for column in columns]
    body = ""
    for place, row in enumerate(rows):
        rule = "border-top:2px dotted #777;" if place == split else ""
        values = (row.importance, row.kernel, row.score)
        bars = "".join(f"<td style='{rule}'>{_bar(v, end)}</td>" for v, end in zip(values, ends, strict=True))
        body += f"<tr><th scope='row' style='{rule}font-weight:normal;text-align:left'>"
        body += f"{_shown(train, row.index)}</th>{bars}</tr>"
    style = "border-collapse:collapse;font-size:12px;line-height:1.15"
    return f"<table style='{style}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _shown(train: Examples, index: int) -> str:
    """Return a training example in one line: its picture or a snippet, its number and its label."""
    name = escape(f"#{index}: {class_name(train, index)}")
    if train.raw is not None:
        words, fit = escape(train.raw[index][:120]), "white-space:nowrap;overflow:hidden;text-overflow:ellipsis"
        return (
            f"<span title='{words}' style='display:inline-block;width:150px;height:34px;{fit}'><b>{name}</b>"
            f"<br><i>{words}</i></span>"
        )
    picture = example_html(train, index, size=28)
    return (
        "<span style='display:inline-flex;align-items:flex-start;width:150px;height:36px;overflow:hidden'>"
        f"{picture}<b style='padding-top:8px'>{name}</b></span>"
    )


def _bar(value: float, end: float) -> str:
    """Return a bar that grows from the middle, to the left for a negative value, with its number."""
    half = BAR // 2
    width = max(1, round(half * min(1.0, abs(value) / end))) if value else 0
    look = HELPFUL if value > 0 else HARMFUL
    left = half if value > 0 else half - width
    hatch = f"repeating-linear-gradient(45deg,{look.colour} 0 3px,#fff 3px 4px)" if value < 0 else look.colour
    return (
        f"<span aria-hidden='true' style='display:inline-block;position:relative;width:{BAR}px;height:14px;"
        "background:#f2f2f2;vertical-align:middle'>"
        f"<span style='position:absolute;left:{half}px;width:1px;height:14px;background:#444'></span>"
        f"<span style='position:absolute;left:{left}px;width:{width}px;top:2px;height:10px;background:{hatch}'></span>"
        f"</span> <span style='display:inline-block;width:61px'>{value:+.3g}</span>"
    )


def state(violation: float) -> str:
    """Return "holds", "nearly" or "broken" for a relative violation."""
    return "holds" if violation <= HOLDS else "nearly" if violation <= NEARLY else "broken"


def axiom_lights(table: pandas.DataFrame) -> str:
    """Return a line for each axiom: a sign, a word, by how much it is violated, and what that number measures."""
    lines = ""
    for axiom, violation, measure in table[["axiom", "violation", "measure"]].itertuples(index=False):
        word = state(float(violation))
        sign, rim, ground = LIGHTS[word]
        number = "" if word == "holds" else f", off by {violation:.3g}"
        lines += (
            f"<div class='xl-axiom-{word}' style='background:{ground};border-left:8px solid {rim};margin:3px 0;"
            f"padding:1px 6px;line-height:1.25' title='{escape(measure, quote=True)}'>"
            f"<span aria-hidden='true' style='display:inline-block;width:18px'>{sign}</span><b>{escape(axiom)}</b>: "
            f"{word}{number}<div style='font-size:12px;color:#444;padding-left:18px'>{escape(measure)}</div></div>"
        )
    lines += (
        "<div style='font-size:12px;color:#444;padding:2px 6px 0 14px'>continuity is not measured here: the last-layer "
        "kernel has it, the others with smooth activations; with ReLU they jump where a unit switches on</div>"
    )
    return f"<div role='status' aria-label='Axioms' style='font-size:12px'>{lines}</div>"
