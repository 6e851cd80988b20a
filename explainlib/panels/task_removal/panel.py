"""The task panel: which training tasks a new task owes its loss to, how pruning changes that, and what is true.

Dragging the pruning shows the ranks settle; the Retrain button meta-trains again without the chosen tasks and sets the
truth against the prediction for every test task.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_choice, require_count
from explainlib.datasets import ClassPool, Tasks
from explainlib.figures.tasks import class_names
from explainlib.influence import TaskInfluence
from explainlib.meta import leave_tasks_out
from explainlib.panels.controls import positions_in
from explainlib.panels.html import message
from explainlib.panels.interactive import InteractivePanel
from explainlib.panels.panel import elapsed
from explainlib.panels.task_removal.choice import (
    SIDES,
    TaskChoice,
    by_script,
    describe,
    describe_agreement,
    every_score,
    leaving,
    origins,
    prunings,
    ranks,
    scripts_of,
    with_removal,
)
from explainlib.panels.task_removal.controls import TaskControls
from explainlib.panels.task_removal.html import TaskPages, change_table, ranked_list
from explainlib.panels.task_removal.plots import rank_plot, truth_plot
from explainlib.solvers.dense import Keep

LISTED = 3  # training tasks on either side, and lines in the plot of ranks
NAMED = 16  # numbers of leaving tasks that are written out


class TaskRemoval(InteractivePanel):
    """A what-if panel for training tasks: their influence on a new task, at any pruning, and the retrained truth.

    ``set``, ``draw``, ``verify`` and ``reset`` do everything; the widgets only forward to them, so a notebook cell or
    a test can drive the panel. Each returns the panel's text. A whole script means every training task with at least
    one class of that script, those with most of them first.

    Args:
        influence: of the training tasks on their learner, whose present ``keep`` is the first on the pruning slider.
        tasks: the M training tasks it was made from.
        test_tasks: the test tasks to choose from.
        pool: where the drawings are, for tasks whose x are features of them; None shows x itself if it is a picture.
        batches: meta-batches of a retraining. ``batches`` to ``start`` are those of ``xl.meta.leave_tasks_out``.
        batch_size: tasks a batch.
        lr: Adam's rate.
        weight_decay: that of the meta-training.
        seed: of the meta-batches.
        start: where retraining begins, such as ``influence.w``; None is ``learner.w0``, training from scratch.

    Raises:
        TypeError: something else than a TaskInfluence or Tasks.
        ValueError: tasks that are not the influence's or that the learner cannot read, or not of the pool.
    """

    def __init__(
        self,
        influence: TaskInfluence,
        tasks: Tasks,
        test_tasks: Tasks,
        *,
        batches: int,
        pool: ClassPool | None = None,
        batch_size: int = 32,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        seed: int = 0,
        start: Float[Tensor, " q"] | None = None,
    ) -> None:
        self.influence, self.learner = _checked(influence, tasks), influence.learner
        self.tasks, self.test_tasks = tasks, self.learner.require_tasks(test_tasks)
        self.training = dict(
            batches=require_count("batches", batches), batch_size=batch_size, lr=lr, weight_decay=weight_decay,
            seed=seed, start=start,
        )  # fmt: skip
        self.keeps = prunings(influence)
        self._scores = every_score(influence, test_tasks, self.keeps)
        self._losses = self.learner.losses(influence.w, test_tasks)
        self._origins = origins(tasks, test_tasks)
        self._scripts_of = scripts_of(tasks, pool)
        self.scripts = by_script(self._scripts_of)
        self._pages, self._test_pages = TaskPages(tasks, pool), TaskPages(test_tasks, pool)
        self.most = len(tasks) - 1
        first = next(word for word, keep in self.keeps.items() if keep == influence.keep)
        self._start = TaskChoice(0, "helpful", max(1, round(len(tasks) / 8)), first)
        self._choice = self._start
        self._truths: dict[frozenset[int], Float[Tensor, " T"]] = {}
        options = {"keeps": list(self.keeps), "keep": first, "scripts": list(self.scripts)}
        self.controls = TaskControls(tests=len(test_tasks), most=self.most, k=self._start.k, **options)
        self._connect()
        self.draw()

    def set(
        self,
        *,
        test: int | None = None,
        remove: str | Sequence[int] | Tensor | None = None,
        k: int | None = None,
        keep: Keep = None,
    ) -> str:
        """Change the choice, redraw, and return the panel's text.

        Args:
            test: which test task.
            remove: "helpful" or "harmful" (the first k by their influence on this test task at this pruning), a
                script, or distinct training tasks, of which the first k leave.
            k: how many; of a script or of given tasks all of them unless given.
            keep: eigenvalues to invert, one of the slider's words or numbers.

        Raises:
            ValueError, TypeError: a test task, script, task, count or pruning that does not exist; nothing is changed
                then.
        """
        choice = self._choice
        if test is not None:
            choice = replace(choice, test=self._checked_test(test))
        if keep is not None:
            word = next((w for w, value in self.keeps.items() if value == keep), str(keep))
            choice = replace(choice, keep=require_choice("keep", word, list(self.keeps)))
        if remove is not None:
            choice = with_removal(choice, remove, len(self.tasks), self.scripts)
        most = self._most(choice)
        if k is not None and require_count("k", k) > most:
            raise ValueError(f"k={k} is more than the {most} training tasks that may leave; pass a smaller k.")
        self._choice = replace(choice, k=min(choice.k if k is None else k, most))
        return self.draw()

    def draw(self) -> str:
        """Predict what the chosen removal does, show it, and return the panel's text."""
        started = time.perf_counter()
        self._show()
        removed = f"{len(self.group())} of {len(self.tasks)} training tasks removed"
        self.controls.message.value = message(f"{removed}; predicted in {elapsed(started)}.")
        return self.text

    def verify(self) -> str:
        """Meta-train again without the chosen tasks, and with all; show the truth and return the panel's text."""
        started, group = time.perf_counter(), self.group()
        self.controls.retrain.disabled = True
        self.controls.message.value = message(f"meta-training twice, {self.training['batches']} batches each ...")
        try:
            retrained = leave_tasks_out(self.learner, self.tasks, [group], **self.training)
            self._truths[frozenset(group)] = retrained.loss_change(self.test_tasks)[:, 0]
        finally:
            self.controls.retrain.disabled = False
        self._show()
        self.controls.message.value = message(
            f"retrained with and without these {len(group)} tasks in {elapsed(started)}."
        )
        return self.text

    def reset(self) -> str:
        """Go back to the first choice, forget the truths, and return the panel's text."""
        self._choice = self._start
        self._truths.clear()
        return self.draw()

    @property
    def text(self) -> str:
        """The panel in words, with rounded numbers: the same facts as tables and plots."""
        choice, test = self._choice, self._choice.test
        kept = f"eigenvalues kept: {choice.keep} (of {self.influence.w.numel()} parameters)"
        names, own = ", ".join(class_names(self.test_tasks, test)), self._origins[test]
        lines = [f"test task {test} ({names}), loss {float(self._losses[test]):.3f}"]
        if own is not None:
            rank = self._ranks(own)[list(self.keeps).index(choice.keep)]
            lines.append(f"its support is that of training task {own}, ranked {rank} of {len(self.tasks)}")
        lines.append(f"removed: {describe(choice, len(self.tasks), self.scripts)}; {kept}")
        predicted, true = self.predicted(), self._truth()
        lines.append(self._message("predicted", predicted))
        if true is not None:
            lines += [self._message("retrained", true), self._verdict()]
        return "\n".join(lines)

    def group(self) -> list[int]:
        """Return the training tasks of the present choice."""
        return leaving(self._choice, self._row(), self.scripts)

    def predicted(self) -> Float[Tensor, " T"]:
        """Return the predicted change of every test task's loss: -1/M times the summed influence of what leaves."""
        return -self._scores[self._choice.keep][:, self.group()].sum(1) / len(self.tasks)

    # What is known -------------------------------------------------------------------------------------------------

    def _row(self) -> Float[Tensor, " M"]:
        return self._scores[self._choice.keep][self._choice.test]

    def _truth(self) -> Float[Tensor, " T"] | None:
        return self._truths.get(frozenset(self.group()))

    def _ranks(self, item: int) -> list[int | float]:
        return ranks(self._scores, self._choice.test, item)

    def _verdict(self) -> str:
        true = self._truth()
        return "" if true is None else describe_agreement(self.predicted(), true)

    def _message(self, word: str, change: Float[Tensor, " T"]) -> str:
        own = float(change[self._choice.test])
        return f"{word} change of its loss {own:+.4f}, mean of {len(change)} test tasks {float(change.mean()):+.4f}"

    def _most(self, choice: TaskChoice) -> int:
        if choice.remove in SIDES:
            return self.most
        held = choice.picked if choice.remove == "hand" else self.scripts[choice.remove]
        return min(len(held), self.most)

    def _checked_test(self, test: int) -> int:
        if require_count("test", test, least=0) >= len(self.test_tasks):
            count = len(self.test_tasks)
            raise ValueError(f"test={test} is outside the {count} test tasks (0 to {count - 1}).")
        return test

    # What is shown -------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        self._sync()
        c, choice, scores, true = self.controls, self._choice, self._row(), self._truth()
        own, predicted = class_names(self.test_tasks, choice.test), self.predicted()
        order = scores.argsort(stable=True).tolist()
        c.example.value = self._test_pages.whole(choice.test)
        for side, shown, chosen in (("helpful", c.helpful, order), ("harmful", c.harmful, order[::-1])):
            shown.value = ranked_list(side, chosen[:LISTED], scores, self._pages, self._scripts_of, own)
        c.ranks.value = rank_plot(self._tracked(order), list(self.keeps), choice.keep, len(self.tasks))
        known = [origin is not None for origin in self._origins]
        points, here = (None, None) if true is None else (true.tolist(), float(true[choice.test]))
        c.scatter.value = truth_plot(predicted.tolist(), points, known, choice.test, self._verdict())
        everyone = None if true is None else float(true.mean())
        rows = [
            ("this test task", float(self._losses[choice.test]), float(predicted[choice.test]), here),
            (f"mean of {len(predicted)}", float(self._losses.mean()), float(predicted.mean()), everyone),
        ]
        c.prediction.value = change_table(rows)
        c.truth.value = message("" if true is None else f"retrained. {self._verdict()}.")
        group = self.group()
        more = f" and {len(group) - NAMED} more" if len(group) > NAMED else ""
        c.leaving.value = message(f"leaving: {' '.join(f'#{i}' for i in group[:NAMED])}{more}")

    def _tracked(self, order: Sequence[int]) -> dict[str, list[int | float]]:
        """Return the ranks to plot: the test's own training task, if there is one, then the most helpful now."""
        own = self._origins[self._choice.test]
        named = {} if own is None else {f"#{own} (its own)": own}
        for i in order:
            if len(named) < LISTED and i != own:
                named[f"#{i}"] = i
        return {name: self._ranks(i) for name, i in named.items()}

    # Widgets: they only forward ------------------------------------------------------------------------------------

    def _connect(self) -> None:
        c = self.controls
        c.test.observe(self._forward(lambda: self.set(test=c.test.value)), "value")
        c.keep.observe(self._forward(lambda: self.set(keep=c.keep.value)), "value")
        c.how.observe(self._forward(self._set_how), "value")
        c.class_name.observe(self._forward(lambda: self.set(remove=c.class_name.value)), "value")
        c.hand.observe(self._forward(lambda: self.set(remove=positions_in(c.hand.value))), "value")
        c.slider.observe(self._forward(lambda: self.set(k=c.slider.value)), "value")
        c.retrain.on_click(self._forward(self.verify))
        c.reset.on_click(self._forward(self.reset))

    def _set_how(self) -> str:
        how = self.controls.how.value
        if how == "hand":  # what leaves now is where picking begins
            return self.set(remove=self._choice.picked or self.group())
        return self.set(remove=self.controls.class_name.value if how == "script" else how)

    def _set_widgets(self) -> None:
        c, choice = self.controls, self._choice
        by_hand, of_script = choice.remove == "hand", choice.remove not in (*SIDES, "hand")
        c.test.value, c.keep.value = choice.test, choice.keep
        c.how.value = "script" if of_script else choice.remove
        if of_script:
            c.class_name.value = choice.remove
        c.hand.value = ", ".join(map(str, choice.picked)) if by_hand else ""
        c.class_name.layout.display = None if of_script else "none"
        c.hand.layout.display = None if by_hand else "none"
        c.slider.max = self._most(choice)
        c.slider.value = choice.k


def _checked(influence: TaskInfluence, tasks: Tasks) -> TaskInfluence:
    """Return the influence if these are its training tasks."""
    if not isinstance(influence, TaskInfluence):
        raise TypeError(f"influence is a {type(influence).__name__}; pass an xl.influence.TaskInfluence.")
    influence.learner.require_tasks(tasks)
    if len(tasks) != len(influence.meta):
        raise ValueError(
            f"tasks has {len(tasks)} tasks, the influence was made from {len(influence.meta)}; pass those."
        )
    return influence
