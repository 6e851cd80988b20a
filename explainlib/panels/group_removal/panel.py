"""The group panel: a group grows with the slider, and three predictions, a diagnosis and the truth go with it.

The paper's figure for one test example: predicted change of the loss against the size of the group that leaves.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from ipywidgets import Widget
from jaxtyping import Int
from torch import Tensor

from explainlib.checks import require_count
from explainlib.datasets import Examples
from explainlib.figures import class_name
from explainlib.influence import removal_effect, series_trust
from explainlib.influence.groups import Removal as Outcome
from explainlib.losses import LossFunction
from explainlib.panels.controls import GroupControls, positions_in
from explainlib.panels.group_removal.choice import KINDS, Choice, Family, describe, leaving_order, with_group
from explainlib.panels.group_removal.plots import group_curve
from explainlib.panels.html import message, outcome_table, trust_light
from explainlib.panels.interactive import Action
from explainlib.panels.panel import Panel, quiet
from explainlib.risk import Risk

ORDERS = {"first order": 1, "second order": 2, "Newton step": "newton"}
GRID = 8  # sizes on the curve
SHARE = 0.6  # of the training set that may leave


class GroupRemoval(Panel):
    """A what-if panel for groups: their predicted effect at any size, whether to trust it, and the retrained truth.

    Groups are nested: a larger one contains the smaller ones of the same kind and seed, except "relaxed", which is
    selected afresh at each size.

    Args:
        risk: a classifier at a minimum.
        test: the test examples to choose from.
        weighting: "preserve" (the mean over the rest) or "plain", for predictions and truth alike.
        measure: of a test example, predicted and retrained: "loss"; "output", that of its label; "margin", the label's
            log-odds; or a callable (outputs, y) -> [t], as in ``loss_influence``. "greedy" and "relaxed" choose by the
            loss whatever the measure.

    Raises:
        TypeError, ValueError: a risk that is not a classifier, test examples it cannot judge, or a measure that does
            not fit them.
    """

    def __init__(
        self, risk: Risk, test: Examples, *, weighting: str = "preserve", measure: str | LossFunction = "loss"
    ) -> None:
        super().__init__(risk, test, weighting, measure)
        self.most = min(max(1, int(SHARE * risk.n)), risk.n - 1)
        self._start = Choice(0, "random", min(max(1, round(risk.n / 20)), self.most))
        self._choice = self._start
        self._family = Family(self._choice.family)
        self._here: tuple[object, dict[str, Outcome], str] | None = None
        self._truths: dict[tuple, dict[int, float]] = {}
        self.controls = GroupControls(tests=len(test), classes=self.classes, most=self.most, k=self._choice.k)
        self._connect()
        self.draw()

    def set(
        self,
        *,
        test: int | None = None,
        group: str | Sequence[int] | Tensor | None = None,
        k: int | None = None,
        seed: int | None = None,
    ) -> str:
        """Change the choice, redraw, and return the panel's text.

        Args:
            test: which test example.
            group: "random"; a class name (then, once it is used up, the next classes); "greedy" (the first-order most
                influential for this test example); "relaxed" (selected together, by second order); or distinct
                training indices, of which the first k leave.
            k: how many, up to 60% of the training set; for indices, all of them unless given.
            seed: of the order of "random" and of a class, and of the starts of "relaxed".

        Raises:
            ValueError, TypeError: a test example, group, index or count that does not exist; nothing is changed then.
        """
        choice = self._choice
        if test is not None:
            choice = replace(choice, test=self._checked_test(test))
        if seed is not None:
            choice = replace(choice, seed=require_count("seed", seed, least=0))
        if group is not None:
            choice = with_group(choice, group, self.risk.n, self.classes)
        most = self._most(choice)
        if k is not None and require_count("k", k) > most:
            raise ValueError(f"k={k} is more than the {most} examples that may leave; pass a smaller k.")
        before = self._choice, self._family, self._here
        self._choice = replace(choice, k=min(choice.k if k is None else k, most))
        try:
            return self.draw()
        except Exception:
            self._choice, self._family, self._here = before
            raise

    def draw(self) -> str:
        """Predict what the chosen removal does, show it, and return the panel's text."""
        started = time.perf_counter()
        choice, group = self._choice, self._group_tensor()
        self._predict(choice, group)
        self._grow_curve(choice)
        columns = [self._column(name, outcome, choice.test) for name, outcome in self._here[1].items()]
        self._columns = [self._now(choice.test), *columns]
        return self._report(f"{len(group)} of {self.risk.n} examples removed; predicted", started)

    def verify(self) -> str:
        """Retrain without the chosen examples, add the truth to table and curve, and return the panel's text."""
        started = time.perf_counter()
        choice = self._choice
        truth = self._column("retrained", self._retrain(self._group_tensor()), choice.test)
        self._columns = [column for column in self._columns if column.name != "retrained"] + [truth]
        self._truths.setdefault((choice.test, choice.family), {})[choice.k] = truth.value - self._columns[0].value
        return self._report(f"retrained without {choice.k} of {self.risk.n} examples", started)

    @property
    def text(self) -> str:
        """The panel in words, with rounded numbers: the same facts as table and light."""
        test = self._choice.test
        share = f"{100 * self._choice.k / self.risk.n:.1f}% of {self.risk.n}"
        leaving = describe(self._choice, self.risk, self.classes, "" if self.measure == "loss" else " by the loss")
        first = f"test {test} (a {class_name(self.test, test)}), removed: {leaving}, {share}"
        return "\n".join([first, *self._value_lines(), f"the series is {self._here[2]}"])

    def group(self) -> list[int]:
        """Return the training examples of the present choice."""
        return self._group_tensor().tolist()

    # Groups --------------------------------------------------------------------------------------------------------

    def _group_tensor(self) -> Int[Tensor, " k"]:
        choice = self._choice
        if choice.family != self._family.key:
            self._family = Family(choice.family)
        orders, size = self._family.orders, choice.k if choice.group == "relaxed" else None
        if size not in orders:
            if size is not None:
                self.controls.message.value = message(f"selecting {size} examples together ...")
            with quiet():
                example = self.test[[choice.test]]
                orders[size] = leaving_order(choice, self.risk, example, self.classes, self.most).cpu()
        return orders[size][: choice.k]

    def _most(self, choice: Choice) -> int:
        return len(choice.picked) if choice.group == "hand" else self.most

    # Predictions ---------------------------------------------------------------------------------------------------

    def _effects(self, groups: Sequence[Int[Tensor, " _"]]) -> dict[str, Outcome]:
        with quiet():
            return {
                name: removal_effect(self.risk, groups, order=order, weighting=self.weighting)
                for name, order in ORDERS.items()
            }

    def _predict(self, choice: Choice, group: Int[Tensor, " k"]) -> None:
        """Predict without the present group, unless that was done last; another test example changes nothing here."""
        if self._here is None or self._here[0] != (choice.family, choice.k):
            effects = self._effects([group])
            with quiet():
                words = series_trust(effects["second order"]).words[0]
            self._here = ((choice.family, choice.k), effects, words)

    def _grow_curve(self, choice: Choice) -> None:
        """Evaluate the curve: at a grid of nested groups, or at the sizes that were selected so far."""
        if choice.group == "relaxed":
            effects, sizes = self._here[1], [choice.k]
        else:
            sizes, effects = self._sizes(choice), self._family.grid
            if not effects:
                effects.update(self._effects([self._family.orders[None][:size] for size in sizes]))
        example, now = self.test[[choice.test]], self._now(choice.test).value
        for name, effect in effects.items():
            changes = (self._values(effect.outputs(example)[:, 0], choice.test) - now).tolist()
            self._family.points.setdefault(name, {}).update(zip(sizes, changes, strict=True))

    def _sizes(self, choice: Choice) -> list[int]:
        """Return the sizes on the curve: closer together where groups are small, the largest at the end."""
        most = self._most(choice)
        return sorted({max(1, round(most * (i / GRID) ** 2)) for i in range(1, GRID + 1)})

    # What is shown -------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        choice, before = self._choice, self._columns[0].value
        label = int(self.test.y[choice.test])
        now = {column.name: column.value - before for column in self._columns if column.name in ORDERS}
        truths = self._truths.get((choice.test, choice.family), {})
        self.controls.prediction.value = outcome_table(
            self._columns, [*ORDERS, "retrained"], label, class_name(self.test, choice.test), unit=self.measured
        )
        self.controls.light.value = trust_light(self._here[2])
        ends = [*self._sizes(choice)[3::2], self._most(choice)]  # the picture widens in steps, so that small shows
        end = next(end for end in ends if end >= choice.k)
        self.controls.curve.value = group_curve(self._family.points, now, truths, choice.k, end, self._unit)
        self._show_examples(choice.test, self.group())
        self._show_truth()

    # Widgets: they only forward -------------------------------------------------------------------------------------

    def _actions(self) -> dict[Widget, Action]:
        c = self.controls
        return {
            c.test: "test",
            c.how: lambda: self.set(group=c.chosen(self._choice.picked or self.group()[:10])),
            c.class_name: "group",
            c.seed: "seed",
            c.hand: lambda: self.set(group=positions_in(c.hand.value)),
            c.slider: "k",
        }

    def _set_widgets(self) -> None:
        c, choice = self.controls, self._choice
        by_hand = choice.group == "hand"
        c.test.value, c.seed.value = choice.test, choice.seed
        c.show_removal(choice.group, named=choice.group in self.classes and choice.group not in KINDS)
        c.show_positions(choice.picked if by_hand else None)
        c.seed.layout.display = "none" if by_hand or choice.group == "greedy" else None
        c.slider.continuous_update = choice.group != "relaxed"  # selecting takes longer than a step of the mouse
        c.slider.max = self._most(choice)
        c.slider.value = choice.k
