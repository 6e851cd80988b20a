"""The adaptation panel: step down the support loss of a task, and see what becomes of its query.

While one drags, the tangent predicts: a way of length steps * inner_lr along -grad l_support changes the query loss by

    - steps * inner_lr * <grad l_query(w), grad l_support(w)>.       The button really adapts.
"""

from __future__ import annotations

import time
from html import escape
from typing import NamedTuple

import ipywidgets as widgets
from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_count, require_positive
from explainlib.datasets import Tasks
from explainlib.figures import Picture, alt_text, png
from explainlib.figures.primer import step_line
from explainlib.meta import Maml
from explainlib.panels.frame import framed
from explainlib.panels.html import ROW, message, picture_html
from explainlib.panels.interactive import Action, InteractivePanel, require_position
from explainlib.panels.number_box import NumberBox

MOST_STEPS = 10


class Choice(NamedTuple):
    """What the widgets show."""

    task: int
    steps: int
    inner_lr: float


class AdaptationControls:
    """The widgets and where they stand; ``root`` holds them all."""

    def __init__(self, tasks: int, start: Choice) -> None:
        wide = widgets.Layout(width="400px")
        self.task = NumberBox("task", tasks - 1, value=start.task)
        self.steps = widgets.IntSlider(value=start.steps, min=1, max=MOST_STEPS, description="steps", layout=wide)
        self.inner_lr = widgets.FloatSlider(
            value=start.inner_lr, min=start.inner_lr / 20, max=4 * start.inner_lr, step=start.inner_lr / 20,
            description="inner_lr", readout_format=".3f", layout=wide,
        )  # fmt: skip
        self.adapt = widgets.Button(description="Adapt", button_style="primary", tooltip="Show the truth")
        self.reset = widgets.Button(description="Reset", tooltip="Back to the first choice")
        self.about, self.table, self.truth, self.message, self.plot = (widgets.HTML() for _ in range(5))
        self.plot.layout = widgets.Layout(width="400px", height="326px", flex="0 0 auto")
        self.table.layout.min_height = "110px"
        for name in ("table", "truth", "steps", "plot"):
            getattr(self, name).add_class(f"xl-{name}")
        buttons = widgets.HBox([self.adapt, self.reset])
        left = widgets.VBox([self.task, self.about, self.steps, self.inner_lr, buttons, self.table, self.truth])
        left.layout = widgets.Layout(width="408px", flex="0 0 auto")
        self.root = framed([widgets.HBox([left, self.plot]), self.message], "xl-adaptation-panel", "400px")


