"""The exercises of notebook 09, on which explanation answers which question."""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.course.exercises.answers import Choice, Count, Function, Number, Numbers
from explainlib.course.exercises.exercise import Exercise, Mistake
from explainlib.datasets import Examples
from explainlib.influence import loss_influence, trak
from explainlib.metrics import fidelity
from explainlib.models import mlp
from explainlib.retraining import leave_out
from explainlib.risk import Risk
from explainlib.studies.side_by_side import fours_and_nines
from explainlib.training import fresh_starts, minimise

FACTORS = {  # what a score is multiplied by to predict a removal, by what it is a score of
    "example": lambda n: -1 / n,
    "task": lambda n: -1 / n,
    "bilevel task": lambda n: -1.0,
    "group, theta1": lambda n: -1.0,
    "loss change": lambda n: 1.0,
}
RATE, STEPS = 0.2, 100  # exercise 09.2
DIAL = ("0.0017", "0.17", "1.7", "17")  # dampings of exercise 09.5
SHORT = 30  # steps of its run
PROJECTIONS = 20  # exercise 09.4
DELETED, DIGITS = 6, 10  # exercise 09.6


def _scored() -> list[tuple[object, ...]]:
    """Return scores, what they are scores of, and how many examples or tasks there are."""
    generator = torch.Generator().manual_seed(0)
    return [
        (torch.randn(4, generator=generator), kind, n) for kind, n in zip(FACTORS, (120, 64, 60, 120, 50), strict=True)
    ]


def _runs() -> list[tuple[object, ...]]:
    """Return eigenvalues, a learning rate and a number of steps."""
    values = torch.tensor([4.0, 1.0, 0.2, 0.03])
    return [(values, 0.2, 1), (values, 0.2, 30), (values, 0.4, 200)]


def _filter(h: Float[Tensor, " k"], rate: float, steps: int) -> Float[Tensor, " k"]:
    """Return (1 - (1 - rate h)^steps) / h: what descent has made of the inverse so far."""
    return (1 - (1 - rate * h) ** steps) / h


@functools.cache
def _problem() -> tuple[Risk, Examples]:
    """Return the notebook's objective of fours and nines, not trained yet, and its sixty test digits."""
    train, test, _ = fours_and_nines()
    return Risk(mlp([64, 8, 2], "tanh", dtype=torch.float64), train, l2=0.03), test


@functools.cache
def _at_rest() -> tuple[Risk, Examples]:
    """Return the minimum and the twenty test digits of highest loss."""
    blank, test = _problem()
    risk = minimise(blank.at(fresh_starts(blank, [0])[0]))
    return risk, test[risk.losses(test).argsort(descending=True)[:20]]


@functools.cache
def _alone() -> Float[Tensor, "t n"]:
    """Return the truth of the first question: one leaves, at rest."""
    risk, tests = _at_rest()
    return leave_out(risk, [[i] for i in range(risk.n)], weighting="plain").loss_change(tests)


def _agreement(scores: Float[Tensor, "t n"]) -> float:
    return float(fidelity(-scores, _alone(), resamples=1).spearman)


@functools.cache
def _projected() -> dict[str, float]:
    """Return the agreement of TRAK with the truth, by how its projections are used."""
    risk, tests = _at_rest()
    singles = [_agreement(trak(risk, tests, features=32, seed=seed)) for seed in range(PROJECTIONS)]
    return {
        "together": _agreement(trak([risk] * PROJECTIONS, tests, features=32)),
        "mean of agreements": sum(singles) / PROJECTIONS,
        "best of all": max(singles),
    }


@functools.cache
def _dialled() -> str:
    """Return the damping whose scores agree best with the run of thirty steps."""
    blank, (_, tests) = _problem()[0], _at_rest()
    each = [[i] for i in range(blank.n)]
    gone = leave_out(blank, each, method="scratch", epochs=SHORT, lr=RATE, optimizer="sgd", weighting="plain")
    true = gone.loss_change(tests)

    def agreement(damping: str) -> float:
        scores = loss_influence(gone.risk, tests, curvature="gauss_newton", damping=float(damping))
        return float(fidelity(-scores, true, resamples=1).spearman)

    return max(DIAL, key=agreement)


@functools.cache
def _deleted(curvature: str) -> Float[Tensor, " k"]:
    """Return by how much the loss of each of ten test digits changes without its six most harmful examples."""
    risk, tests = _at_rest()
    order = loss_influence(risk, tests[:DIGITS], curvature=curvature).argsort(dim=1, descending=True)[:, :DELETED]
    return leave_out(risk, list(order), weighting="plain").loss_change(tests[:DIGITS]).diagonal()


_OF_DIAL = {  # one for each, so that the list says nothing about which is right
    "0.0017": "So small a damping stands for a run of thousands of steps.",
    "0.17": "How many steps does this damping stand for, at that rate?",
    "1.7": "At this damping the clock stands at a few steps.",
    "17": "This is less than one step: the score is the product of gradients, nearly.",
}

