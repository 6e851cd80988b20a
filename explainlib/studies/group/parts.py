"""The parts of the group study: each takes one draw and returns one table.

A row is a prediction against a truth, over groups of one kind and size:

    weighting     of the prediction, "plain" (Koh) or "preserve" (Basu)
    truth         of the retrained parameters, "preserve" (the paper's: the mean over the rest) or "plain"
    pearson       of predicted and true changes, all tests pooled: tests of different sizes are mixed
    per_test      the median over tests of Pearson over the groups: the paper looks at one test
    slope, slope_per_test   of truth on prediction, likewise
    radius        the spectral radius of the matrix between two terms of the series ("preserve", without damping), the
                  median of four groups, on images at the first ridge; second_over_first is |theta2| / |theta1|, median

The changes of the loss are linear in the predicted parameters, as in the paper, except in ``pearson_evaluated``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas
import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.curvature import hessian
from explainlib.datasets import Examples, Split
from explainlib.influence import influential_group, removal_effect, second_order_influence, series_trust
from explainlib.influence.groups import Removal
from explainlib.retraining import Retrained, leave_out
from explainlib.risk import Risk
from explainlib.studies.group.problems import (
    TOLERANCE,
    accuracy,
    groups_of,
    misread_first,
    sigmoid_network,
    softmax_regression,
)

BASELINE, FIRST, SECOND = "Koh first order", "first order", "second order"
METHODS: dict[str, dict[str, object]] = {
    BASELINE: {"order": 1, "weighting": "plain"},  # the paper's baseline
    FIRST: {"order": 1},
    SECOND: {"order": 2},
    "plain second order": {"order": 2, "weighting": "plain"},
    "+ third derivative": {"order": 2, "third_derivative": True},
    "Newton step": {"order": "newton"},
}
SWEPT = (BASELINE, FIRST, SECOND, "plain second order")  # at every ridge and damping; the others at the first alone
KINDS = ("random", "coherent")
PAPER_DAMPING = 0.01  # section 7.3.2
SELECTIONS = ("relaxed", "printed", "greedy", "refit", "swap")
SELECTED = (0.1, 0.2, 0.3)  # fractions of the blobs
DRAWS = 20  # random groups, averaged; the paper takes 100
MEASURES = (
    "pearson",
    "per_test",
    "slope",
    "slope_per_test",
    "pearson_evaluated",
    "parameter_error",
    "second_over_first",
)
LEAST = 3  # groups behind a correlation
DIAGNOSED = 4  # groups whose spectral radius is iterated


@dataclass(frozen=True)
class Case:
    """A model at its minimum, and how it is judged.

    Attributes:
        risk: at its minimum.
        test: examples whose loss is looked at.
        counts: groups of each kind and size.
        seed: of the groups.
        dampings: of the predictions.
        both: fractions at which the truth with plain weights is retrained too.
        methods: names in ``METHODS`` at the first damping; at others those in ``SWEPT``.
        diagnosed: whether the spectral radius is iterated.
    """

    risk: Risk
    test: Examples
    counts: Mapping[str, int]
    seed: int
    dampings: tuple[float, ...] = (0.0,)
    both: tuple[float, ...] = ()
    methods: tuple[str, ...] = tuple(METHODS)
    diagnosed: bool = True


def cell(case: Case, kind: str, fraction: float) -> pandas.DataFrame:
    """Return the rows of one kind of group and one size.

    Args:
        case: the model.
        kind: "random" or "coherent".
        fraction: of the training examples in a group.
    """
    risk = case.risk
    groups = groups_of(kind, risk.train, fraction, case.counts[kind], case.seed)
    weightings = ("preserve", "plain") if fraction in case.both else ("preserve",)
    truths = [
        leave_out(risk, groups, weighting=weighting, tolerance=TOLERANCE, on_failure="warn") for weighting in weightings
    ]
    rows, radius = [], float("nan")
    if case.diagnosed:
        trust = series_trust(removal_effect(risk, groups[:DIAGNOSED], order=1, on_failure="warn"))
        radius = _median(trust.ratio)
    for damping in case.dampings:
        for name in case.methods if damping == case.dampings[0] else (m for m in case.methods if m in SWEPT):
            options = {"damping": damping, "on_failure": "warn", **METHODS[name]}
            predicted = removal_effect(risk, groups, **options)
            for true in truths:
                row = {"method": name, "weighting": predicted.weighting, "truth": true.weighting, "damping": damping}
                rows.append(row | agreement_row(predicted, true, case.test))
    frame = pandas.DataFrame(rows)
    frame.insert(0, "fraction", fraction)
    frame.insert(0, "kind", kind)
    return frame.assign(radius=radius, removed=len(groups[0]), tests=len(case.test))


def agreement_row(predicted: Removal, true: Retrained, test: Examples) -> dict[str, float | int]:
    """Return how well the predicted loss changes and parameters agree with the retrained ones, as a row.

    Groups whose retraining or whose prediction did not converge are left out; fewer than ``LEAST`` give no number.

    Args:
        predicted: of g groups.
        true: of the same groups.
        test: t examples.
    """
    pairs = zip(true.status, predicted.status, strict=True)
    done = torch.tensor([truth == "converged" and solve.startswith("converged") for truth, solve in pairs])
    counts = {"groups": len(done), "converged": int(done.sum())}
    if counts["converged"] < LEAST:
        return dict.fromkeys(MEASURES, float("nan")) | counts
    change = true.loss_change(test)[:, done]
    linear, full = (predicted.loss_change(test, evaluate=evaluate)[:, done] for evaluate in (False, True))
    error = (predicted.theta - true.theta)[done].norm(dim=1) / true.change[done].norm(dim=1)
    (pearson, slope), (by_test, slopes) = _line(linear.flatten(), change.flatten()), _line(linear, change)
    terms = float("nan")
    if predicted.theta2 is not None:
        terms = _median((predicted.theta2.norm(dim=1) / predicted.theta1.norm(dim=1))[done])
    evaluated = float(_line(full.flatten(), change.flatten())[0])
    numbers = (float(pearson), _median(by_test), float(slope), _median(slopes), evaluated, _median(error), terms)
    return dict(zip(MEASURES, numbers, strict=True)) | counts


def _line(x: Float[Tensor, "*t g"], y: Float[Tensor, "*t g"]) -> tuple[Tensor, Tensor]:
    """Return Pearson's coefficient and the slope of y on x in the last dimension; nan where x or y are constant."""
    x, y = (part - part.mean(-1, keepdim=True) for part in (x, y))
    xy, xx, yy = ((a * b).sum(-1) for a, b in ((x, y), (x, x), (y, y)))
    return xy / (xx * yy).sqrt(), xy / xx


