"""The first panel: choose a test example and what leaves the training set, see the prediction, ask for the truth."""

from __future__ import annotations

import time
from collections.abc import Sequence

from torch import Tensor

from explainlib.checks import require_count, require_indices
from explainlib.datasets import Examples
from explainlib.figures import alt_text, class_name, png
from explainlib.figures.html import example_html
from explainlib.figures.removals import removal_points
from explainlib.influence import loss_influence, removal_effect
from explainlib.panels.controls import RemovalControls
from explainlib.panels.html import message, picture_html, prediction_table
from explainlib.panels.panel import Panel, elapsed, quiet
from explainlib.risk import Risk

CANDIDATES = 10  # thumbnails to pick by hand, on either side


class Removal(Panel):
    """A what-if panel on one risk: remove training examples, compare prediction and retrained truth.

    ``set``, ``draw`` and ``verify`` do everything; the widgets only forward to them, so a notebook cell or a test can
    drive the panel. Each returns the panel's text.

    Args:
        risk: a classifier at a minimum.
        test: the test examples to choose from.
        weighting: "plain" (the other weights stay) or "preserve", for predictions and truth alike.

    Raises:
        TypeError, ValueError: a risk that is not a classifier, or test examples it cannot judge.
    """

    def __init__(self, risk: Risk, test: Examples, *, weighting: str = "plain") -> None:
        super().__init__(risk, test, weighting)
        self.most = max(1, risk.n // 3)
        self._start = (0, "harmful", min(10, self.most))
        self._index, self._remove, self._k = self._start
        self._picked: list[int] = []
        self._history: dict[str, list[float]] = {"first order": [], "Newton step": []}
        self._truths: list[float] = []
        self._order_of: tuple[int, Tensor] | None = None
        self.controls = RemovalControls(
            tests=len(test), classes=self.classes, most=self.most, k=self._k, candidates=2 * CANDIDATES
        )
        self._connect()
        self._draw_plot()
        self.draw()

    def set(
        self, *, test: int | None = None, remove: str | Sequence[int] | Tensor | None = None, k: int | None = None
    ) -> str:
        """Change the choice, redraw, and return the panel's text.

        Args:
            test: which test example.
            remove: "harmful" or "helpful" (the k most, for this test example), a class name (its k most helpful
                examples), or distinct training indices.
            k: how many; ignored for indices.

        Raises:
            ValueError, TypeError: a test example, class, index or count that does not exist; nothing is changed then.
        """
        index = self._index if test is None else self._checked_test(test)
        remove, picked = (self._remove, self._picked) if remove is None else self._checked_remove(remove)
        k = self._k if k is None else require_count("k", k)
        if k > self._most(remove):
            if remove in self.classes and k == self._k:
                k = self._most(remove)
            elif remove != "hand":
                raise ValueError(
                    f"k={k} is more than the {self._most(remove)} examples that may leave; pass a smaller k."
                )
        self._index, self._remove, self._picked, self._k = index, remove, picked, k
        return self.draw()

    def draw(self) -> str:
        """Predict what the chosen removal does, show it, and return the panel's text."""
        started = time.perf_counter()
        group = self.group()
        with quiet():
            first = removal_effect(self.risk, [group], order=1, weighting=self.weighting)
            newton = removal_effect(self.risk, [group], order="newton", weighting=self.weighting)
        self._columns = [
            self._now(self._index),
            self._column("first order", first, self._index, linear=True),
            self._column("Newton step", newton, self._index),
        ]
        self._show(f"{len(group)} of {self.risk.n} examples removed; predicted in {elapsed(started)}.")
        return self.text

    def verify(self) -> str:
        """Retrain without the chosen examples, add the truth to table and plot, and return the panel's text."""
        started = time.perf_counter()
        truth = self._retrain(self.group())
        self._columns = [column for column in self._columns if column.name != "retrained"]
        self._columns.append(self._column("retrained", truth, self._index))
        now = self._columns[0].loss
        for column in self._columns[1:3]:
            self._history[column.name].append(column.loss - now)
        self._truths.append(self._columns[-1].loss - now)
        self._draw_plot()
        self._show(f"retrained without {len(self.group())} of {self.risk.n} examples in {elapsed(started)}.")
        return self.text

    def reset(self) -> str:
        """Go back to the first choice, forget the retrained points, and return the panel's text."""
        self._index, self._remove, self._k = self._start
        self._picked = []
        self._truths.clear()
        for series in self._history.values():
            series.clear()
        self._draw_plot()
        return self.draw()

    @property
    def text(self) -> str:
        """The panel in words, with rounded numbers: the same facts as the table."""
        first = f"test {self._index} (a {class_name(self.test, self._index)}), removed: {self._what()}"
        return "\n".join([first, *self._loss_lines()])

    def group(self) -> list[int]:
        """Return the training examples of the present choice."""
        if self._remove == "hand":
            return self._picked or [int(self._order()[0])]
        order = self._order()
        if self._remove in ("harmful", "helpful"):
            return (order.flip(0) if self._remove == "helpful" else order)[: self._k].tolist()
        members = order.flip(0)[self.risk.train.y[order.flip(0)] == self.classes.index(self._remove)]
        return members[: self._k].tolist()

    # What is shown -------------------------------------------------------------------------------------------------

    def _order(self) -> Tensor:
        """Return the training examples from the most harmful to the most helpful for the present test example."""
        if self._order_of is None or self._order_of[0] != self._index:
            with quiet():
                influence = loss_influence(self.risk, self.test[[self._index]])[0] * self.risk.weights_or_ones()
            self._order_of = (self._index, influence.argsort(descending=True, stable=True).cpu())
        return self._order_of[1]

    def _what(self) -> str:
        if self._remove == "hand":
            return f"{len(self.group())} picked by hand"
        if self._remove in ("harmful", "helpful"):
            return f"the {self._k} most {self._remove}"
        return f"{self._k} of class {self._remove}"

    def _most(self, remove: str) -> int:
        if remove in self.classes:
            return min(int((self.risk.train.y == self.classes.index(remove)).sum()), self.risk.n - 1)
        return self.most

    def _show(self, said: str) -> None:
        self._sync()
        label = int(self.test.y[self._index])
        self.controls.prediction.value = prediction_table(self._columns, self.classes, label)
        self._show_examples(self._index, self.group())
        self._show_truth()
        self.controls.message.value = message(said)

    def _draw_plot(self) -> None:
        picture = removal_points(self._history, self._truths)
        self.controls.plot.value = picture_html(png(picture, dpi=90), alt_text(picture), width=320)

    # Widgets: they only forward -------------------------------------------------------------------------------------

    def _connect(self) -> None:
        c = self.controls
        c.test.observe(self._forward(lambda: self.set(test=c.test.value)), "value")
        c.how.observe(self._forward(self._set_how), "value")
        c.class_name.observe(self._forward(lambda: self.set(remove=c.class_name.value)), "value")
        c.slider.observe(self._forward(lambda: self.set(k=c.slider.value)), "value")
        c.retrain.on_click(self._forward(self.verify))
        c.reset.on_click(self._forward(self.reset))
        for pick in c.picks:
            pick.observe(self._forward(self._set_picks), "value")

    def _set_how(self) -> str:
        how = self.controls.how.value
        if how == "hand":
            return self.set(remove=self._picked or [int(self._order()[0])])
        return self.set(remove=self.controls.class_name.value if how == "class" else how)

    def _set_picks(self) -> str:
        shown = self._candidates()
        hidden = [i for i in self._picked if i not in shown]
        chosen = [i for i, pick in zip(shown, self.controls.picks, strict=False) if pick.value]
        if not hidden + chosen:
            raise ValueError("nothing is picked; pick at least one example to remove.")
        return self.set(remove=hidden + chosen)

    def _candidates(self) -> list[int]:
        order = self._order().tolist()
        half = min(CANDIDATES, len(order) // 2)
        return order[:half] + order[::-1][:half]

    def _set_widgets(self) -> None:
        self.controls.test.value = self._index
        by_class, by_hand = self._remove in self.classes, self._remove == "hand"
        self.controls.how.value = "class" if by_class else self._remove
        self.controls.class_name.layout.display = None if by_class else "none"
        if by_class:
            self.controls.class_name.value = self._remove
        self.controls.slider.max = max(self._most(self._remove), 1)
        self.controls.slider.value = len(self.group()) if by_hand else self._k
        self.controls.slider.disabled = by_hand
        self.controls.hand.layout.display = None if by_hand else "none"
        if by_hand:
            self._sync_picks()

    def _sync_picks(self) -> None:
        for position, index in enumerate(self._candidates()):
            side = "harmful" if position < len(self._candidates()) // 2 else "helpful"
            self.controls.pick_images[position].value = example_html(self.risk.train, index, captions=(side,), size=44)
            self.controls.picks[position].description = f"#{index}"
            self.controls.picks[position].value = index in self.group()

    def _checked_remove(self, remove: str | Sequence[int] | Tensor) -> tuple[str, list[int]]:
        if isinstance(remove, str):
            if remove not in ("harmful", "helpful", *self.classes):
                raise ValueError(
                    f"remove={remove!r} is neither 'harmful', 'helpful', a list of indices, nor one of the classes "
                    f"{', '.join(map(repr, self.classes))}."
                )
            return remove, self._picked
        picked = require_indices(remove, self.risk.n, name="remove").tolist()
        if len(picked) >= self.risk.n:
            raise ValueError(f"remove names all {self.risk.n} training examples; leave at least one.")
        return "hand", picked
