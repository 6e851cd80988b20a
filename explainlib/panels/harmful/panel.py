"""The panel on harmful tasks: flip labels, rank the tasks, inspect some, and see what the learner is without them.

Dragging edits the meta-parameters by influence; Retrain solves again without the suspects and sets the truth beside it.
"""

from __future__ import annotations

import time
from html import escape

from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_choice, require_count
from explainlib.datasets import Tasks
from explainlib.figures.bilevel import detection_curves
from explainlib.figures.picture import alt_text, png
from explainlib.meta import Bilevel
from explainlib.panels.harmful.controls import HarmfulControls
from explainlib.panels.harmful.flips import EDITS, METHODS, FlippedLearner, Flips, Outcome, require_flips, split_in_half
from explainlib.panels.harmful.html import outcome_table, suspects
from explainlib.panels.html import message, picture_html
from explainlib.panels.interactive import InteractivePanel
from explainlib.panels.panel import elapsed

LISTED = 7
FIRST = Flips(0.25, 0.4, 0)


class Harmful(InteractivePanel):
    """A panel on one bilevel learner: spoil tasks, find them again, and leave the suspects out.

    ``set``, ``draw``, ``verify`` and ``reset`` do everything; the widgets only forward to them, so a notebook cell or
    a test can drive the panel. Each returns the panel's text. The first half of the new tasks says which training
    tasks are suspect, the second half judges what becomes of the learner. The learner is solved when the flips change.

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
        self._start = FIRST, next(iter(METHODS)), max(1, round(FIRST.tasks * len(tasks)))
        self._flips, self._method, self._inspected = self._start
        self.controls = HarmfulControls(methods=list(METHODS), most=self.most, k=self._inspected)
        self._connect()
        self._learner(self._flips)
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
        flips = require_flips(self._flips, flipped, labels, seed)
        method = self._method if method is None else require_choice("method", method, tuple(METHODS))
        inspected = self._inspected if inspected is None else require_count("inspected", inspected)
        if inspected > self.most:
            raise ValueError(f"inspected={inspected} would leave no task; pass at most {self.most}.")
        self._learner(flips)  # whatever fails, fails before
        self._flips, self._method, self._inspected = flips, method, inspected
        return self.draw()

    def draw(self) -> str:
        """Show who is suspected and what leaving them out is predicted to do; return the panel's text."""
        started = time.perf_counter()
        self._show()
        said = f"{self._inspected} of {len(self.tasks)} tasks inspected; predicted in {elapsed(started)}."
        self.controls.message.value = message(said)
        return self.text

    def verify(self) -> str:
        """Solve again without the suspects; show the truth and return the panel's text."""
        started, c = time.perf_counter(), self.controls
        c.retrain.disabled = True
        c.message.value = message(f"solving again without {self._inspected} tasks ...")
        try:
            self._learner(self._flips).solve_without(self.suspects())
        finally:
            c.retrain.disabled = False
        self._show()
        c.message.value = message(f"solved again without {self._inspected} tasks in {elapsed(started)}.")
        return self.text

    def reset(self) -> str:
        """Go back to the first choice, forget the truths, and return the panel's text."""
        for spoiled in self._known.values():
            spoiled.forget()
        self._flips, self._method, self._inspected = self._start
        return self.draw()

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
        return self._now().order(self._method)[: self._inspected]

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
        return self._learner(self._flips)

    def _truth(self) -> Outcome | None:
        return self._now().truth(self.suspects())

    def _lines(self) -> list[str]:
        known, m, k, flips = self._now(), len(self.tasks), self._inspected, self._flips
        wrong, chosen = int(known.hit.sum()), self.suspects()
        found, most = int(known.hit[chosen].sum()), min(k, wrong)
        formula, newton = (known.edit(chosen, how) for how in EDITS)
        now = known.now
        return [
            f"{flips.labels:.0%} of the labels flipped in {wrong} of {m} training tasks (seed {flips.seed})",
            f"{len(self.judge_by)} new tasks: loss {now.loss:.3f}, accuracy {now.accuracy:.1%}",
            f"inspected by {self._method}: {k} of {m} ({k / m:.0%}), found {found} of {wrong} flipped; {most} is the "
            f"most there can be, {k * wrong / m:.1f} is chance",
            f"without these {k}: loss {formula.loss - now.loss:+.3f} by the formula, {newton.loss - now.loss:+.3f} by "
            f"a Newton step; accuracy {formula.accuracy:.1%} and {newton.accuracy:.1%}",
        ]

    def _message(self, true: Outcome) -> str:
        return f"retrained without them: loss {true.loss - self._now().now.loss:+.3f}, accuracy {true.accuracy:.1%}"

    # What is shown -------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        self._sync()
        c, known, chosen, true = self.controls, self._now(), self.suspects(), self._truth()
        picture = detection_curves(self.scores(), known.hit, inspected=self._inspected).figure
        c.curve.value = picture_html(png(picture, dpi=92), alt_text(picture), width=460)
        c.suspects.value = suspects(chosen, known.scores(self._method), known.hit, known.tasks, LISTED)
        body = "".join(f"<div>{escape(line)}</div>" for line in self._lines()[:3])
        c.prediction.value = f"<div style='font-size:13px;line-height:1.35'>{body}</div>"
        edits = {f"edited, {how}": known.edit(chosen, how) for how in EDITS}
        c.table.value = outcome_table(known.now, {**edits, "solved again": true})
        c.truth.value = message("" if true is None else f"{self._message(true)}.")

    # Widgets: they only forward ------------------------------------------------------------------------------------

    def _connect(self) -> None:
        c = self.controls
        c.flipped.observe(self._forward(lambda: self.set(flipped=c.flipped.value / 100)), "value")
        c.labels.observe(self._forward(lambda: self.set(labels=c.labels.value / 100)), "value")
        c.seed.observe(self._forward(lambda: self.set(seed=c.seed.value)), "value")
        c.how.observe(self._forward(lambda: self.set(method=c.how.value)), "value")
        c.slider.observe(self._forward(lambda: self.set(inspected=c.slider.value)), "value")
        c.retrain.on_click(self._forward(self.verify))
        c.reset.on_click(self._forward(self.reset))

    def _set_widgets(self) -> None:
        c, flips = self.controls, self._flips
        c.flipped.value, c.labels.value = round(100 * flips.tasks), round(100 * flips.labels)
        c.seed.value, c.how.value, c.slider.value = flips.seed, self._method, self._inspected
