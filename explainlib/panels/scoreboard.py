"""The panel on the scoreboard: the claims of five papers by paper and verdict, each with what it rests on.

The rows are those of the written scoreboard. The button judges all claims again, now, from the tables of the studies.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import ipywidgets as widgets
import pandas
from ipywidgets import Button, Widget

from explainlib.checks import require_choice
from explainlib.panels.frame import framed
from explainlib.panels.html import lines_html, message
from explainlib.panels.interactive import Action, InteractivePanel
from explainlib.studies.claims import VERDICTS
from explainlib.studies.scoreboard import LETTERS, PAPERS, kept_scoreboard, scoreboard

ALL = "all"
# A sign beside each verdict, so that no colour is needed.
SIGNS = {"held": "&#10003;", "not held": "&#10007;", "undecided": "?", "premise absent": "&#8709;",
         "not applicable": "&#8211;"}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """Which claims are listed, and which one is shown in full."""

    paper: str = ALL
    verdict: str = ALL
    claim: str = "B1"


class ScoreboardControls:
    """Two filters, the list of claims, and the one that is shown in full.

    Args:
        claims: all ids.
    """

    def __init__(self, claims: list[str]) -> None:
        narrow = {"style": {"description_width": "52px"}, "layout": widgets.Layout(width="220px")}
        self.paper = widgets.Dropdown(options=[ALL, *LETTERS], description="paper", **narrow)
        self.verdict = widgets.Dropdown(options=[ALL, *VERDICTS], description="verdict", **narrow)
        self.claim = widgets.Dropdown(options=claims, description="in full", **narrow)
        self.again = widgets.Button(
            description="Judge again",
            button_style="primary",
            tooltip="Judge all claims again from the tables of the studies",
        )
        self.reset = widgets.Button(description="Reset", tooltip="Back to the first choice")
        self.list, self.full, self.truth, self.message = (widgets.HTML() for _ in range(4))
        for shown, name in ((self.paper, "xl-paper"), (self.verdict, "xl-verdict"), (self.list, "xl-list"),
                            (self.full, "xl-full"), (self.truth, "xl-truth")):  # fmt: skip
            shown.add_class(name)
        choosers = widgets.HBox([self.paper, self.verdict, self.claim, self.again, self.reset])
        rows = [choosers, self.list, self.full, self.truth, self.message]
        self.root = framed(rows, "xl-scoreboard-panel", "620px")


class Scoreboard(InteractivePanel):
    """A panel on the scoreboard: choose a paper and a verdict, read the claims, and one of them in full.

    Args:
        folder: that ``python -m explainlib study all`` wrote into; None reads the tables inside the package.

    Raises:
        FileNotFoundError: no scoreboard in the folder.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._folder = None if folder is None else Path(folder)
        self.board: pandas.DataFrame = kept_scoreboard(self._folder).fillna({"reason": "", "controls": ""})
        self._start = Choice(claim=str(self.board["id"].iloc[0]))
        self._choice = self._start
        self._truths: dict[str, str] = {}
        self.controls = ScoreboardControls(list(self.board["id"]))
        self._connect()
        self.draw()

    def set(self, *, paper: str | None = None, verdict: str | None = None, claim: str | None = None) -> str:
        """Change the choice, redraw, and return the panel's text.

        Args:
            paper: "all", "TLXML", "Ren", "Epifano", "Tsai" or "Basu".
            verdict: "all", "held", "not held", "undecided", "premise absent" or "not applicable".
            claim: the id of the claim shown in full, such as "B3"; None takes the first of the list where a filter
                changes.

        Raises:
            ValueError: a paper, verdict or claim that the scoreboard does not hold; nothing is changed then.
        """
        choice = self._choice
        if paper is not None:
            choice = replace(choice, paper=require_choice("paper", paper, (ALL, *LETTERS)))
        if verdict is not None:
            choice = replace(choice, verdict=require_choice("verdict", verdict, (ALL, *VERDICTS)))
        if claim is not None:
            choice = replace(choice, claim=require_choice("claim", claim, tuple(self.board["id"])))
        elif choice != self._choice and len(listed := self._listed(choice)):
            choice = replace(choice, claim=str(listed["id"].iloc[0]))
        self._choice = choice
        return self.draw()

    def draw(self) -> str:
        """Show the chosen claims, and return the panel's text."""
        return self._report("read and drawn", time.perf_counter())

    def verify(self) -> str:
        """Judge all claims again from the tables of the studies; say what differs, and return the panel's text."""
        started = time.perf_counter()
        with self._busy("judging all claims again from the tables of the studies ..."):
            again = scoreboard(self._folder).set_index("id")["verdict"]
        then = self.board.set_index("id")["verdict"]
        changed = [
            f"{name}: {then[name]} before, {again[name]} now" for name in then.index if then[name] != again[name]
        ]
        said = "; ".join(changed) or f"all {len(then)} verdicts are the same"
        self._truths["again"] = f"judged again from the tables: {said}"
        return self._report("judged again", started)

    @property
    def text(self) -> str:
        """The panel in words: how many claims, each with its verdict, and one in full."""
        listed = self._listed(self._choice)
        rows = [f"{row.id:4}{row.verdict:15} {row.printed}" for row in listed.itertuples()]
        return "\n".join([self._count(listed), *rows, *self._full(), *self._truths.values()])

    # What is known -------------------------------------------------------------------------------------------------

    def _listed(self, choice: Choice) -> pandas.DataFrame:
        of_paper = self.board["id"].str.startswith(LETTERS.get(choice.paper, ""))
        of_verdict = (self.board["verdict"] == choice.verdict) | (choice.verdict == ALL)
        return self.board[of_paper & of_verdict]

    def _count(self, listed: pandas.DataFrame) -> str:
        counts = listed["verdict"].value_counts()
        said = ", ".join(f"{counts[name]} {name}" for name in VERDICTS if name in counts)
        return f"{len(listed)} of {len(self.board)} claims" + (f": {said}" if said else "; none has that verdict")

    def _full(self) -> list[str]:
        row = self.board.set_index("id").loc[self._choice.claim]
        known = row["low"] == row["low"]
        interval = f" [{row['low']:.3g}, {row['high']:.3g}]" if known else ""
        return [
            f"{self._choice.claim} in full ({PAPERS[self._choice.claim[0]][0]}, {row['place']}): {row['printed']}",
            f"  verdict: {row['verdict']}; {row['reason']}",
            f"  quantity: {row['quantity']}",
            f"  effect: {row['effect']:.3g}{interval} over {row['clusters']} clusters; rule: {row['rule']}",
            f"  controls: {row['controls']}",
            f"  made by: {row['command']}",
        ]

    # What is shown -------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        c, listed = self.controls, self._listed(self._choice)
        cell = "padding:1px 10px 1px 0;vertical-align:top;text-align:left"
        body = "".join(
            f"<tr><th style='{cell}'>{row.id}</th><td style='{cell};white-space:nowrap'>{SIGNS[row.verdict]} "
            f"{row.verdict}</td><td style='{cell}'>{escape(row.printed)}</td></tr>"
            for row in listed.itertuples()
        )
        head = "".join(f"<th style='{cell}'>{word}</th>" for word in ("claim", "verdict", "in our words"))
        table = f"<table style='font-size:13px;border-collapse:collapse'><tr>{head}</tr>{body}</table>"
        scroll = "<div tabindex='0' style='max-height:330px;overflow-y:auto;border:1px solid #ccc'>"
        c.list.value = f"<b>{escape(self._count(listed))}</b>{scroll}{table}</div>"
        c.full.value = lines_html(self._full(), 1.45)
        c.truth.value = message("".join(f"{said}." for said in self._truths.values()))

    # Widgets: they only forward ------------------------------------------------------------------------------------

    @property
    def _verify_button(self) -> Button:
        return self.controls.again

    def _actions(self) -> dict[Widget, Action]:
        c = self.controls
        return {c.paper: "paper", c.verdict: "verdict", c.claim: "claim"}

    def _set_widgets(self) -> None:
        c = self.controls
        c.paper.value, c.verdict.value, c.claim.value = self._choice.paper, self._choice.verdict, self._choice.claim
