"""What the panels on one classifier share: their checks, and the way they show examples and losses."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor

from explainlib.checks import require_choice, require_count
from explainlib.datasets import Examples
from explainlib.figures import class_name
from explainlib.figures.html import example_html
from explainlib.influence import SeriesWarning
from explainlib.influence.groups import WEIGHTINGS
from explainlib.influence.groups import Removal as Outcome
from explainlib.panels.html import PredictionColumn, message
from explainlib.panels.interactive import InteractivePanel
from explainlib.retraining import leave_out
from explainlib.risk import NotAtMinimumWarning, Risk, require_minimum

LEAVING = 12  # thumbnails of what leaves


class Panel(InteractivePanel):
    """A panel on one classifier: ``draw`` shows predictions, ``verify`` the retrained truth, ``reset`` starts again.

    Args:
        risk: a classifier at a minimum.
        test: the test examples to choose from.
        weighting: of predictions and truth alike.

    Raises:
        TypeError, ValueError: a risk that is not a classifier, or test examples it cannot judge.
    """

    def __init__(self, risk: Risk, test: Examples, weighting: str) -> None:
        if not isinstance(risk, Risk):
            raise TypeError(f"risk is a {type(risk).__name__}; pass an xl.Risk, first brought to a minimum.")
        if risk.loss.name != "cross_entropy":
            raise ValueError(
                f"this panel shows class probabilities, but the loss is {risk.loss.name!r}; use cross_entropy."
            )
        self.risk, self.test = risk, risk.require_examples(test, "test")
        self.weighting = require_choice("weighting", weighting, WEIGHTINGS)
        require_minimum(risk, user="the prediction")
        self.classes = risk.train.classes or tuple(str(c) for c in range(risk.n_outputs))
        self._columns: list[PredictionColumn] = []

    def _now(self, test: int) -> PredictionColumn:
        example = self.test[[test]]
        return PredictionColumn(
            "now", float(self.risk.losses(example)), self.risk.outputs(example).softmax(-1)[0].tolist()
        )

    def _column(self, name: str, outcome: Outcome, test: int, *, linear: bool = False) -> PredictionColumn:
        example = self.test[[test]]
        tangent = float(outcome.loss_change(example, evaluate=False)) if linear else None
        return PredictionColumn(
            name, float(outcome.losses(example)), outcome.outputs(example)[0].softmax(-1)[0].tolist(), tangent
        )

    def _retrain(self, group: Sequence[int] | Tensor) -> Outcome:
        """Return the truth; the button waits meanwhile."""
        self.controls.retrain.disabled = True
        self.controls.message.value = message("retraining ...")
        try:
            with quiet():
                return leave_out(self.risk, [group], weighting=self.weighting)
        finally:
            self.controls.retrain.disabled = False

    def _loss_lines(self) -> list[str]:
        now = self._columns[0]
        lines = [f"loss now {now.loss:.3f}"]
        for column in self._columns[1:]:
            word = "retrained" if column.name == "retrained" else f"{column.name} predicts"
            lines.append(f"{word} {column.loss:.3f} ({column.loss - now.loss:+.3f})")
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
        said = f"retrained: the loss of this test example changes by {last.loss - self._columns[0].loss:+.3f}."
        self.controls.truth.value = message(said if last.name == "retrained" else "")

    def _checked_test(self, test: int) -> int:
        require_count("test", test, least=0)
        if test >= len(self.test):
            raise ValueError(f"test={test} is outside the {len(self.test)} test examples (0 to {len(self.test) - 1}).")
        return test


@contextmanager
def quiet() -> Iterator[None]:
    """Return a context without the warnings that a panel shows in its own way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotAtMinimumWarning)  # said once, when the panel was made
        warnings.simplefilter("ignore", SeriesWarning)  # said beside the predictions
        yield


def elapsed(started: float) -> str:
    """Return the seconds since ``time.perf_counter()`` was ``started``."""
    return f"{time.perf_counter() - started:.2f} s"