def _median(values: Float[Tensor, " k"]) -> float:
    return float(values.quantile(0.5))  # of two in the middle their mean; nan if one is nan


def curves(case: Case, fractions: Sequence[float], kinds: Sequence[str] = KINDS) -> pandas.DataFrame:
    """Return the rows of every kind and size of one model.

    Args:
        case: the model.
        fractions: of the training examples.
        kinds: of groups.
    """
    rows = pandas.concat([cell(case, kind, f) for kind in kinds for f in fractions], ignore_index=True)
    return rows.assign(ridge=case.risk.l2, n=case.risk.n, p=case.risk.p)


def linear_case(split: Split, l2: float, seed: int, counts: Mapping[str, int], tests: int) -> Case:
    """Return softmax regression at its minimum, judged against the paper's truth without damping.

    Args:
        split: its data.
        l2: its ridge.
        seed: of its groups.
        counts: groups of each kind.
        tests: the worst misread ones.
    """
    risk = softmax_regression(split, l2)
    return Case(risk, misread_first(risk, split.test, tests), counts, seed)


def network(
    split: Split, seed: int, *, fractions: Sequence[float], counts: Mapping[str, int], tests: int
) -> pandas.DataFrame:
    """Return the table of one sigmoid network, with the damping that its minimum needs and with the paper's.

    None is needed where the Hessian is definite; otherwise twice what makes it so.

    Args:
        split: its data.
        seed: of its first weights and its groups.
        fractions: of the training examples.
        counts: groups of each kind.
        tests: the worst misread ones.
    """
    risk = sigmoid_network(split, seed)
    lowest = float(torch.linalg.eigvalsh(hessian(risk))[0])
    needed = 0.0 if lowest > 0 else -2 * lowest
    methods = (BASELINE, FIRST, SECOND, "Newton step")
    case = Case(
        risk, misread_first(risk, split.test, tests), counts, seed, (needed, max(needed, PAPER_DAMPING)), (), methods
    )
    frame = curves(case, fractions)
    needs = frame["damping"].eq(needed)
    return frame.assign(needed=needs, lowest=lowest, accuracy=accuracy(risk, split.test))


def selection(split: Split, l2: float) -> pandas.DataFrame:
    """Return a row for each size and each way to choose the most influential group: its predicted and true change.

    Args:
        split: four blobs.
        l2: the ridge.
    """
    risk = softmax_regression(split, l2)
    test, frames = misread_first(risk, split.test, 1), []
    for fraction in SELECTED:
        size = round(fraction * risk.n)
        groups = {method: influential_group(risk, test, size, method=method) for method in SELECTIONS}
        groups |= {f"random {s}": influential_group(risk, test, size, method="random", seed=s) for s in range(DRAWS)}
        truth = leave_out(risk, list(groups.values())).loss_change(test).mean(0)
        predicted: Float[Tensor, " g"] = second_order_influence(risk, test, list(groups.values()))
        names = [name.split()[0] for name in groups]
        frame = pandas.DataFrame({"method": names, "predicted": predicted.tolist(), "retrained": truth.tolist()})
        frame = frame.groupby("method", sort=False, as_index=False).mean()  # the random draws become one row
        frame.insert(0, "fraction", fraction)
        frames.append(frame)
    return pandas.concat(frames, ignore_index=True)
