"""The panel on harmful tasks: flip labels, rank the tasks, inspect some, and see what the learner is without them.

Dragging edits the meta-parameters by influence; Retrain solves again without the suspects and sets the truth beside it.
"""

from __future__ import annotations

import time
from typing import NamedTuple

from ipywidgets import Widget
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_choice, require_count
from explainlib.datasets import Tasks
from explainlib.figures.bilevel import detection_curves
from explainlib.figures.picture import alt_text, png
from explainlib.meta import Bilevel
from explainlib.panels.harmful.controls import HarmfulControls
from explainlib.panels.harmful.flips import (
    EDITS,
    METHODS,
    FlippedLearner,
    Flips,
    Outcome,
    offered_percents,
    require_flips,
    split_in_half,
)
from explainlib.panels.harmful.html import outcome_table, suspects
from explainlib.panels.html import lines_html, message, picture_html
from explainlib.panels.interactive import Action, InteractivePanel

LISTED = 7
FIRST = (0.25, 0.4)  # of the tasks, and of their labels


class Choice(NamedTuple):
    """What is flipped, how the tasks are ranked, and how many of the most suspicious ones leave."""

    flips: Flips
    method: str
    inspected: int


class Harmful(InteractivePanel):
    """A panel on one bilevel learner: spoil tasks, find them again, and leave the suspects out.

    The first half of the new tasks says which training tasks are suspect, the second half judges what becomes of the
    learner. The learner is solved when the flips change.

    Args:
        bilevel: the learner.
        tasks: M >= 4 training tasks with their true labels, small enough to be solved in seconds.
        new_tasks: two or more.

    Raises:
        TypeError, ValueError: no learner, or tasks that it cannot read or that are too few.
        SolveError: a learner that does not come to rest.
    """

    def __init__(self, bilevel: Bilevel, tasks: Tasks, new_tasks: Tasks) -> None:
        if not isinstance(bilevel, Bilevel):
            raise TypeError(f"bilevel is a {type(bilevel).__name__}; pass an xl.meta.Bilevel.")
        self.bilevel, self.tasks = bilevel, bilevel.require_tasks(tasks)
        if len(tasks) < 4:
            raise ValueError(f"tasks has {len(tasks)} tasks; pass four or more, of which some are spoiled.")
        self.score_by, self.judge_by = split_in_half(bilevel.require_tasks(new_tasks))
        self.most = len(tasks) - 1
        self._known: dict[Flips, FlippedLearner] = {}
        offered = offered_percents(tasks)
        share, labels = (
            min(max(first, percents[0] / 100), percents[-1] / 100)
            for first, percents in zip(FIRST, offered, strict=True)
        )
        self._start = Choice(Flips(share, labels, 0), next(iter(METHODS)), max(1, round(share * len(tasks))))
        self._choice = self._start
        options = {"tasks": offered[0], "labels": offered[1]}
        self.controls = HarmfulControls(methods=list(METHODS), most=self.most, k=self._choice.inspected, **options)
        self._connect()
        self._learner(self._choice.flips)
        self.draw()

    def set(
        self,
        *,
        flipped: float | int | None = None,
        labels: float | int | None = None,
        seed: int | None = None,
        method: str | None = None,
        inspected: int | None = None,
    ) -> str:
        """Change the choice, solve the learner if the flips changed, redraw, and return the panel's text.

        Args:
            flipped: the share of the tasks that are spoiled.
            labels: the share of the labels that change in each of these.
            seed: of both.
            method: "task influence", "gradient product", "raw loss" or "random".
            inspected: how many of the most suspicious tasks leave; one task has to stay.

        Raises:
            ValueError, TypeError: a share, seed, method or number that does not exist; nothing is changed then.
            SolveError: a learner that does not come to rest on these flips.
        """
        old = self._choice
        chosen = Choice(
            require_flips(old.flips, flipped, labels, seed),
            old.method if method is None else require_choice("method", method, tuple(METHODS)),
            old.inspected if inspected is None else require_count("inspected", inspected),
        )
        if chosen.inspected > self.most:
            raise ValueError(f"inspected={inspected} would leave no task; pass at most {self.most}.")
        self._learner(chosen.flips)  # whatever fails, fails before
        self._choice = chosen
        return self.draw()

    def draw(self) -> str:
        """Show who is suspected and what leaving them out is predicted to do; return the panel's text."""
        started = time.perf_counter()
        return self._report(f"{self._choice.inspected} of {len(self.tasks)} tasks inspected; predicted", started)

    def verify(self) -> str:
        """Solve again without the suspects; show the truth and return the panel's text."""
        started, without = time.perf_counter(), f"without {self._choice.inspected} tasks"
        with self._busy(f"solving again {without} ..."):
            self._now().solve_without(self.suspects())
        return self._report(f"solved again {without}", started)

    @property
    def text(self) -> str:
        """The panel in words, with rounded numbers: the same facts as tables and plot."""
        true = self._truth()
        lines = self._lines()
        if true is not None:
            lines.append(self._message(true))
        return "\n".join(lines)

    def suspects(self) -> list[int]:
        """Return the inspected tasks, the most suspicious first."""
        return self._now().order(self._choice.method)[: self._choice.inspected]

    def scores(self) -> dict[str, Float[Tensor, " M"]]:
        """Return every method's scores of the training tasks as they are spoiled now."""
        return {name: self._now().scores(name) for name in METHODS}

    # What is known -------------------------------------------------------------------------------------------------

    def _learner(self, flips: Flips) -> FlippedLearner:
        if flips not in self._known:
            self.controls.message.value = message("solving the learner on the spoiled tasks ...")
            self._known[flips] = FlippedLearner(self.bilevel, self.tasks, self.score_by, self.judge_by, flips)
        return self._known[flips]

    def _now(self) -> FlippedLearner:
        return self._learner(self._choice.flips)

    def _forget(self) -> None:
        for learner in self._known.values():
            learner.forget()

    def _truth(self) -> Outcome | None:
        return self._now().truth(self.suspects())

    def _lines(self) -> list[str]:
        known, m, (flips, method, k) = self._now(), len(self.tasks), self._choice
        wrong, chosen = int(known.hit.sum()), self.suspects()
        found, most = int(known.hit[chosen].sum()), min(k, wrong)
        formula, newton = (known.edit(chosen, how) for how in EDITS)
        now = known.now
        return [
            f"{flips.labels:.0%} of the labels flipped in {wrong} of {m} training tasks (seed {flips.seed})",
            f"{len(self.judge_by)} new tasks: loss {now.loss:.3f}, accuracy {now.accuracy:.1%}",
            f"inspected by {method}: {k} of {m} ({k / m:.0%}), found {found} of {wrong} flipped; {most} is the "
            f"most there can be, {k * wrong / m:.1f} is chance",
            f"without these {k}: loss {formula.loss - now.loss:+.3f} by the formula, {newton.loss - now.loss:+.3f} by "
            f"a Newton step; accuracy {formula.accuracy:.1%} and {newton.accuracy:.1%}",
        ]

    def _message(self, true: Outcome) -> str:
        return f"retrained without them: loss {true.loss - self._now().now.loss:+.3f}, accuracy {true.accuracy:.1%}"

    # What is shown -------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        c, known, chosen, true = self.controls, self._now(), self.suspects(), self._truth()
        picture = detection_curves(self.scores(), known.hit, inspected=self._choice.inspected).figure
        c.curve.value = picture_html(png(picture, dpi=92), alt_text(picture), width=400)
        c.suspects.value = suspects(chosen, known.scores(self._choice.method), known.hit, known.tasks, LISTED)
        c.prediction.value = lines_html(self._lines()[:3], 1.35)
        edits = {f"edited, {how}": known.edit(chosen, how) for how in EDITS}
        c.table.value = outcome_table(known.now, {**edits, "solved again": true})
        c.truth.value = message("" if true is None else f"{self._message(true)}.")

    # Widgets: they only forward ------------------------------------------------------------------------------------

    def _actions(self) -> dict[Widget, Action]:
        c = self.controls
        return {
            c.flipped: lambda: self.set(flipped=c.flipped.value / 100),
            c.labels: lambda: self.set(labels=c.labels.value / 100),
            c.seed: "seed",
            c.how: "method",
            c.slider: "inspected",
        }

    def _set_widgets(self) -> None:
        c, (flips, method, inspected) = self.controls, self._choice
        c.flipped.value, c.labels.value = round(100 * flips.tasks), round(100 * flips.labels)
        c.seed.value, c.how.value, c.slider.value = flips.seed, method, inspected
