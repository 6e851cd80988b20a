"""What the panels on one classifier share: their checks, and the way they show examples and losses."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_choice
from explainlib.datasets import Examples
from explainlib.figures import class_name
from explainlib.figures.html import example_html
from explainlib.influence import SeriesWarning
from explainlib.influence.groups import WEIGHTINGS
from explainlib.influence.groups import Removal as Outcome
from explainlib.influence.measures import require_measure
from explainlib.losses import LossFunction
from explainlib.panels.html import PredictionColumn, message
from explainlib.panels.interactive import InteractivePanel, require_position
from explainlib.retraining import leave_out
from explainlib.risk import NotAtMinimumWarning, Risk, require_minimum

LEAVING = 12  # thumbnails of what leaves
MEASURED = {"loss": "loss", "output": "output of the label", "margin": "margin"}


class Panel(InteractivePanel):
    """A panel on one classifier: ``draw`` shows predictions, ``verify`` the retrained truth, ``reset`` starts again.

    Args:
        risk: a classifier at a minimum.
        test: the test examples to choose from.
        weighting: of predictions and truth alike.
        measure: of a test example, predicted and retrained: "loss", "output", "margin" or a callable, as in
            ``loss_influence``.

    Raises:
        TypeError, ValueError: a risk that is not a classifier, test examples it cannot judge, or a measure that does
            not fit them.
    """

    def __init__(self, risk: Risk, test: Examples, weighting: str, measure: str | LossFunction = "loss") -> None:
        if not isinstance(risk, Risk):
            raise TypeError(f"risk is a {type(risk).__name__}; pass an xl.Risk, first brought to a minimum.")
        if risk.loss.name != "cross_entropy":
            raise ValueError(
                f"this panel shows class probabilities, but the loss is {risk.loss.name!r}; use cross_entropy."
            )
        self.risk, self.test = risk, risk.require_examples(test, "test")
        self.weighting, self.measure = require_choice("weighting", weighting, WEIGHTINGS), measure
        how = {"loss": risk.loss, "parameters": risk.parameters, "theta": risk.theta, "test": self.test}
        self._measured = require_measure(measure, None, **how)
        self.measured = MEASURED[measure] if isinstance(measure, str) else _name(measure)
        require_minimum(risk, user="the prediction")
        self.classes = risk.train.classes or tuple(str(c) for c in range(risk.n_outputs))
        self._columns: list[PredictionColumn] = []

    @property
    def _unit(self) -> str:
        """What is predicted, on the axes."""
        return "test loss" if self.measure == "loss" else self.measured

    def _now(self, test: int) -> PredictionColumn:
        outputs = self.risk.outputs(self.test[[test]])
        return PredictionColumn("now", float(self._values(outputs, test)), outputs.softmax(-1)[0].tolist())

    def _column(self, name: str, outcome: Outcome, test: int, *, linear: bool = False) -> PredictionColumn:
        example = self.test[[test]]
        tangent = None
        if linear:
            tangent = float(outcome.measure_change(example, measure=self.measure, evaluate=False))
        outputs = outcome.outputs(example)[0]
        return PredictionColumn(name, float(self._values(outputs, test)), outputs.softmax(-1)[0].tolist(), tangent)

    def _values(self, outputs: Float[Tensor, "g C"], test: int) -> Float[Tensor, " g"]:
        """Return the measure of one test example under each of its outputs."""
        y = self.test.y[[test]]
        return self._measured.value(outputs, y.expand(len(outputs), *y.shape[1:]))

    def _retrain(self, group: Sequence[int] | Tensor) -> Outcome:
        """Return the truth; the button waits meanwhile."""
        with self._busy("retraining ..."), quiet():
            return leave_out(self.risk, [group], weighting=self.weighting)

    def _value_lines(self) -> list[str]:
        now = self._columns[0]
        lines = [f"{self.measured} now {now.value:.3f}"]
        for column in self._columns[1:]:
            word = "retrained" if column.name == "retrained" else f"{column.name} predicts"
            lines.append(f"{word} {column.value:.3f} ({column.value - now.value:+.3f})")
        return lines

    def _show_examples(self, test: int, group: Sequence[int]) -> None:
        self.controls.example.value = example_html(
            self.test, test, captions=(f"test {test}", f"a {class_name(self.test, test)}"), size=84
        )
        shown = "".join(example_html(self.risk.train, i, captions=(f"#{i}",), size=34) for i in group[:LEAVING])
        more = f"and {len(group) - LEAVING} more" if len(group) > LEAVING else ""
        self.controls.leaving.value = f"<div style='height:124px;overflow:hidden'>leaving: {shown} {more}</div>"

    def _show_truth(self) -> None:
        """Say the retrained change, or nothing where the present choice was not retrained."""
        last = self._columns[-1]
        change = last.value - self._columns[0].value
        said = f"retrained: the {self.measured} of this test example changes by {change:+.3f}."
        self.controls.truth.value = message(said if last.name == "retrained" else "")

    def _effect_on_measure(self, side: str) -> str:
        """Return what "harmful" or "helpful" examples do to a measure that is not the loss, in brackets."""
        if self.measure == "loss":
            return ""
        return f" (they {'raise' if side == 'helpful' else 'lower'} the {self.measured})"

    def _checked_test(self, test: int) -> int:
        return require_position("test", test, len(self.test), "test examples")


def _name(measure: LossFunction) -> str:
    name = getattr(measure, "__name__", "measure")
    return "measure" if name == "<lambda>" else name


@contextmanager
def quiet() -> Iterator[None]:
    """Return a context without the warnings that a panel shows in its own way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotAtMinimumWarning)  # said once, when the panel was made
        warnings.simplefilter("ignore", SeriesWarning)  # said beside the predictions
        yield
