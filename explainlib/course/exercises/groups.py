"""The exercises of notebook 02, on groups of digits."""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.course.exercises.answers import Number, Numbers
from explainlib.course.exercises.exercise import Exercise, Mistake
from explainlib.course.exercises.problems import digits, digits_risk, of_class, one_hot_risk
from explainlib.influence import Trust, loss_influence, removal_effect, series_trust
from explainlib.retraining import leave_out

LEAVING = 140  # exercise 02.1
SEVENS = 50  # exercise 02.2
HALF = 30  # exercise 02.3
MANY = 300  # exercise 02.4


def _sum_of_singles() -> Float[Tensor, " t"]:
    """Return the summed influence of fifty sevens on the loss of each of the five test sevens."""
    test = digits().test[(digits().test.y == 7).nonzero()[:5, 0]]
    return loss_influence(digits_risk(), test)[:, of_class(7)[:SEVENS]].sum(1)


def _predicted_rise() -> float:
    """Return the predicted change of the mean test loss under "plain"."""
    return float(-_sum_of_singles().mean() / digits_risk().n)


def _gap(*, weighting: str = "plain", relative_to_halves: bool = False, third_derivative: bool = False) -> float:
    """Return by how much two second-order movements of halves miss the movement of the whole."""
    sevens = of_class(7)
    halves = [sevens[:HALF], sevens[HALF : 2 * HALF], sevens[: 2 * HALF]]
    one, other, whole = removal_effect(
        digits_risk(), halves, order=2, weighting=weighting, third_derivative=third_derivative
    ).change
    return float((one + other - whole).norm() / ((one + other) if relative_to_halves else whole).norm())


@functools.cache
def _least_squares() -> dict[str, float]:
    """Return the relative error of each prediction of the parameters, for least squares without 300 digits."""
    risk = one_hot_risk()
    group = [torch.randperm(risk.n, generator=torch.Generator().manual_seed(0))[:MANY]]
    exact = leave_out(risk, group)
    effect = removal_effect(risk, group, order=2)
    moved = {
        "second": effect.theta2 - effect.theta1,
        "plus": effect.theta2 + effect.theta1,
        "first": removal_effect(risk, group, order=1).change,
        "plain": removal_effect(risk, group, order=2, weighting="plain").change,
    }
    return {name: float((move - exact.change).norm() / exact.change.norm()) for name, move in moved.items()}


@functools.cache
def _trusts() -> list[Trust]:
    """Return for each class the trust in the series for 10% to 90% of its members."""
    found = []
    for label in range(10):
        members = of_class(label)
        groups = [members[: max(1, round(s / 10 * len(members)))] for s in range(1, 10)]
        found.append(series_trust(removal_effect(digits_risk(), groups, order=2)))
    return found


def _shares(*, of: str = "second_over_first") -> list[int]:
    """Return for each class the smallest share in percent, of 10 to 90, at which a number exceeds one half."""
    values = [getattr(trust, of).tolist() for trust in _trusts()]
    large = [[10 * s for s, value in zip(range(1, 10), row, strict=True) if value > 0.5] for row in values]
    return [row[0] if row else 100 for row in large]


