"""The exercises of notebook 04, on importances and kernels."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from explainlib.course.exercises.answers import Function, Number, Numbers
from explainlib.course.exercises.exercise import Exercise, Mistake
from explainlib.datasets import Examples, flip_labels, load
from explainlib.metrics import deletion_curve, mislabel_auc, retrained_changes
from explainlib.models import logistic, mlp
from explainlib.representers import kernel, representer_scores, surrogate_importance, tracking_importance
from explainlib.risk import Risk
from explainlib.training import fit, minimise

PAIR = (150, 3)  # training example and test nine of exercise 04.1
HOW = {"epochs": 200, "lr": 0.1, "optimizer": "sgd"}
VALUED, RIDGE = 2, 1e-2  # exercise 04.4


@dataclass(frozen=True)
class _Fours:
    """The notebook's fours and nines: a network, its importances by tracking, and which labels were swapped."""

    risk: Risk
    alpha: Float[Tensor, "n 2"]
    nines: Examples
    flipped: Bool[Tensor, " n"]

    @functools.cached_property
    def near(self) -> Float[Tensor, "t n"]:
        """The tangent kernel of the output "nine" at the end."""
        return kernel(self.risk.model, self.nines.x, self.risk.train.x, output=1)

    @functools.cached_property
    def among(self) -> Float[Tensor, "n n 2"]:
        """The same among training examples, for each output."""
        x = self.risk.train.x
        return kernel(self.risk.model, x, x, output="each")


@functools.cache
def _fours() -> _Fours:
    pairs = [part[(part.y == 4) | (part.y == 9)] for part in load("digits")]
    clean, test = (Examples(part.x.double(), (part.y == 9).long(), ("4", "9")) for part in pairs)
    train, flipped = flip_labels(clean, 0.1, seed=0)
    run = fit(mlp([64, 16, 2], dtype=torch.float64), train, record=True, checkpoints=3, **HOW)
    return _Fours(Risk(run.model, train), tracking_importance(run), test[test.y == 1][:20], flipped)


def _score(*, output: int = 1, importance: bool = True, similarity: bool = True) -> float:
    """Return alpha_i K of the pair, or one factor alone."""
    i, t = PAIR
    factors = (_fours().alpha[i, output] if importance else 1.0, _fours().near[t, i] if similarity else 1.0)
    return float(factors[0]) * float(factors[1])


def _steps() -> list[tuple[object, ...]]:
    """Return two steps: rate, batch size, derivatives of the examples' losses in the output."""
    generator = torch.Generator().manual_seed(0)
    return [(0.1, 4, torch.randn(4, generator=generator)), (0.02, 3, torch.randn(3, generator=generator))]


def _area(*, tracking: bool = False, sign: float = 1.0, own_label: bool = True) -> float:
    """Return how well the score of an example on itself finds the swapped labels."""
    fours = _fours()
    y, rows = fours.risk.train.y, torch.arange(fours.risk.n)
    outputs = fours.risk.outputs()
    surrogate = [
        surrogate_importance(fours.among[..., c].contiguous(), outputs[:, c : c + 1], loss="squared_error", l2=1e-3)
        for c in (0, 1)
    ]
    alpha = fours.alpha if tracking else torch.cat(surrogate, 1)
    column = y if own_label else torch.ones_like(y)
    return float(mislabel_auc(sign * alpha[rows, column] * fours.among[rows, rows, column], fours.flipped))


@functools.cache
def _linear() -> Risk:
    """Return the linear model of fours and nines at its minimum, ridge 0.01."""
    return minimise(Risk(logistic(64, 2, dtype=torch.float64), _fours().risk.train, l2=RIDGE))


def _worth(*, sign: float = -1.0, mean: bool = True, ridge: bool = True) -> float:
    """Return alpha = -1/(n l2) dL/df of the valued example and the output "nine"."""
    risk = _linear()
    derivative = risk.outputs().softmax(1)[VALUED, 1] - float(risk.train.y[VALUED])
    return sign * float(derivative) / ((risk.n if mean else 1) * (RIDGE if ridge else 1.0))


@functools.cache
def _deleted(sign: str) -> float:
    """Return the mean change of the output "nine" without a tenth of the examples, from one end of the ranking."""
    fours = _fours()
    scores = representer_scores(fours.alpha, fours.near, output=1)
    truth = functools.partial(retrained_changes, fours.risk, fours.nines, seed=0, **HOW)
    return float(deletion_curve(scores, truth, sign=sign).mean(0)[-1])


