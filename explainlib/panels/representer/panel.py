"""The representer panel: whose training raised this output, by global times local importance, and is it so?

Pick a test example, a kernel and an importance; drag how many examples go and read off the predicted deletion curve.
Retrain trains again without them, from the same start, and sets crosses beside it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from html import escape

from jaxtyping import Float
from torch import Tensor

from explainlib.checks import require_choice, require_count
from explainlib.datasets import Examples
from explainlib.datasets.sources.text import NAMES, redact_text
from explainlib.figures import class_name
from explainlib.figures.html import example_html
from explainlib.losses import Loss, LossFunction
from explainlib.panels.html import message
from explainlib.panels.interactive import InteractivePanel
from explainlib.panels.panel import elapsed
from explainlib.panels.representer.controls import RepresenterControls
from explainlib.panels.representer.html import Product, axiom_lights, product_table, state
from explainlib.panels.representer.plots import deletion_plot
from explainlib.panels.representer.scores import (
    IMPORTANCES,
    KERNELS,
    SIGNS,
    RepresenterChoice,
    Representers,
    in_output_units,
    prediction,
)
from explainlib.training import Trajectory

LISTED = 5  # training examples on either side
POINTS = 4  # retrainings a click, evenly spaced up to the chosen number


class Representer(InteractivePanel):
    """A panel on one training run: representer scores of a test example, the axioms they break, and the truth.

    ``set``, ``draw``, ``verify`` and ``reset`` do everything; the widgets only forward to them, so a notebook cell or
    a test can drive the panel. Each returns the panel's text. The explained output is that of the test's label.
    Everything is worked out when first asked for, and kept.

    Args:
        trajectory: from ``training.fit(..., optimizer="sgd", record=True, checkpoints=3)``.
        train: the n examples it was trained on, at most 2,000.
        test: the t examples to choose from.
        loss: that of the training.
        weight_decay: that of the training.
        seed: that of the training.
        damping: added to the Gauss-Newton matrix of the influence kernel.
        surrogate_l2: ridge of the surrogate's regression, on the outputs by squared error.
        redact: mask texts but for their function words; None does so for the toxicity data.

    Raises:
        TypeError, ValueError: a trajectory without what its fit can record, other examples, or a ridge that is not
            above 0.
    """

    def __init__(
        self,
        trajectory: Trajectory,
        train: Examples,
        test: Examples,
        *,
        loss: str | LossFunction | Loss = "cross_entropy",
        weight_decay: float | int = 0.0,
        seed: int = 0,
        damping: float | int = 1e-2,
        surrogate_l2: float | int = 1e-3,
        redact: bool | None = None,
    ) -> None:
        given = {"loss": loss, "weight_decay": weight_decay, "seed": seed}
        self.known = Representers(trajectory, train, test, **given, damping=damping, surrogate_l2=surrogate_l2)
        hide = train.classes == NAMES["toxicity"] if redact is None else redact
        self.shown_train, self.shown_test = (_with_masked_texts(part) if hide else part for part in (train, test))
        self.most = max(1, len(train) // 4)
        first = RepresenterChoice(0, "ntk_final", "tracking", "negative", max(1, len(train) // 10))
        self._choice = self._start = replace(first, delete=min(first.delete, self.most))
        self._truths: dict[frozenset[int], Float[Tensor, "t C"]] = {}
        self.controls = RepresenterControls(
            tests=len(test),
            kernels={words: name for name, words in KERNELS.items()},
            importances={words: name for name, words in IMPORTANCES.items()},
            signs={f"{words} scores first": name for name, words in SIGNS.items()},
            most=self.most,
            k=self._choice.delete,
        )
        self._connect()
        self.draw()

    def set(
        self,
        *,
        test: int | None = None,
        kernel: str | None = None,
        importance: str | None = None,
        delete: int | None = None,
        sign: str | None = None,
    ) -> str:
        """Change the choice, redraw, and return the panel's text.

        Args:
            test: which test example.
            kernel: "last_layer", "ntk_init", "ntk_middle", "ntk_final" or "influence".
            importance: "tracking", "target" or "surrogate".
            delete: how many training examples go, at most a quarter of them.
            sign: "negative" (the lowest scores go first) or "positive" (the highest).

        Raises:
            ValueError, TypeError: a test, method or number that does not exist, or a kernel that the network does not
                have; nothing is changed then.
        """
        old = self._choice
        chosen = RepresenterChoice(
            old.test if test is None else require_count("test", test, least=0),
            old.kernel if kernel is None else require_choice("kernel", kernel, tuple(KERNELS)),
            old.importance if importance is None else require_choice("importance", importance, tuple(IMPORTANCES)),
            old.sign if sign is None else require_choice("sign", sign, tuple(SIGNS)),
            old.delete if delete is None else require_count("delete", delete),
        )
        tests = len(self.known.test)
        if chosen.test >= tests:
            raise ValueError(f"test={test} is outside the {tests} test examples (0 to {tests - 1}).")
        if chosen.delete > self.most:
            raise ValueError(f"delete={delete} is more than the {self.most} examples that may go; pass fewer.")
        self.known.axioms(chosen.kernel, chosen.importance, self._output(chosen))  # whatever fails, fails before
        self._choice = chosen
        return self.draw()

    def draw(self) -> str:
        """Show the scores and what they predict, and return the panel's text."""
        started = time.perf_counter()
        self._show()
        n = len(self.known.train)
        self.controls.message.value = message(f"{self._choice.delete} of {n} deleted; predicted in {elapsed(started)}.")
        return self.text

    def verify(self) -> str:
        """Train again without the chosen examples, and some of them; show the truth and return the panel's text.

        Raises:
            ValueError: training again on everything does not give the trajectory's model.
        """
        started, c = time.perf_counter(), self.controls
        sizes = sorted({max(1, round(self._choice.delete * i / POINTS)) for i in range(1, POINTS + 1)})
        c.retrain.disabled = True
        c.progress.value, c.progress.max, c.progress.layout.visibility = 0, len(sizes) + 1, "visible"
        try:
            c.message.value = message("training again on everything, to see that nothing else changes ...")
            self.known.require_repeatable()
            for done, size in enumerate(sizes, 1):
                c.progress.value = done
                c.message.value = message(f"training again without {size} examples ({done} of {len(sizes)}) ...")
                group = frozenset(self._order()[:size])
                if group not in self._truths:
                    self._truths[group] = self.known.retrained(sorted(group))
        finally:
            c.retrain.disabled, c.progress.layout.visibility = False, "hidden"
        self._show()
        c.message.value = message(f"retrained without up to {sizes[-1]} examples in {elapsed(started)}.")
        return self.text

    def reset(self) -> str:
        """Go back to the first choice, forget the truths, and return the panel's text."""
        self._choice = self._start
        self._truths.clear()
        return self.draw()

    @property
    def text(self) -> str:
        """The panel in words, with rounded numbers: the same facts as tables and plot."""
        choice, test, c = self._choice, self._choice.test, self._output(self._choice)
        total, output = float(self._row().sum()), float(self.known.outputs()[test, c])
        lines = [
            f"test {test} ({self._description()}), its output {output:+.2f}, before training "
            f"{float(self.known.outputs_before()[test, c]):+.2f}",
            f"{IMPORTANCES[choice.importance]} x {KERNELS[choice.kernel]}: the scores add up to {total:+.3g}",
            f"deleted: the {choice.delete} {SIGNS[choice.sign]} scores; {self._message()}",
        ]
        true = self._truth(choice.delete)
        if true is not None:
            lines.append(f"retrained change {true:+.3f}{self._comparison(true)}")
        return "\n".join([*lines, self._describe_axioms()])

    def deleted(self) -> list[int]:
        """Return the training examples of the present choice, in the order in which they go."""
        return self._order()[: self._choice.delete]

    def predicted(self) -> float:
        """Return the predicted change of the explained output: minus the sum of the deleted scores."""
        return float(self._curve()[self._choice.delete])

    # What is known -------------------------------------------------------------------------------------------------

    def _output(self, choice: RepresenterChoice) -> int:
        y = self.known.test.y
        return 0 if y.is_floating_point() else int(y[choice.test])

    def _method(self) -> tuple[str, str, int]:
        return self._choice.kernel, self._choice.importance, self._output(self._choice)

    def _row(self) -> Float[Tensor, " n"]:
        return self.known.scores(*self._method())[0][self._choice.test]

    def _order(self) -> list[int]:
        return prediction(self._row(), self._choice, len(self.known.train))[1]

    def _curve(self) -> Float[Tensor, " m"]:
        return prediction(self._row(), self._choice, len(self.known.train))[0][: self.most + 1]

    def _truth(self, size: int) -> float | None:
        return self._known_truths().get(size)

    def _known_truths(self) -> dict[int, float]:
        """Return the retrained change of the explained output, by number deleted in the present order."""
        order, test, c = self._order(), self._choice.test, self._output(self._choice)
        now = float(self.known.outputs()[test, c])
        groups = {size: frozenset(order[:size]) for size in {len(group) for group in self._truths}}
        found = {size: group for size, group in groups.items() if group in self._truths}
        return {size: float(self._truths[group][test, c]) - now for size, group in sorted(found.items())}

    def _message(self) -> str:
        unit = "" if self._in_output_units() else " in the scores' own unit"
        return f"predicted change {self.predicted():+.3g}{unit}"

    def _in_output_units(self) -> bool:
        return in_output_units(self._choice.kernel, self._choice.importance, self.known.outputs().shape[1])

    def _comparison(self, true: float) -> str:
        if not self._in_output_units() or not self.predicted():
            return ""
        return f", {true / self.predicted():.2g} times the predicted one"

    def _describe_axioms(self) -> str:
        rows = self.known.axioms(*self._method())[["axiom", "violation"]].itertuples(index=False)
        said = [f"{axiom} ({v:.2g})" for axiom, v in rows if state(float(v)) != "holds"]
        return f"axioms not kept: {', '.join(said) or 'none'}"

    def _description(self) -> str:
        return class_name(self.known.test, self._choice.test)

    # What is shown -------------------------------------------------------------------------------------------------

    def _show(self) -> None:
        self._sync()
        c, choice, test, output = self.controls, self._choice, self._choice.test, self._output(self._choice)
        captions = (f"test {test}: {self._description()}", f"output {float(self.known.outputs()[test, output]):+.2f}")
        c.example.value = example_html(self.shown_test, test, captions=captions, size=96)
        half = min(LISTED, len(self.known.train) // 2)
        order = self._row().argsort(descending=True, stable=True).tolist()
        rows = [self._product(i) for i in order[:half] + order[-half:]]
        c.bars.value = product_table(rows, self.shown_train, half)
        truths = {size: value for size, value in self._known_truths().items() if size <= self.most}
        own = not self._in_output_units()
        c.curve.value = deletion_plot(
            self._curve().tolist(), truths, choice.delete, sign=SIGNS[choice.sign], own_unit=own
        )
        c.lights.value = axiom_lights(self.known.axioms(*self._method()))
        true = truths.get(choice.delete)
        c.prediction.value = _as_list(self.text.splitlines()[:3])
        said = "" if true is None else f"retrained change of the output {true:+.3f}{self._comparison(true)}."
        c.truth.value = message(said)

    def _product(self, i: int) -> Product:
        kernel, importance, output = self._method()
        alpha = self.known.importance(importance, kernel, output)[i, output]
        near = self.known.kernel(kernel, output)[0][self._choice.test, i]
        return Product(i, float(alpha), float(near), float(self._row()[i]))

    # Widgets: they only forward ------------------------------------------------------------------------------------

    def _connect(self) -> None:
        c = self.controls
        c.test.observe(self._forward(lambda: self.set(test=c.test.value)), "value")
        c.kernel.observe(self._forward(lambda: self.set(kernel=c.kernel.value)), "value")
        c.importance.observe(self._forward(lambda: self.set(importance=c.importance.value)), "value")
        c.how.observe(self._forward(lambda: self.set(sign=c.how.value)), "value")
        c.slider.observe(self._forward(lambda: self.set(delete=c.slider.value)), "value")
        c.retrain.on_click(self._forward(self.verify))
        c.reset.on_click(self._forward(self.reset))

    def _set_widgets(self) -> None:
        c, choice = self.controls, self._choice
        c.test.value, c.kernel.value, c.importance.value = choice.test, choice.kernel, choice.importance
        c.how.value, c.slider.value = choice.sign, choice.delete


def _as_list(lines: list[str]) -> str:
    """Return the lines as a list."""
    body = "".join(f"<div>{escape(line)}</div>" for line in lines)
    return f"<div style='font-size:13px;line-height:1.5'>{body}</div>"


def _with_masked_texts(examples: Examples) -> Examples:
    """Return the examples with texts that may be shown; their tokens are the same."""
    return (
        examples if examples.raw is None else replace(examples, raw=tuple(redact_text(said) for said in examples.raw))
    )
