"""Group influence: how far first order, second order and a Newton step carry, and which groups matter most.

Parts, each with a table of its own:

    synthetic   logistic regression on two Gaussian classes, random groups (Basu et al. 2020, Figure 1)
    images      softmax regression on digits or MNIST, random and coherent groups (Figure 2)
    network     a sigmoid network with two hidden layers, damped (section 7.3.2)
    selection   the most influential group of four blobs (Figure 3)
    claims      what the paper says beside what was seen
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pandas
import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.datasets import Examples, load
from explainlib.datasets.sources.gaussians import gaussians
from explainlib.influence import influential_group, removal_effect, second_order_influence, series_trust
from explainlib.influence.groups import Removal
from explainlib.metrics import fidelity
from explainlib.models import logistic, mlp
from explainlib.retraining import leave_out
from explainlib.risk import Risk
from explainlib.studies.group.claims import group_claims
from explainlib.training import minimise

METHODS: dict[str, dict[str, object]] = {
    "Koh first order": {"order": 1, "weighting": "plain"},  # the paper's baseline, against its own truth
    "first order": {"order": 1},
    "second order": {"order": 2},
    "+ third derivative": {"order": 2, "third_derivative": True},
    "Newton step": {"order": "newton"},
}
SELECTIONS = ("relaxed", "printed", "greedy", "refit", "swap")
SELECTED = (0.1, 0.2, 0.3)  # fractions of the blobs
DRAWS = 20  # random groups, averaged; the paper takes 100
KINDS = ("random", "coherent")


@dataclass(frozen=True)
class Config:
    """What one run does; the scales differ in nothing else.

    Attributes:
        data: "digits", "mnist" or "fashion_mnist" for the images.
        limit: training images, stratified; None takes all.
        synthetic: training points of the synthetic logistic regression.
        blobs: training points for the selection.
        fractions: of the training set that is removed.
        groups: groups for each fraction and kind.
        tests: test examples the loss changes are pooled over, the worst misread ones first.
        network: training images of the network; 0 leaves the part out.
        l2: the ridge of the linear models.
        seed: of all groups.
    """

    data: str = "digits"
    limit: int | None = None
    synthetic: int = 2000
    blobs: int = 1000
    fractions: tuple[float, ...] = (0.05, 0.2, 0.6)
    groups: int = 16
    tests: int = 20
    network: int = 150
    l2: float = 1e-2
    seed: int = 0


PAPER_FRACTIONS = (0.016, 0.05, 0.1, 0.2, 0.3, 0.36, 0.45, 0.6)


def config(scale: str, data: str | None) -> Config:
    """Return the settings of a scale: "quick" is a minute, "cpu" under an hour on two cores, "paper" the printed sizes.

    Raises:
        ValueError: data that are not images with labels.
    """
    data = data or "digits"
    if data not in ("digits", "mnist", "fashion_mnist"):
        raise ValueError(f"the group study runs on digits, mnist, fashion_mnist; got data={data!r}.")
    if scale == "quick":
        return Config(data, None if data == "digits" else 500)
    if scale == "cpu":
        limit = None if data == "digits" else 2000
        return Config(data, limit, 10_000, 20_000, PAPER_FRACTIONS, 40, 20, 500)
    return Config(data, None, 10_000, 20_000, PAPER_FRACTIONS, 40, 20, 5000)


def jobs(settings: Config, folder: Path) -> dict[str, Callable[[], pandas.DataFrame]]:
    """Return the parts of the tables by name, table first: one for each kind of group and fraction."""
    cases = {"synthetic": (_synthetic, ("random",)), "images": (_images, KINDS)}
    if settings.network:
        cases["network"] = (_network, KINDS)
    found: dict[str, Callable[[], pandas.DataFrame]] = {}
    for table, (make, kinds) in cases.items():
        case = cache(partial(make, settings))  # its model is brought to the minimum once a process
        for kind in kinds:
            for fraction in settings.fractions:
                found[f"{table}-{kind}-{fraction:g}"] = partial(_cell, case, settings, kind, fraction)
    model = cache(partial(_blobs, settings))
    return found | {f"selection-{fraction:g}": partial(_selection, model, fraction) for fraction in SELECTED}


def tables(
    settings: Config, made: Mapping[str, pandas.DataFrame], seconds: Mapping[str, float]
) -> dict[str, pandas.DataFrame]:
    """Return the tables by name from the parts that the jobs made."""
    parts: dict[str, list[pandas.DataFrame]] = {}
    for name, part in made.items():
        parts.setdefault(name.split("-")[0], []).append(part)
    whole = {name: pandas.concat(frames, ignore_index=True) for name, frames in parts.items()}
    return {**whole, "claims": group_claims(whole, settings.data)}


def random_groups(n: int, fraction: float, count: int, seed: int) -> list[Int[Tensor, " u"]]:
    """Return ``count`` groups of round(fraction n) examples, each drawn without replacement."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randperm(n, generator=generator)[: max(1, round(fraction * n))] for _ in range(count)]


def coherent_groups(train: Examples, fraction: float, count: int, seed: int) -> list[Int[Tensor, " u"]]:
    """Return groups from one class each, from as many further classes as the size needs."""
    generator = torch.Generator().manual_seed(seed)
    size, classes = max(1, round(fraction * len(train))), int(train.y.max()) + 1
    groups = []
    for g in range(count):
        order = [(g + c) % classes for c in range(classes)]
        members = [
            m[torch.randperm(len(m), generator=generator)] for c in order for m in [(train.y == c).nonzero()[:, 0]]
        ]
        groups.append(torch.cat(members)[:size])
    return groups