class Adaptation(InteractivePanel):
    """A what-if panel on the inner loop of MAML: other steps, another rate, another task.

    Args:
        learner: MAML; its own rate and steps are the first choice.
        w: where adaptation starts.
        tasks: to choose from.

    Raises:
        TypeError, ValueError: another learner, parameters that are not its own, or tasks it cannot read.
    """

    def __init__(self, learner: Maml, w: Float[Tensor, " q"], tasks: Tasks) -> None:
        if not isinstance(learner, Maml):
            raise TypeError(f"learner is a {type(learner).__name__}, which takes no inner steps; pass xl.meta.Maml.")
        self.learner, self.w, self.tasks = learner, learner.require_w(w), learner.require_tasks(tasks)
        self._choice = self._start = Choice(0, learner.steps, learner.inner_lr)
        self._before: dict[int, tuple[float, float, float]] = {}
        self._truths: dict[Choice, tuple[float, float]] = {}
        self.controls = AdaptationControls(len(tasks), self._start)
        self._connect()
        self.draw()

    def set(self, *, task: int | None = None, steps: int | None = None, inner_lr: float | int | None = None) -> str:
        """Change the choice, redraw, and return the panel's text.

        Args:
            task: which task.
            steps: inner steps, at least 1.
            inner_lr: the rate of each, above 0.

        Raises:
            ValueError, TypeError: a task, count or rate that does not exist; nothing is changed then.
        """
        old = self._choice
        self._choice = Choice(
            old.task if task is None else require_position("task", task, len(self.tasks), "tasks"),
            old.steps if steps is None else require_count("steps", steps),
            old.inner_lr if inner_lr is None else require_positive("inner_lr", float(inner_lr)),
        )
        return self.draw()

    def draw(self) -> str:
        """Predict the query loss to first order, show it, and return the panel's text."""
        started = time.perf_counter()
        self._tangent()  # whatever fails, fails before
        return self._report("predicted", started)

    def verify(self) -> str:
        """Take the steps, show what the query says then, and return the panel's text.

        Raises:
            ValueError: the steps diverge.
        """
        started = time.perf_counter()
        task, steps, rate = self._choice
        inner = Maml(self.learner.given, inner_lr=rate, steps=steps)
        one = self.tasks[task]
        self._truths[self._choice] = float(inner.losses(self.w, one)), float(inner.accuracy(self.w, one))
        return self._report("adapted", started)

    @property
    def text(self) -> str:
        """The panel in words, with rounded numbers: the same facts as table and plot."""
        task, steps, rate = self._choice
        now, right, slope = self._tangent()
        lines = [
            f"task {task}, {steps} step{'s' if steps > 1 else ''} of inner_lr {rate:g}",
            f"query loss before {now:.3f}, {right:.0%} right",
            f"first order predicts {now + slope * steps * rate:.3f} ({slope * steps * rate:+.3f})",
        ]
        if self._choice in self._truths:
            loss, right = self._truths[self._choice]
            lines.append(f"adapted {loss:.3f} ({loss - now:+.3f}), {right:.0%} right")
        return "\n".join(lines)

    @property
    def picture(self) -> Picture:
        """The plot: the tangent, and the ways that were taken on the present task."""
        task, steps, rate = self._choice
        now, _, slope = self._tangent()
        truths = [(c.steps * c.inner_lr, loss, c.steps) for c, (loss, _) in self._truths.items() if c.task == task]
        return step_line(now, slope, steps * rate, truths)

    # What is shown --------------------------------------------------------------------------------------------------

    def _tangent(self) -> tuple[float, float, float]:
        """Return (query loss, share right, change of the query loss by unit of length) of the task before any step."""
        if self._choice.task not in self._before:
            one, given = self.tasks[self._choice.task], self.learner.given
            still = Maml(given, inner_lr=1e-300)  # w - 1e-300 grad is w: the query before any step
            down = self.w - Maml(given, inner_lr=1.0).adapted(self.w, one)[0]  # grad l_support(w)
            loss, right = still.losses(self.w, one), still.accuracy(self.w, one)
            slope = -still.gradients(self.w, one)[0] @ down
            self._before[self._choice.task] = float(loss), float(right), float(slope)
        return self._before[self._choice.task]

    def _show(self) -> None:
        task, steps, rate = self._choice
        now, right, slope = self._tangent()
        names = self.tasks.classes[task] if self.tasks.classes else ()
        self.controls.about.value = (
            f"<div style='height:40px;line-height:1.4;font-size:12px;overflow:hidden'>{escape('; '.join(names))}</div>"
        )
        rows = [("before", now, None, f"{right:.0%}")]
        rows.append(("first order", now + slope * steps * rate, slope * steps * rate, ""))
        found = self._truths.get(self._choice)
        rows.append(
            ("adapted", None, None, "") if found is None else ("adapted", found[0], found[0] - now, f"{found[1]:.0%}")
        )
        self.controls.table.value = _table(rows)
        truth = "" if found is None else f"adapted: {found[1]:.0%} of the query right, loss {found[0]:.3f}."
        self.controls.truth.value = message(truth)
        picture = self.picture
        self.controls.plot.value = picture_html(png(picture, dpi=90), alt_text(picture), width=396)

    # Widgets: they only forward -------------------------------------------------------------------------------------

    @property
    def _verify_button(self) -> widgets.Button:
        return self.controls.adapt

    def _actions(self) -> dict[widgets.Widget, Action]:
        c = self.controls
        return {c.task: "task", c.steps: "steps", c.inner_lr: lambda: self.set(inner_lr=round(c.inner_lr.value, 6))}

    def _set_widgets(self) -> None:
        """Give every widget the value of the present choice; a slider grows with what it has to show."""
        c, choice = self.controls, self._choice
        c.task.value = choice.task
        for slider, value in ((c.steps, choice.steps), (c.inner_lr, choice.inner_lr)):
            slider.max, slider.min = max(slider.max, value), min(slider.min, value)
            slider.value = value


def _table(rows: list[tuple[str, float | None, float | None, str]]) -> str:
    """Return the rows (name, loss, change, share right) as a table; what is unknown is a question mark."""
    cell = "padding:2px 14px 2px 0"
    head = "".join(f"<th style='text-align:left;{cell}'>{word}</th>" for word in ("", "query loss", "change", "right"))
    body = ""
    for name, loss, change, right in rows:
        shown = "?" if loss is None else f"<b>{loss:.3f}</b>"
        moved = "" if change is None else f"{change:+.3f}"
        cells = "".join(f"<td style='{cell}'>{text}</td>" for text in (shown, moved, right))
        body += f"<tr><th style='{ROW}'>{name}</th>{cells}</tr>"
    style = "border-collapse:collapse;font-size:13px"
    return f"<table style='{style}'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