EXERCISES = (
    Exercise(
        "02.1",
        "Who takes over the weight",
        "tell the two weightings apart by the weight of an example that stays",
        "warm-up",
        3,
        Number(1e-3),
        lambda: 1 / (digits_risk().n - LEAVING),
        (
            Mistake(
                "weighting plain",
                lambda: 1 / digits_risk().n,
                'That is "plain", where everybody keeps the weight. Under "preserve" the weights still sum to one.',
            ),
            Mistake(
                "the factor 1/(1 - f)",
                lambda: 1 / (1 - LEAVING / digits_risk().n),
                "That is the factor by which the weight grows. The question is about the weight itself.",
            ),
            Mistake(
                "weight of the group",
                lambda: 1 / LEAVING,
                "That would be the weight if only the group stayed. It is the group that leaves.",
            ),
        ),
        (
            "Before, 1,500 digits share a total weight of one. How many share it afterwards?",
            'Removing $U$ under `"preserve"` leaves the mean over the rest.',
        ),
    ),
    Exercise(
        "02.2",
        "The sum of singles",
        "predict the effect of a group by adding influences, with sign and size",
        "warm-up",
        5,
        Number(),
        _predicted_rise,
        (
            Mistake("sign turned", lambda: -_predicted_rise(), "The size is right. Do sevens help a seven?"),
            Mistake(
                "factor n missing",
                lambda: _predicted_rise() * digits_risk().n,
                "Every member has the weight $1/n$ only.",
            ),
            Mistake(
                "mean over the group",
                lambda: _predicted_rise() / SEVENS,
                "You averaged over the members. All of them leave, so their effects *add up*.",
            ),
            Mistake(
                "summed over tests",
                lambda: _predicted_rise() * 5,
                "You added up the five tests. The question is about their mean loss.",
            ),
        ),
        (
            "The table `single` is [test, train]. Choose columns, sum over one axis, average over the other.",
            "`-single[:, sevens[:50]].sum(1) / risk.n`, then the mean over the five tests.",
        ),
    ),
    Exercise(
        "02.3",
        "First order adds up, second does not",
        "see which terms of the expansion are sums over members",
        "guided",
        10,
        Number(5e-3),
        _gap,
        (
            Mistake(
                "weighting preserve",
                lambda: _gap(weighting="preserve"),
                'With "preserve" even the first order does not add up: the factor 1/(1 - f) depends on the size. Pass '
                '`weighting="plain"`.',
            ),
            Mistake(
                "relative to the halves",
                lambda: _gap(relative_to_halves=True),
                "You divided by the length of the sum of the halves. Divide by that of the whole.",
            ),
            Mistake(
                "third derivative on",
                lambda: _gap(third_derivative=True),
                "You switched the third derivative on. Here it stays off, as in the paper.",
            ),
        ),
        (
            "`removal_effect` takes all three groups at once; `.change` has a row for each.",
            '`(moved[0] + moved[1] - moved[2]).norm() / moved[2].norm()` with `order=2, weighting="plain"`.',
        ),
    ),
    Exercise(
        "02.4",
        "Least squares",
        "measure each order where the third derivative is zero",
        "guided",
        12,
        Number(0.02),
        lambda: _least_squares()["second"],
        (
            Mistake("first order", lambda: _least_squares()["first"], "That is the first order; take `order=2`."),
            Mistake(
                "theta1 added",
                lambda: _least_squares()["plus"],
                "Both terms added is the paper's slip: the weight doubled. Removal subtracts the first.",
            ),
            Mistake(
                "weightings mixed",
                lambda: _least_squares()["plain"],
                'Prediction and truth answer different questions: one is "plain", the other "preserve".',
            ),
        ),
        (
            'Make one-hot targets, minimise with `loss="squared_error"`, and remove `anybody[:300]`.',
            "`(removal_effect(..., order=2).theta - exact.theta).norm() / exact.change.norm()`, with `exact` from "
            "`leave_out`.",
        ),
    ),
    Exercise(
        "02.5",
        "Warn me",
        "find where the expansion stops being small, class by class",
        "open",
        15,
        Numbers((10,), 0.0),
        _shares,
        (
            Mistake(
                "the ratio asked",
                lambda: _shares(of="ratio"),
                "That is where the *ratio* exceeds one half. The question is about the second term over the first.",
            ),
            Mistake(
                "in tenths",
                lambda: [share / 10 for share in _shares()],
                "Give the shares in percent.",
            ),
        ),
        (
            "For each class, make nine groups of 10% to 90% of its members, and ask `series_trust` about them.",
            "`series_trust(removal_effect(risk, groups, order=2)).second_over_first`; take the first share above 0.5.",
        ),
    ),
)
