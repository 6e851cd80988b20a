"""Measures: the number of a test example whose derivative influence explains, a function m(f, y) of outputs and target.

loss      l(f, y), the loss of the risk               positive influence: more of j raises the loss, it is harmful
output    f_c, one output                             positive: more of j raises that output
margin    f_y - log sum_{c != y} exp f_c              positive: more of j raises the label's log-odds, it is helpful

The margin is the logarithm of p/(1 - p), p the probability of the label. For one output under the logistic loss it is f
for label 1 and -f for label 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from explainlib.checks import is_integer, require_choice, require_labels
from explainlib.datasets import Examples
from explainlib.gate import GRADIENT, admit, require_loss_derivatives
from explainlib.gate.entry import few_examples
from explainlib.layerwise import GradientSource, gradients
from explainlib.losses import Loss, LossFunction
from explainlib.params import Parameters

MEASURES = ("loss", "output", "margin")


class OneOutput(Loss):
    """m = f_c, c the same for all examples."""


class LabelOutput(Loss):
    """m = f_y, the output of each example's own label."""


class Margin(Loss):
    """m = f_y - log sum_{c != y} exp f_c: its slope is 1 at y and minus the softmax of the others."""

    def gradient(self, outputs: Float[Tensor, "n C"], y: Tensor) -> Float[Tensor, "n C"]:
        """Return onehot(y) - softmax of the other outputs; of one output its sign, 2 y - 1."""
        if outputs.shape[1] == 1:
            return _signs(y, outputs)[:, None]
        own = _own(y, outputs)
        return own.to(outputs) - outputs.masked_fill(own, -torch.inf).softmax(1)


def _own(y: Tensor, outputs: Float[Tensor, "n C"]) -> Bool[Tensor, "n C"]:
    return torch.nn.functional.one_hot(y, outputs.shape[1]).bool()


def _signs(y: Tensor, outputs: Tensor) -> Float[Tensor, " n"]:
    return 2 * y.reshape(-1).to(outputs) - 1


def _log_odds(outputs: Float[Tensor, "n C"], y: Tensor) -> Float[Tensor, " n"]:
    if outputs.shape[1] == 1:
        return _signs(y, outputs) * outputs[:, 0]
    own = _own(y, outputs)
    return (outputs * own).sum(1) - outputs.masked_fill(own, -torch.inf).logsumexp(1)


MARGIN = Margin("margin", _log_odds)
LABEL_OUTPUT = LabelOutput("output", lambda f, y: f.gather(1, y[:, None])[:, 0])


def require_measure(
    measure: str | LossFunction,
    output: int | None,
    *,
    loss: Loss | None,
    parameters: Parameters,
    theta: Float[Tensor, " p"],
    test: Examples,
) -> Loss:
    """Return the function (outputs, y) -> [n] of a measure, in the form of a loss.

    Args:
        measure: "loss", "output", "margin", or a callable, which is compared with finite differences.
        output: for "output": c; None is the output of each example's label, or the only one.
        loss: what "loss" means; None where there is no such measure.
        parameters: of the model.
        theta: its parameters.
        test: the examples to be measured.

    Raises:
        TypeError, ValueError: an unknown measure, an output outside the model's or for another measure, "margin"
            without labels, a callable that mixes examples, has another shape or has wrong derivatives.
    """
    if measure == "loss" and loss is None:
        raise ValueError("measure='loss' needs a loss; pass risk=, 'output', 'margin' or a callable.")
    name = measure if callable(measure) else require_choice("measure", measure, MEASURES)
    if output is not None and name != "output":
        given = repr(measure) if isinstance(measure, str) else "a callable"
        raise ValueError(f"output={output!r} belongs to measure='output', and measure is {given}; pass one of the two.")
    if name == "loss":
        return loss
    outputs = admit(parameters, test.x, name="test.x")
    if name == "output":
        return _output_measure(output, outputs, test.y)
    if name == "margin":
        _require_classes(test.y, outputs)
        return MARGIN
    made = Loss(f"measure {getattr(measure, '__name__', 'custom')}", measure)
    answered = lambda: parameters.outputs(theta, few_examples(test.x))  # noqa: E731
    require_loss_derivatives(made, answered, test.y, (GRADIENT,), n_outputs=outputs)
    return made


def _output_measure(output: int | None, outputs: int, y: Tensor) -> Loss:
    """Return the measure of one output, of each example's label, or of the only output."""
    if output is None and outputs > 1:
        if is_integer(y) and y.ndim == 1:
            require_labels("test.y", y, outputs)
            return LABEL_OUTPUT
        raise ValueError(
            f"measure='output' takes the output of each label, and test.y holds targets of {outputs} outputs instead; "
            f"pass output=, one of 0 to {outputs - 1}."
        )
    chosen = 0 if output is None else output
    if isinstance(chosen, bool) or not isinstance(chosen, int) or not 0 <= chosen < outputs:
        raise ValueError(f"output={output!r} has to be None or one of the outputs 0 to {outputs - 1}.")
    return OneOutput(f"output {chosen}", lambda f, y: f[:, chosen])


def _require_classes(y: Tensor, outputs: int) -> None:
    """Raise unless every example has a label with log-odds."""
    if outputs > 1 and is_integer(y) and y.ndim == 1:
        require_labels("test.y", y, outputs)
    elif outputs > 1 or not bool(((y == 0) | (y == 1)).all()):
        raise ValueError(
            f"measure='margin' needs class labels (for one output 0 or 1), and test.y has dtype {y.dtype} and shape "
            f"{list(y.shape)}; pass measure='output' for the outputs of a regression."
        )


@dataclass(frozen=True)
class Slopes:
    """The derivatives of a measure in the outputs, some examples at a time.

    Attributes:
        measure: see ``require_measure``.
        y: the targets of all examples.
    """

    measure: Loss
    y: Tensor

    def of(self, outputs: Float[Tensor, "e C"], examples: slice) -> Float[Tensor, "e C"]:
        """Return dm/df of some examples."""
        return self.measure.gradient(outputs, self.y[examples])


def measure_gradients(
    parameters: Parameters,
    theta: Float[Tensor, " p"],
    examples: Examples,
    measure: Loss,
    *,
    memory: int | float | None = None,
) -> GradientSource:
    """Return the gradients of a measure in the parameters, as layer inputs and output gradients.

    Args:
        parameters: of the model.
        theta: where they are taken.
        examples: t of them.
        measure: see ``require_measure``.
        memory: bytes of one pass and of the rows in memory; None is a quarter of what is free.
    """
    return gradients(parameters, theta, examples.x, Slopes(measure, examples.y), memory=memory)