EXERCISES = (
    Exercise(
        "09.1",
        "One factor for each",
        "turn any score of the course into a predicted removal",
        "warm-up",
        5,
        Function("removal(score, kind, n)", _scored, lambda score, kind, n: Numbers((len(score),), 1e-6)),
        lambda: lambda score, kind, n: FACTORS[kind](n) * score,
        (
            Mistake(
                "one factor for all",
                lambda: lambda score, kind, n: -score / n,
                "That factor belongs to objectives that are a mean. Which of the kinds belong to a sum, and which is "
                "the removal already?",
            ),
            Mistake(
                "sign turned",
                lambda: lambda score, kind, n: -FACTORS[kind](n) * score,
                "Influence is a derivative for *more* of it. Removal is less.",
            ),
            Mistake(
                "loss change turned",
                lambda: lambda score, kind, n: score * (-1.0 if kind == "loss change" else FACTORS[kind](n)),
                "A loss change is removal itself: nothing is left to turn.",
            ),
            Mistake(
                "tasks as a sum",
                lambda: lambda score, kind, n: score * (-1.0 if kind == "task" else FACTORS[kind](n)),
                "TLXML's objective is the mean over tasks; only the bilevel one is a sum.",
            ),
        ),
        (
            "Ask of each objective: is it a mean or a sum? And of `loss change`: what is it already?",
            "The table of signs (`docs/teach/signs.md`) has every factor, in its last column.",
        ),
    ),
    Exercise(
        "09.2",
        "What time is it?",
        "read a damping as a length of training, and back",
        "warm-up",
        2,
        Number(),
        lambda: 1 / (RATE * STEPS),
        (
            Mistake("upside down", lambda: RATE * STEPS, "Longer training needs a *smaller* damping."),
            Mistake("without the rate", lambda: 1 / STEPS, "Steps of another length are another time."),
            Mistake("rate above", lambda: RATE / STEPS, "Rate and steps together make the time: multiply them first."),
        ),
        (
            "The green line of the figure says it in its name.",
            "One over the product of rate and steps.",
        ),
    ),
    Exercise(
        "09.3",
        "What descent has inverted so far",
        "derive how far training has come in each direction of the Hessian",
        "guided",
        12,
        Function("inverted(h, rate, steps)", _runs, lambda h, rate, steps: Numbers((len(h),), 1e-6)),
        lambda: _filter,
        (
            Mistake(
                "at rest",
                lambda: lambda h, rate, steps: 1 / h,
                "That is the inverse, after endless training. Stop after `steps` steps.",
            ),
            Mistake(
                "damped",
                lambda: lambda h, rate, steps: 1 / (h + 1 / (rate * steps)),
                "That is the damping that imitates it. Add up the steps themselves.",
            ),
            Mistake(
                "one direction for all",
                lambda: lambda h, rate, steps: torch.full_like(h, rate * steps),
                "That holds where $h$ is small. Elsewhere the moved parameter is pulled back, a little in each step.",
            ),
            Mistake(
                "one step too few",
                lambda: lambda h, rate, steps: _filter(h, rate, steps - 1),
                "The first step counts, and nothing pulls back yet.",
            ),
            Mistake(
                "not summed",
                lambda: lambda h, rate, steps: (1 - rate * h) ** steps,
                "That is what is left of the *first* push. All the later ones have to be added.",
            ),
        ),
        (
            "$x_{k+1} = x_k - \\text{rate}\\,(h x_k - 1)$ from $x_0 = 0$: the push is one, the pull $h x_k$. What is "
            "$x$ after that many steps?",
            "A geometric series: rate times the sum of $(1 - \\text{rate}\\, h)^k$ from $k = 0$.",
        ),
    ),
    Exercise(
        "09.4",
        "Twenty projections",
        "tell the noise of a method from its mistake",
        "guided",
        10,
        Number(0.03),
        lambda: _projected()["together"],
        (
            Mistake(
                "mean of agreements",
                lambda: _projected()["mean of agreements"],
                "That is the mean of the correlations, one for each projection. Average the *scores* first.",
            ),
            Mistake(
                "best of all",
                lambda: _projected()["best of all"],
                "That is the luckiest projection, chosen by the truth. Average the scores.",
            ),
            Mistake(
                "sign turned",
                lambda: -_projected()["together"],
                "TRAK's sign is that of influence here: removal is the other way.",
            ),
        ),
        (
            "`trak` takes a list of risks and draws a new projection for each. They may be the same risk.",
            "`xl.influence.trak([risk] * k, tests, features=32)`, then `fidelity` of minus that with the first truth.",
        ),
    ),
    Exercise(
        "09.5",
        "Turn the dial",
        "choose a damping by the truth that it is for",
        "guided",
        10,
        Choice(DIAL),
        _dialled,
        tuple(Mistake(word, functools.partial(str, word), f"{hint} Try all four.") for word, hint in _OF_DIAL.items()),
        (
            'The cell of the figure has all that is needed: `leave_out(blank, ..., method="scratch", epochs=...)`.',
            'Then `loss_influence(left.risk, tests, curvature="gauss_newton", damping=...)` against its `loss_change`.',
        ),
    ),
    Exercise(
        "09.6",
        "Was the first digit bad luck?",
        "repeat an anecdote until it is a count",
        "open",
        15,
        Count(),
        lambda: int((_deleted("hessian") < _deleted("identity")).sum()),
        (
            Mistake(
                "counted the others",
                lambda: int((_deleted("hessian") > _deleted("identity")).sum()),
                "That is where plain gradients did better. A loss that falls further is *below*.",
            ),
            Mistake(
                "any fall",
                lambda: int((_deleted("hessian") < 0).sum()),
                "You counted the digits whose loss falls at all. Compare the two methods.",
            ),
        ),
        (
            "For each digit its own two lists of six; one retraining for each list.",
            '`xl.retraining.leave_out(risk, lists, weighting="plain").loss_change(tests[:10]).diagonal()`.',
        ),
    ),
)