EXERCISES = (
    Exercise(
        "04.1",
        "Two factors",
        "make one representer score from its importance and its kernel",
        "warm-up",
        3,
        Number(),
        _score,
        (
            Mistake(
                "importance alone", lambda: _score(similarity=False), "That is the importance. How alike are they?"
            ),
            Mistake("kernel alone", lambda: _score(importance=False), "That is the kernel. Which way does it push?"),
            Mistake(
                "other output",
                lambda: _score(output=0),
                'That is its push on the output "four". Importances have a column for each output.',
            ),
            Mistake(
                "divided by n",
                lambda: _score() / _fours().risk.n,
                "Tracking sums learning rate over batch size: the 1/n is inside already.",
            ),
        ),
        (
            "Eq. (2): an importance that belongs to the training example, times a kernel that belongs to the pair.",
            '`alpha` is [train, output] and `near` is [test, train]. The output "nine" is number 1.',
        ),
    ),
    Exercise(
        "04.2",
        "One step, tracked",
        "write what one step of gradient descent adds to an importance",
        "warm-up",
        4,
        Function(
            "step(rate, batch_size, derivative)",
            _steps,
            lambda rate, batch_size, derivative: Numbers(tuple(derivative.shape), 1e-6),
        ),
        lambda: lambda rate, batch_size, derivative: -rate / batch_size * derivative,
        (
            Mistake(
                "sign turned",
                lambda: lambda rate, batch_size, derivative: rate / batch_size * derivative,
                "Gradient descent goes *down* the loss.",
            ),
            Mistake(
                "batch size missing",
                lambda: lambda rate, batch_size, derivative: -rate * derivative,
                "The step follows the *mean* over the batch, so each example has its share of it only.",
            ),
            Mistake(
                "rate missing",
                lambda: lambda rate, batch_size, derivative: -derivative / batch_size,
                "How long is the step?",
            ),
            Mistake(
                "mean over the batch",
                lambda: lambda rate, batch_size, derivative: torch.full_like(derivative, -rate * derivative.mean()),
                "You averaged the derivatives. Each example keeps its own.",
            ),
        ),
        (
            "The table above says it in words, in the row of eq. (10).",
            "Learning rate over batch size, times minus the derivative of each example's loss in the output.",
        ),
    ),
    Exercise(
        "04.3",
        "Find the saboteur",
        "find wrong labels by an example's score on itself, and see which importance cannot",
        "guided",
        12,
        Number(),
        _area,
        (
            Mistake("tracking", lambda: _area(tracking=True), "That is tracking. The question is about the surrogate."),
            Mistake(
                "ranking reversed",
                lambda: _area(sign=-1.0),
                "You reversed the ranking: a suspect is one that pulls its own label *up* most.",
            ),
            Mistake(
                "output nine for all",
                lambda: _area(own_label=False),
                'You scored every example on the output "nine". Take the output of its own label, `train.y`.',
            ),
        ),
        (
            'Ask for the kernel among training examples with `output="each"`, and take its diagonal.',
            "One regression for each output, then `alpha[rows, train.y] * each[rows, rows, train.y]` into "
            "`xl.metrics.mislabel_auc`.",
        ),
    ),
    Exercise(
        "04.4",
        "An exact representer",
        "derive the importance of an example from a zero gradient",
        "guided",
        12,
        Number(),
        _worth,
        (
            Mistake(
                "sign turned",
                lambda: _worth(sign=1.0),
                "At the minimum the ridge pulls one way and the examples the other. Which way is the example's?",
            ),
            Mistake(
                "factor n missing",
                lambda: _worth(mean=False),
                "The objective has the *mean* of the losses.",
            ),
            Mistake(
                "ridge forgotten",
                lambda: _worth(ridge=False),
                "Solve the zero gradient for $\\theta$: something stands in front of it.",
            ),
            Mistake(
                "the target's importance",
                lambda: _worth(mean=False, ridge=False),
                "That is minus the derivative alone (eq. 7). Solve the zero gradient for $\\theta$.",
            ),
        ),
        (
            "Set the gradient of $\\frac1n\\sum\\ell_i + \\frac{l_2}{2}|\\theta|^2$ to zero; solve for $\\theta$.",
            "$\\alpha_i = -\\frac{1}{n\\,l_2}\\,\\partial\\ell_i/\\partial f$; for the cross-entropy the derivative is "
            "the probability minus one for the true class, the probability alone for another.",
        ),
    ),
    Exercise(
        "04.5",
        "The other end",
        "delete the highest scores, and explain why so little happens",
        "open",
        15,
        Number(0.02),
        lambda: _deleted("positive"),
        (
            Mistake(
                "lowest first",
                lambda: _deleted("negative"),
                "That is the rise without the lowest scores, as above. Delete the highest.",
            ),
            Mistake("sign turned", lambda: -_deleted("positive"), "The size is right. Does the output rise or fall?"),
            Mistake(
                "summed over tests",
                lambda: len(_fours().nines) * _deleted("positive"),
                "You added up the twenty nines; take their mean.",
            ),
        ),
        (
            '`xl.metrics.deletion_curve(tracking, truth, sign="positive")` has a row for each nine.',
            "Its last column is a tenth deleted. Look also at how many of the deleted ones were swapped.",
        ),
    ),
)
