"""The panel on harmful tasks as HTML: the suspects in a row, and a table of what leaving them out does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from jaxtyping import Bool, Float
from torch import Tensor

from explainlib.datasets import Tasks
from explainlib.figures.palette import HARMFUL, HELPFUL
from explainlib.figures.tasks import class_names
from explainlib.panels.harmful.flips import Outcome
from explainlib.panels.html import ROW

CELL = "padding:2px 14px 2px 0;white-space:nowrap"


def suspects(
    chosen: Sequence[int], scores: Float[Tensor, " M"], hit: Bool[Tensor, " M"], tasks: Tasks, shown: int
) -> str:
    """Return the inspected tasks as a list, the first ones in full: number, score, flipped or not, classes.

    Args:
        chosen: the inspected tasks, the most suspicious first.
        scores: of all tasks.
        hit: which tasks were flipped.
        tasks: the training tasks.
        shown: how many are listed.
    """
    body = ""
    for i in chosen[:shown]:
        look, word = (HARMFUL, "&#9888; flipped") if hit[i] else (HELPFUL, "&#10004; true labels")
        body += (
            f"<div style='border-left:5px solid {look.colour};padding:1px 6px;margin:3px 0'>"
            f"<b>#{i}</b> {float(scores[i]):+.3g} <b>{word}</b> "
            f"<span style='color:#444'>{escape(', '.join(class_names(tasks, i)))}</span></div>"
        )
    more = f"and {len(chosen) - shown} more" if len(chosen) > shown else ""
    head = "<b>inspected, the most suspicious first</b>"
    return f"<div style='font-size:12px;line-height:1.3'>{head}{body}<div style='color:#444'>{more}</div></div>"


def outcome_table(now: Outcome, others: Mapping[str, Outcome | None]) -> str:
    """Return a table of one line per model: loss of the new tasks, its change, accuracy; "?" where not known yet.

    Args:
        now: the learner as it is.
        others: by name, after the suspects left.
    """
    heads = ("new tasks", "loss", "change", "accuracy")
    head = "".join(f"<th scope='col' style='text-align:left;{CELL}'>{word}</th>" for word in heads)
    body = ""
    for name, outcome in {"now": now, **others}.items():
        values = ("?", "?", "?") if outcome is None else (
            f"<b>{outcome.loss:.3f}</b>",
            "" if name == "now" else f"{outcome.loss - now.loss:+.3f}",
            f"<b>{outcome.accuracy:.1%}</b>",
        )  # fmt: skip
        cells = "".join(f"<td style='{CELL}'>{value}</td>" for value in values)
        body += f"<tr><th scope='row' style='{ROW};font-weight:normal'>{escape(name)}</th>{cells}</tr>"
    return f"<table style='border-collapse:collapse;font-size:13px'><tr>{head}</tr>{body}</table>"