def compare_methods(
    risk: Risk, test: Examples, groups: Sequence[Tensor], truth: Removal, methods: Mapping[str, dict[str, object]]
) -> pandas.DataFrame:
    """Return one row per method: agreement of the predicted loss changes and parameters with the retrained ones.

    ``pearson`` and ``slope`` evaluate the loss at the predicted parameters; ``pearson_tangent`` stays on the tangent,
    as the paper does. ``parameter_error`` is the median over groups of |predicted - true| / |true movement|.
    """
    rows = []
    truths = {truth.weighting: truth}
    for name, options in methods.items():
        started = time.perf_counter()
        predicted = removal_effect(risk, list(groups), on_failure="warn", **options)
        seconds = time.perf_counter() - started
        true = truths.get(predicted.weighting)
        if true is None:
            true = truths[predicted.weighting] = leave_out(risk, list(groups), weighting=predicted.weighting)
        change = true.loss_change(test)
        agreement = fidelity(predicted.loss_change(test), change)
        tangent = fidelity(predicted.loss_change(test, evaluate=False), change)
        error = (predicted.theta - true.theta).norm(dim=1) / true.change.norm(dim=1)
        row = {"method": name, "removed": len(groups[0]), "groups": len(groups), "tests": len(test)}
        for measure, estimate in (("pearson", agreement.pearson), ("slope", agreement.slope)):
            row |= {measure: float(estimate), f"{measure}_low": estimate.low, f"{measure}_high": estimate.high}
        row |= {"pearson_tangent": float(tangent.pearson), "slope_tangent": float(tangent.slope)}
        row |= {"parameter_error": float(error.median()), "seconds": seconds}
        rows.append(row | {"truth": f"{sum(s == 'converged' for s in true.status)} of {len(groups)} converged"})
    return pandas.DataFrame(rows)


def misread_first(risk: Risk, test: Examples, count: int) -> Examples:
    """Return ``count`` test examples, those the model gets most wrong first (the paper looks at a misread one)."""
    return test[risk.losses(test).argsort(descending=True)[:count]]


@dataclass(frozen=True)
class Case:
    """A model at its minimum, what it is judged on, and how it is judged.

    Attributes:
        risk: at its minimum.
        test: examples the loss changes are pooled over.
        count: groups for each fraction.
        methods: options of ``removal_effect`` by name.
    """

    risk: Risk
    test: Examples
    count: int
    methods: Mapping[str, dict[str, object]]


def _cell(case: Callable[[], Case], settings: Config, kind: str, fraction: float) -> pandas.DataFrame:
    """Return the rows of one kind of group and one fraction."""
    risk, count = case().risk, case().count
    if kind == "random":
        groups = random_groups(risk.n, fraction, count, settings.seed)
    else:
        groups = coherent_groups(risk.train, fraction, count, settings.seed)
    first = removal_effect(risk, groups[:4], order=1, on_failure="warn")  # factors H, which all below then use
    trust = series_trust(first)
    truth = leave_out(risk, groups, on_failure="warn")
    frame = compare_methods(risk, case().test, groups, truth, case().methods)
    frame.insert(0, "fraction", fraction)
    frame.insert(0, "kind", kind)
    return frame.assign(ratio=float(trust.ratio.median()))


def _synthetic(settings: Config) -> Case:
    data = gaussians(settings.synthetic + 1000, seed=settings.seed).double()
    train, test = data[: settings.synthetic], data[settings.synthetic :]
    risk = minimise(Risk(logistic(data.x.shape[1], 2).double(), train, l2=settings.l2))
    return Case(risk, misread_first(risk, test, settings.tests), settings.groups, METHODS)


def _images(settings: Config) -> Case:
    split = load(settings.data, limit=settings.limit).double()
    model = logistic(split.train.x[0].numel(), len(split.train.classes)).double()
    risk = minimise(Risk(model, split.train, l2=settings.l2))
    return Case(risk, misread_first(risk, split.test, settings.tests), settings.groups, METHODS)


def _network(settings: Config) -> Case:
    split = load("digits", limit=settings.network).double()
    net = Risk(mlp([64, 10, 8, 10], "sigmoid", seed=settings.seed).double(), split.train, l2=1e-3)
    risk = minimise(net, tolerance=1e-6, max_steps=300, on_failure="warn")
    methods = {name: options | {"damping": 1e-2} for name, options in METHODS.items() if name != "+ third derivative"}
    return Case(risk, misread_first(risk, split.test, settings.tests), min(settings.groups, 16), methods)


def _blobs(settings: Config) -> tuple[Risk, Examples]:
    split = load("blobs", limit=settings.blobs).double()
    risk = minimise(Risk(logistic(5, 4).double(), split.train, l2=settings.l2))
    return risk, misread_first(risk, split.test, 1)


def _selection(model: Callable[[], tuple[Risk, Examples]], fraction: float) -> pandas.DataFrame:
    """Return a row for each way to choose the most influential group: its predicted and its true change."""
    risk, test = model()
    size = round(fraction * risk.n)
    groups = {method: influential_group(risk, test, size, method=method) for method in SELECTIONS}
    groups |= {f"random {s}": influential_group(risk, test, size, method="random", seed=s) for s in range(DRAWS)}
    truth = leave_out(risk, list(groups.values())).loss_change(test).mean(0)
    predicted: Float[Tensor, " g"] = second_order_influence(risk, test, list(groups.values()))
    names = [name.split()[0] for name in groups]
    frame = pandas.DataFrame({"method": names, "predicted": predicted.tolist(), "retrained": truth.tolist()})
    frame = frame.groupby("method", sort=False, as_index=False).mean()  # the random draws become one row
    frame.insert(0, "fraction", fraction)
    return frame
