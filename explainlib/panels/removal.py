"""The first panel: choose a test example and what leaves the training set, see the prediction, ask for the truth."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from ipywidgets import Widget
from torch import Tensor

from explainlib.checks import require_count, require_indices
from explainlib.datasets import Examples
from explainlib.figures import alt_text, class_name, png
from explainlib.figures.html import example_html
from explainlib.figures.removals import removal_points
from explainlib.influence import loss_influence, removal_effect
from explainlib.losses import LossFunction
from explainlib.panels.controls import RemovalControls
from explainlib.panels.html import picture_html, prediction_table
from explainlib.panels.interactive import Action
from explainlib.panels.panel import Panel, quiet
from explainlib.risk import Risk

CANDIDATES = 10  # thumbnails to pick by hand, on either side


class Choice(NamedTuple):
    """Which test example, what leaves ("hand": the picked ones), and how many."""

    test: int
    remove: str
    k: int
    picked: list[int]


class Removal(Panel):
    """A what-if panel on one risk: remove training examples, compare prediction and retrained truth.

    Args:
        risk: a classifier at a minimum.
        test: the test examples to choose from.
        weighting: "plain" (the other weights stay) or "preserve", for predictions and truth alike.
        measure: of a test example, predicted and retrained: "loss"; "output", that of its label; "margin", the label's
            log-odds; or a callable (outputs, y) -> [t], as in ``loss_influence``. Harmful examples raise the loss, and
            lower any other measure.

    Raises:
        TypeError, ValueError: a risk that is not a classifier, test examples it cannot judge, or a measure that does
            not fit them.
    """

    def __init__(
        self, risk: Risk, test: Examples, *, weighting: str = "plain", measure: str | LossFunction = "loss"
    ) -> None:
        super().__init__(risk, test, weighting, measure)
        self.most = max(1, risk.n // 3)
        self._start = Choice(0, "harmful", min(10, self.most), [])
        self._choice = self._start
        self._history: dict[str, list[float]] = {"first order": [], "Newton step": []}
        self._truths: list[float] = []
        self._order_of: tuple[int, Tensor] | None = None
        self.controls = RemovalControls(
            tests=len(test), classes=self.classes, most=self.most, k=self._choice.k, candidates=2 * CANDIDATES
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
        old = self._choice
        index = old.test if test is None else self._checked_test(test)
        remove, picked = (old.remove, old.picked) if remove is None else self._checked_remove(remove)
        k = old.k if k is None else require_count("k", k)
        if k > self._most(remove):
            if remove in self.classes and k == old.k:
                k = self._most(remove)
            elif remove != "hand":
                raise ValueError(
                    f"k={k} is more than the {self._most(remove)} examples that may leave; pass a smaller k."
                )
        self._choice = Choice(index, remove, k, picked)
        return self.draw()

    def draw(self) -> str:
        """Predict what the chosen removal does, show it, and return the panel's text."""
        started = time.perf_counter()
        group, test = self.group(), self._choice.test
        with quiet():
            first = removal_effect(self.risk, [group], order=1, weighting=self.weighting)
            newton = removal_effect(self.risk, [group], order="newton", weighting=self.weighting)
        self._columns = [
            self._now(test),
            self._column("first order", first, test, linear=True),
            self._column("Newton step", newton, test),
        ]
        return self._report(f"{len(group)} of {self.risk.n} examples removed; predicted", started)

    def verify(self) -> str:
        """Retrain without the chosen examples, add the truth to table and plot, and return the panel's text."""
        started = time.perf_counter()
        truth = self._retrain(self.group())
        self._columns = [column for column in self._columns if column.name != "retrained"]
        self._columns.append(self._column("retrained", truth, self._choice.test))
        now = self._columns[0].value
        for column in self._columns[1:3]:
            self._history[column.name].append(column.value - now)
        self._truths.append(self._columns[-1].value - now)
        self._draw_plot()
        return self._report(f"retrained without {len(self.group())} of {self.risk.n} examples", started)

    @property
    def text(self) -> str:
        """The panel in words, with rounded numbers: the same facts as the table."""
        test = self._choice.test
        first = f"test {test} (a {class_name(self.test, test)}), removed: {self._description()}"
        return "\n".join([first, *self._value_lines()])

    def group(self) -> list[int]:
        """Return the training examples of the present choice."""
        _, remove, k, _ = self._choice
        if remove == "hand":
            return self._picked_or_first()
        order = self._order()
        if remove in ("harmful", "helpful"):
            return (order.flip(0) if remove == "helpful" else order)[:k].tolist()
        members = order.flip(0)[self.risk.train.y[order.flip(0)] == self.classes.index(remove)]
        return members[:k].tolist()

    # What is shown -------------------------------------------------------------------------------------------------

    def _order(self) -> Tensor:
        """Return the training examples from the most harmful to the most helpful for the present test example."""
        test = self._choice.test
        if self._order_of is None or self._order_of[0] != test:
            with quiet():
                influence = loss_influence(self.risk, self.test[[test]], measure=self.measure)[0]
            harm = influence * self.risk.weights_or_ones() * (1 if self.measure == "loss" else -1)
            self._order_of = (test, harm.argsort(descending=True, stable=True).cpu())
        return self._order_of[1]

    def _picked_or_first(self) -> list[int]:
        """Return the examples picked by hand, or the most harmful one where none is."""
        return self._choice.picked or [int(self._order()[0])]

    def _description(self) -> str:
        _, remove, k, _ = self._choice
        if remove == "hand":
            return f"{len(self.group())} picked by hand"
        if remove in ("harmful", "helpful"):
            return f"the {k} most {remove}{self._effect_on_measure(remove)}"
        return f"{k} of class {remove}"

    def _most(self, remove: str) -> int:
        if remove in self.classes:
            return min(int((self.risk.train.y == self.classes.index(remove)).sum()), self.risk.n - 1)
        return self.most

    def _forget(self) -> None:
        for series in (self._truths, *self._history.values()):
            series.clear()
        self._draw_plot()

    def _show(self) -> None:
        test = self._choice.test
        label = int(self.test.y[test])
        self.controls.prediction.value = prediction_table(self._columns, self.classes, label, unit=self._unit)
        self._show_examples(test, self.group())
        self._show_truth()

    def _draw_plot(self) -> None:
        picture = removal_points(self._history, self._truths, unit=f"change of {self._unit}")
        self.controls.plot.value = picture_html(png(picture, dpi=90), alt_text(picture), width=288)

    # Widgets: they only forward -------------------------------------------------------------------------------------

    def _actions(self) -> dict[Widget, Action]:
        c = self.controls
        return {
            c.test: "test",
            c.how: lambda: self.set(remove=c.chosen(self._picked_or_first())),
            c.class_name: "remove",
            c.slider: "k",
            **dict.fromkeys(c.picks, self._set_picks),
        }

    def _set_picks(self) -> str:
        shown = self._candidates()
        hidden = [i for i in self._choice.picked if i not in shown]
        chosen = [i for i, pick in zip(shown, self.controls.picks, strict=False) if pick.value]
        if not hidden + chosen:
            raise ValueError("nothing is picked; pick at least one example to remove.")
        return self.set(remove=hidden + chosen)

    def _candidates(self) -> list[int]:
        order = self._order().tolist()
        half = min(CANDIDATES, len(order) // 2)
        return order[:half] + order[::-1][:half]

    def _set_widgets(self) -> None:
        c, (test, remove, k, _) = self.controls, self._choice
        by_hand = remove == "hand"
        c.test.value = test
        c.show_removal(remove, named=remove in self.classes)
        c.slider.max = max(self._most(remove), 1)
        c.slider.value = len(self.group()) if by_hand else k
        c.slider.disabled = by_hand
        c.hand.layout.display = None if by_hand else "none"
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
            return remove, self._choice.picked
        picked = require_indices(remove, self.risk.n, name="remove").tolist()
        if len(picked) >= self.risk.n:
            raise ValueError(f"remove names all {self.risk.n} training examples; leave at least one.")
        return "hand", picked
