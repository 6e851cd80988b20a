"""The exercises of notebook 00, on the misread digit 96."""

from __future__ import annotations

from explainlib.course.exercises.answers import Count, Number
from explainlib.course.exercises.exercise import Exercise, Mistake
from explainlib.course.exercises.problems import digits, digits_risk, misread, misread_influence, of_class
from explainlib.influence import removal_effect
from explainlib.retraining import leave_out

HELPER = 344  # a training digit that helps
REMOVED = 100  # the most helpful ones of exercise 00.5


def _change() -> float:
    """Return the predicted change of the loss when the helper leaves: -1/n times its influence."""
    return -float(misread_influence()[HELPER]) / digits_risk().n


def _harmful(label: int | None = None) -> int:
    """Return how many training digits, of one class or of all, raise the loss."""
    values = misread_influence() if label is None else misread_influence()[of_class(label)]
    return int((values > 0).sum())


def _fewest() -> int:
    """Return the smallest number of most harmful digits without which a Newton step reads a 1."""
    worst = misread_influence().argsort(descending=True)
    moved = removal_effect(digits_risk(), [worst[:k] for k in range(1, 16)], order="newton", weighting="plain")
    return 1 + moved.outputs(misread())[:, 0].argmax(-1).tolist().index(1)


def _class_sums() -> list[float]:
    """Return the summed influence of each class."""
    return [float(misread_influence()[of_class(label)].sum()) for label in range(10)]


def _by_class(values: list[float]) -> int:
    """Return the class of the largest value."""
    return values.index(max(values))


def _reach(*, order: int | str = 1, weighting: str = "plain", evaluate: bool = True) -> float:
    """Return the true loss change over the predicted one, without the most helpful digits."""
    group = [misread_influence().argsort()[:REMOVED]]
    true = leave_out(digits_risk(), group, weighting=weighting).loss_change(misread())
    predicted = removal_effect(digits_risk(), group, order=order, weighting=weighting)
    return float(true / predicted.loss_change(misread(), evaluate=evaluate))


EXERCISES = (
    Exercise(
        "00.1",
        "A rate and a removal",
        "turn an influence into the predicted effect of a removal, with sign and size",
        "warm-up",
        3,
        Number(),
        _change,
        (
            Mistake("sign turned", lambda: -_change(), "The size is right. Is a helper missed or not?"),
            Mistake(
                "factor n missing",
                lambda: _change() * digits_risk().n,
                "The sign is right. But an influence is per unit of weight: how much weight has one of the digits?",
            ),
            Mistake(
                "the influence itself",
                lambda: -_change() * digits_risk().n,
                "That is the influence, a rate for *more* weight. Taking away is less weight, and how much less?",
            ),
        ),
        (
            "An influence says how fast the loss changes when the weight grows. Removal makes the weight smaller.",
            "Every digit weighs $1/n$. Multiply the rate by the change of the weight, sign included.",
        ),
    ),
    Exercise(
        "00.2",
        "How many harm?",
        "read the sign of an influence",
        "warm-up",
        3,
        Count(),
        _harmful,
        (
            Mistake(
                "helpful ones counted",
                lambda: digits_risk().n - _harmful(),
                "You counted those that help. Which sign does an influence have that raises the loss?",
            ),
            Mistake(
                "only the nines",
                lambda: _harmful(9),
                "Those are the nines among them. Digits of any class can harm, as the picture shows.",
            ),
        ),
        (
            "`explanation.values` is the table [test, train]; its only row belongs to our digit.",
            "A harmful digit has an influence above zero. Compare the row with zero, and sum.",
        ),
    ),
    Exercise(
        "00.3",
        "The fewest that rescue it",
        "search with predictions, and check only the last one by training again",
        "guided",
        8,
        Count(),
        _fewest,
        (
            Mistake(
                "counted from zero",
                lambda: _fewest() - 1,
                "Nearly: with so many removed the model still reads a 9. Does your loop count from zero?",
            ),
            Mistake("the text's ten", lambda: 10, "Ten are enough; are they needed? Try fewer."),
        ),
        (
            "Remove the k most harmful digits for k = 1, 2, ...; `removal_effect` takes a list of groups at once.",
            "`groups = [explanation.bottom(k)[0] for k in range(1, 16)]`, then `.outputs(wrong)[:, 0].argmax(1)` has a "
            "class for each group. Look for the first 1.",
        ),
    ),
    Exercise(
        "00.4",
        "Which class harms most?",
        "sum influences over a group, and see that the worst member does not decide",
        "guided",
        6,
        Count("the number of a class"),
        lambda: _by_class(_class_sums()),
        (
            Mistake(
                "class of the worst digit",
                lambda: int(digits().train.y[misread_influence().argmax()]),
                "That is the class of the single most harmful digit. Add up all members of each class.",
            ),
            Mistake(
                "most helpful class",
                lambda: _by_class([-value for value in _class_sums()]),
                "That class has the smallest sum: it helps most. Mind the sign.",
            ),
            Mistake(
                "harmful members counted",
                lambda: _by_class([float(_harmful(label)) for label in range(10)]),
                "That class has the most harmful members, but small ones. Add the influences up instead of counting.",
            ),
        ),
        (
            "To first order, the effect of a group is the sum of its members' influences.",
            "For class c, sum `explanation.values[0, digits.train.y == c]`; then take the class of the largest sum.",
        ),
    ),
    Exercise(
        "00.5",
        "How far the first order reaches",
        "hold a prediction for many removed digits against training again",
        "open",
        12,
        Number(),
        _reach,
        (
            Mistake("ratio upside down", lambda: 1 / _reach(), "That is the prediction over the truth; turn it round."),
            Mistake(
                "renormalised",
                lambda: _reach(weighting="preserve"),
                'You let the rest share the weight of those that left. Pass `weighting="plain"` to both calls.',
            ),
            Mistake(
                "on the tangent",
                lambda: _reach(evaluate=False),
                "That prediction follows the tangent of the loss. Put the moved parameters into the model: that is "
                "what `loss_change` does by itself.",
            ),
            Mistake(
                "Newton step",
                lambda: _reach(order="newton"),
                "That is the Newton step, which is far closer. The question is about the first order.",
            ),
        ),
        (
            "Two calls, as above with `harmful`: one predicts, one trains again. Both have `.loss_change(wrong)`.",
            '`group = explanation.top(100)`; `removal_effect(risk, group, order=1, weighting="plain")` against '
            '`leave_out(risk, group, weighting="plain")`; divide truth by prediction.',
        ),
    ),
)
