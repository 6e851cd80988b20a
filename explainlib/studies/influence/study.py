"""Leave-one-out on a softmax regression: does influence predict what retraining shows?

For each ridge the model is brought to its minimum, examples are left out one at a time (weighting "plain"), and each
prediction stands beside the retrained change of every test loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pandas
import torch

from explainlib.datasets import Examples, load
from explainlib.influence import loss_influence, removal_effect
from explainlib.metrics import fidelity
from explainlib.models import logistic
from explainlib.retraining import leave_out
from explainlib.risk import Risk
from explainlib.studies.place import placed
from explainlib.training import minimise

DATA = ("digits", "mnist", "fashion_mnist", "iris", "gaussians", "blobs")
METHODS = ("first_order", "first_order_evaluated", "newton_step")
SIZES = ("n", "parameters")


@dataclass(frozen=True)
class Config:
    """What one run does; the scales below differ in nothing else.

    Attributes:
        data: a name of ``xl.datasets.load``, with class labels.
        limit: training examples, stratified; None takes all.
        left_out: how many examples are left out, one at a time.
        tests: how many test examples are looked at, from the first on.
        ridges: values of l2.
        seed: of the examples that are left out.
    """

    data: str = "digits"
    limit: int | None = None
    left_out: int = 200
    tests: int = 20
    ridges: tuple[float, ...] = (1e-2, 1e-3)
    seed: int = 0


def config(scale: str, data: str | None) -> Config:
    """Return the settings of a scale: "quick" is seconds, "cpu" minutes, "paper" all data.

    Raises:
        ValueError: data without class labels or unknown.
    """
    data = data or "digits"
    if data not in DATA:
        raise ValueError(f"the influence study runs on {', '.join(DATA)}; got data={data!r}.")
    small = data in ("digits", "iris")
    limits = {"quick": None if small else 1000, "cpu": None if small else 5000, "paper": None}
    left_out = {"quick": 200 if small else 40, "cpu": 200, "paper": 1000}[scale]
    return Config(data, limits[scale], min(left_out, 100) if data == "iris" else left_out)


def jobs(settings: Config, folder: Path) -> dict[str, Callable[[], pandas.DataFrame]]:
    """Return the parts of the tables by name, one for each ridge."""

    @cache
    def data() -> tuple[Examples, Examples]:
        split = placed(load(settings.data, limit=settings.limit))
        return split.train.double(), split.test.double()[: settings.tests]

    return {f"ridge-{l2:g}": partial(_one_ridge, data, settings, l2) for l2 in settings.ridges}


def tables(
    settings: Config, made: Mapping[str, pandas.DataFrame], seconds: Mapping[str, float]
) -> dict[str, pandas.DataFrame]:
    """Return two tables: "pairs", a row per ridge, test and removal; "fidelity", a row per ridge and method.

    In "pairs" the columns ``first_order`` (linear in the weight), ``first_order_evaluated`` and ``newton_step`` predict
    ``retrained``, the change of the test loss; all in units of the loss.
    """
    found = {
        "pairs": [part.drop(columns=list(SIZES)) for part in made.values()],
        "fidelity": [_fidelity(part) for part in made.values()],
    }
    return {name: pandas.concat(parts, ignore_index=True) for name, parts in found.items()}


def _one_ridge(data: Callable[[], tuple[Examples, Examples]], settings: Config, l2: float) -> pandas.DataFrame:
    train, test = data()
    generator = torch.Generator().manual_seed(settings.seed)
    left = torch.randperm(len(train), generator=generator)[: min(settings.left_out, len(train) - 1)]
    classes = len(train.classes)
    risk = minimise(Risk(placed(logistic(train.x[0].numel(), classes).double()), train, l2=l2))
    groups = [[int(i)] for i in left]
    solver, plain = "dense" if risk.p <= 2000 else "cg", {"weighting": "plain"}
    predictions = {
        "first_order": -loss_influence(risk, test, solver=solver)[:, left] / risk.n,
        "first_order_evaluated": removal_effect(risk, groups, order=1, weighting="plain", solver=solver).loss_change(
            test
        ),
        "newton_step": removal_effect(risk, groups, order="newton", **plain).loss_change(test),
    }
    truth = leave_out(risk, groups, weighting="plain").loss_change(test)
    return pandas.DataFrame(
        {
            "l2": l2,
            "test": torch.arange(len(test)).repeat_interleave(len(left)).numpy(),
            "removed": left.repeat(len(test)).numpy(),
            "retrained": truth.flatten().cpu().numpy(),
            **{name: table.flatten().cpu().numpy() for name, table in predictions.items()},
            **dict(zip(SIZES, (risk.n, risk.p), strict=True)),
        }
    )


def _fidelity(part: pandas.DataFrame) -> pandas.DataFrame:
    """Return a row for each method of one ridge: how its predictions agree with the retrained changes."""
    counts = {"left_out": part["removed"].nunique(), "tests": part["test"].nunique()}

    def table(column: str) -> torch.Tensor:
        return torch.from_numpy(part[column].to_numpy(copy=True)).view(counts["tests"], counts["left_out"])

    rows = []
    for name in METHODS:
        agreement = fidelity(table(name), table("retrained"))
        row = {"l2": part["l2"].iloc[0], "method": name} | {size: part[size].iloc[0] for size in SIZES} | counts
        for measure in ("pearson", "spearman", "slope", "r2"):
            estimate = getattr(agreement, measure)
            row |= {measure: float(estimate), f"{measure}_low": estimate.low, f"{measure}_high": estimate.high}
        rows.append(row | {"verdict": agreement.verdict})
    return pandas.DataFrame(rows)
