"""The exercises of notebook 03, on fair comparisons."""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.course.exercises.answers import Choice, Count, Function, Number
from explainlib.course.exercises.exercise import Exercise, Mistake
from explainlib.course.exercises.problems import iris_last, iris_risk, iris_worst
from explainlib.curvature import hessian
from explainlib.datasets import load
from explainlib.influence import loss_influence
from explainlib.metrics import fidelity
from explainlib.models import mlp
from explainlib.retraining import leave_out
from explainlib.risk import Risk
from explainlib.training import Plateau, fit_risks, fresh_starts

AGREEMENT = 0.49  # of the two truths of exercise 03.2
DAMPING = 0.1  # exercise 03.5
SIZES = ("0.001", "0.01", "0.1", "1")  # of exercise 03.6


def _pairs() -> list[tuple[object, ...]]:
    """Return two sets of predicted and true changes."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for slope, shift in ((0.5, 1.0), (-2.0, 0.3)):
        predicted = torch.randn(12, generator=generator) + 0.5
        made.append((predicted, slope * predicted + shift + 0.4 * torch.randn(12, generator=generator)))
    return made


def _covariance(a: Float[Tensor, " k"], b: Float[Tensor, " k"]) -> Tensor:
    return ((a - a.mean()) * (b - b.mean())).sum()


def _recipes() -> list[tuple[object, ...]]:
    """Return delta and scale of two recipes for LiSSA."""
    return [(0.01, 10.0), (0.003, 40.0)]


def _added(delta: float, scale: float) -> float:
    """Return the damping d of (H + d) h/s = v at the fixed point of h = v + (1 - delta) h - H h/s, for one number H."""
    H, v = 0.7, 1.3
    h = v / (delta + H / scale)
    return v / (h / scale) - H


@functools.cache
def _rivals() -> dict[str, float]:
    """Return the rank correlation of the plain product of gradients with the truth, for either set of parameters."""
    found = {}
    for name, risk in (("all", iris_risk()), ("last", iris_last())):
        guess = -loss_influence(risk, iris_worst(), curvature="identity")[0] / risk.n
        truth = leave_out(risk, [[i] for i in range(risk.n)], weighting="plain").loss_change(iris_worst())[0]
        found[name] = float(fidelity(guess, truth).spearman)
    return found


def _below(damping: float) -> int:
    """Return how many eigenvalues of the last layer's Hessian lie below a damping."""
    return int((torch.linalg.eigvalsh(hessian(iris_last())) < damping).sum())


@functools.cache
def _restlessness() -> str:
    """Return the power of ten nearest to how far test losses move when only the fresh start does."""
    split = load("digits", limit=150).double()
    small = Risk(mlp([64, 8, 10], "tanh", dtype=torch.float64), split.train, l2=1e-3)
    moved = 0.01 * torch.randn(7, small.p, generator=torch.Generator().manual_seed(0))
    moved[0] = 0
    starts = fresh_starts(small, [0]) + moved
    ends = fit_risks(small, starts=starts, epochs=400, lr=0.02, schedule=Plateau(0.1, 20)).theta
    losses = torch.stack([small.at(theta).losses(split.test[:20]) for theta in ends])
    size = (losses[1:] - losses[0]).square().mean().sqrt()
    return min(SIZES, key=lambda word: abs(float(size.log10()) - float(torch.tensor(float(word)).log10())))


_OF_SIZES = {  # one for each, so that the list says nothing about which is right
    "0.001": "That is less than what influence predicts for a removal.",
    "0.01": "That is about what influence predicts for a removal.",
    "0.1": "That is as much as a removal did.",
    "1": "That would be as large as the losses themselves.",
}

EXERCISES = (
    Exercise(
        "03.1",
        "A slope by hand",
        "write the number that a correlation hides",
        "warm-up",
        5,
        Function("slope(predicted, true)", _pairs, lambda predicted, true: Number(1e-6)),
        lambda: lambda predicted, true: _covariance(predicted, true) / _covariance(predicted, predicted),
        (
            Mistake(
                "the other way round",
                lambda: lambda predicted, true: _covariance(predicted, true) / _covariance(true, true),
                "That is the slope of prediction on truth. Truth stands on the vertical axis.",
            ),
            Mistake(
                "a correlation",
                lambda: (
                    lambda predicted, true: (
                        _covariance(predicted, true)
                        / (_covariance(true, true) * _covariance(predicted, predicted)).sqrt()
                    )
                ),
                "That is the correlation of Pearson: it forgets both sizes. Divide by the spread of the prediction "
                "only.",
            ),
            Mistake(
                "not centred",
                lambda: lambda predicted, true: predicted @ true / (predicted @ predicted),
                "That line is forced through zero. Subtract the means first.",
            ),
        ),
        (
            "The least squares line of truth over prediction: covariance divided by a variance. Which one?",
            "Centre both; then the sum of products over the sum of squares of the prediction.",
        ),
    ),
    Exercise(
        "03.2",
        "The ceiling",
        "say how good a perfect prediction can look against a truth that does not repeat",
        "warm-up",
        3,
        Number(),
        lambda: AGREEMENT**0.5,
        (
            Mistake(
                "agreement itself",
                lambda: AGREEMENT,
                "That is how well one noisy truth agrees with another. A perfect prediction has no noise of its own.",
            ),
            Mistake(
                "squared",
                lambda: AGREEMENT**2,
                "The ceiling lies above the agreement of two truths, not below: only one side is noisy.",
            ),
        ),
        (
            "Write each truth as signal plus noise. Two truths share the signal; a perfect prediction *is* the signal.",
            "If signal has the share $\\rho$ of a truth's variance, its correlation with that truth is $\\sqrt\\rho$.",
        ),
    ),
    Exercise(
        "03.3",
        "Whose damping is it?",
        "find the fixed point of a recursion, and with it the matrix that it really inverts",
        "guided",
        10,
        Function("damping(delta, scale)", _recipes, lambda delta, scale: Number(1e-6)),
        lambda: _added,
        (
            Mistake(
                "as printed",
                lambda: lambda delta, scale: delta,
                "That is the printed number. Put the fixed point into $h/s$ before you read the damping off.",
            ),
            Mistake(
                "divided by the scale",
                lambda: lambda delta, scale: delta / scale,
                "At the fixed point $(\\delta + H/s)h = v$. You want the matrix that takes $h/s$, not $h$, to $v$.",
            ),
        ),
        (
            "At the fixed point $h$ is on both sides. Collect it: $(\\ldots)\\,h = v$.",
            "Multiply and divide by $s$: $(\\ldots)\\,(h/s) = v$. What stands beside $H$ in the bracket?",
        ),
    ),
    Exercise(
        "03.4",
        "A fair rival",
        "hold a score without curvature against both truths",
        "guided",
        8,
        Number(0.03),
        lambda: _rivals()["all"],
        (
            Mistake(
                "last layer",
                lambda: _rivals()["last"],
                "That is the rival of the last layer. The question is about all parameters.",
            ),
            Mistake(
                "sign turned",
                lambda: -_rivals()["all"],
                "Removal is minus one n-th of the influence, here too.",
            ),
        ),
        (
            '`curvature="identity"` replaces $H$ by the identity; everything else stays.',
            'Compare `-loss_influence(whole, worst, curvature="identity")[0] / whole.n` with `true["all parameters"]`.',
        ),
    ),
    Exercise(
        "03.5",
        "What a damping drowns",
        "read a damping against the spectrum",
        "guided",
        5,
        Count(),
        lambda: _below(DAMPING),
        (
            Mistake(
                "counted above",
                lambda: iris_last().p - _below(DAMPING),
                "Those are the directions that survive. Count the others.",
            ),
            Mistake(
                "damping 0.01",
                lambda: _below(0.01),
                "That is the number for 0.01, as in the text.",
            ),
            Mistake(
                "all parameters",
                lambda: int((torch.linalg.eigvalsh(hessian(iris_risk())) < DAMPING).sum()),
                "That is the Hessian of all parameters. Take that of the last layer.",
            ),
        ),
        (
            "Where an eigenvalue is smaller than the damping, the damping decides.",
            "`torch.linalg.eigvalsh(xl.curvature.hessian(last))`, compared with the damping, summed.",
        ),
    ),
    Exercise(
        "03.6",
        "The last step",
        "measure how far a fresh start alone moves the truth",
        "open",
        15,
        Choice(SIZES),
        _restlessness,
        tuple(
            Mistake(word, functools.partial(str, word), f"{hint} Take the root mean square over the six networks.")
            for word, hint in _OF_SIZES.items()
        ),
        (
            "`xl.training.fresh_starts` gives a start; add small random numbers to copies, and train all at once.",
            "`xl.training.fit_risks(small, starts=..., epochs=400, lr=0.02, schedule=xl.training.Plateau(0.1, 20))`, "
            "then compare `small.at(theta).losses(test)` with those of the first.",
        ),
    ),
)
