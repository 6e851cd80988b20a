"""The factorial design on Iris: ridge x damping x truth x parameters, every factor moved alone.

Each network is one row of every cell: the prediction and the truth see the same parameters, data and ridge, and only
what the cell's name says differs. Beside influence stand gradient products (the inverse left out), the training loss of
the example that is removed, and random numbers.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from itertools import combinations

import pandas
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from explainlib.datasets import Examples, load
from explainlib.influence import loss_influence
from explainlib.metrics.agreement import row_correlation
from explainlib.metrics.ties import average_ranks
from explainlib.models import mlp
from explainlib.retraining import RetrainingWarning, leave_out
from explainlib.risk import NotAtMinimumWarning, Risk
from explainlib.solvers import SolverError
from explainlib.studies.fragility.bench import SCHEDULE, is_collapsed, last_layer
from explainlib.studies.fragility.design.settings import LEAST_OVERLAP, Config, Shape
from explainlib.studies.place import placed
from explainlib.training import MinimiseWarning, fit_ensemble

TRUTHS = ("solved", "trained on", "from scratch")
PROTOCOLS = ("highest loss", "most influential")
CONTROLS = ("gradient product", "loss of the example", "random")
PSEUDO = 1e-9  # relative threshold of the pseudo-inverse
MEASURES = ("spearman", "pearson", "slope", "overlap")


def flowers(shape: Shape, split: int) -> tuple[Examples, Examples]:
    """Return (training flowers, test flowers): 120 and 30 of another draw for each split, or all 150 twice.

    Args:
        shape: says whether all are taken.
        split: of the draw.
    """
    parts = placed(load("iris").double())
    x, y = (torch.cat([getattr(parts.train, name), getattr(parts.test, name)]) for name in "xy")
    everything = Examples(x, y, classes=parts.train.classes)
    if shape.whole:
        return everything, everything
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(split))
    return everything[order[:120]], everything[order[120:]]


def trained(shape: Shape, train: Examples, ridge: float, seeds: Sequence[int]) -> list[Risk]:
    """Return the networks of a shape, each as the risk it minimises.

    Args:
        shape: and training.
        train: the flowers.
        ridge: of the objective.
        seeds: of the first parameters.
    """
    widths = [train.x.shape[1], *[shape.width] * shape.depth, len(train.classes)]
    network = placed(mlp(widths, shape.activation, dtype=torch.float64))
    options = {"epochs": shape.epochs, "lr": shape.lr, "schedule": SCHEDULE, "l2": ridge}
    ensemble = fit_ensemble(network, train, seeds=seeds, **options)
    return [ensemble.risk.at(theta) for theta in ensemble.theta]


def evaluate_split(settings: Config, shape: Shape, split: int) -> pandas.DataFrame:
    """Return the rows of one network of a shape with each ridge: every prediction beside every truth.

    Args:
        settings: of the run.
        shape: of the network.
        split: of flowers and first parameters.
    """
    train, test = flowers(shape, split)
    rows = []
    for ridge in settings.ridges:
        (whole,) = trained(shape, train, ridge, [split])
        same = {"shape": shape.name, "split": split, "ridge": ridge, "collapsed": is_collapsed(whole)}
        same |= {"accuracy": float((whole.outputs(test).argmax(1) == test.y).double().mean())}
        same |= {"gradient_norm": float(whole.gradient().norm())}
        if same["collapsed"]:
            rows.append(same | {"status": "collapsed: one class for every example"})
            continue
        for name, risk in (("last", last_layer(whole)), ("all", whole)):
            rows += [same | {"parameters": name} | row for row in _cells(settings, shape, risk, test, split)]
    return pandas.DataFrame(rows)


def _cells(settings: Config, shape: Shape, risk: Risk, test: Examples, seed: int) -> Iterator[dict[str, object]]:
    """Yield the rows of one risk: prediction, truth and protocol, and the truths beside each other."""
    predicted = predictions(risk, test, settings.dampings, seed)
    own = torch.eye(risk.n, dtype=torch.bool) if shape.whole else torch.zeros(len(test), risk.n, dtype=torch.bool)
    own = own.to(risk.theta.device)
    truths, unsolved, worst = {}, {}, int(risk.losses(test).argmax())
    for name in TRUTHS:
        if name != "solved" or risk.l2 > 0:  # without a ridge there is no minimum to solve for
            truths[name], unsolved[name] = truth(risk, test, name, shape, seed)
    reference = predicted.get(f"influence, damping {settings.dampings[-1]:g}")
    keys = {"highest loss": risk.losses().expand(len(test), -1)}
    if isinstance(reference, Tensor):
        keys["most influential"] = reference.abs()
    for protocol, key in keys.items():
        members = key.masked_fill(own, -math.inf).topk(settings.removed, dim=1).indices
        for name, true in truths.items():
            said = {"truth": name, "protocol": protocol, "unsolved": unsolved[name] / risk.n}
            for prediction, values in predicted.items():
                row = said | {"prediction": prediction}
                if isinstance(values, str):
                    yield row | {"status": values}
                else:
                    yield row | agreement(values, true, members, own, worst) | {"status": "compared"}
        for a, b in combinations(truths, 2):
            row = {"truth": b, "protocol": protocol, "unsolved": unsolved[b] / risk.n, "prediction": f"truth: {a}"}
            yield row | agreement(truths[a], truths[b], members, own, worst) | {"status": "compared"}


def predictions(
    risk: Risk, test: Examples, dampings: Sequence[float], seed: int
) -> dict[str, Float[Tensor, "t n"] | str]:
    """Return the predicted changes of the test losses on removal by name, or why there are none.

    Args:
        risk: a trained network, over all or the last parameters.
        test: t flowers.
        dampings: of influence; at 0 the pseudo-inverse.
        seed: of the random numbers.
    """
    found: dict[str, Tensor | str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotAtMinimumWarning)  # the gradient's norm is in the table
        for damping in dampings:
            keep = None if damping else PSEUDO
            try:
                values: Tensor | str = -loss_influence(risk, test, damping=damping, keep=keep) / risk.n
            except SolverError as error:
                values = f"refused: {str(error)[:80]}"
            found[f"influence, damping {damping:g}"] = values
        found["gradient product"] = -loss_influence(risk, test, curvature="identity") / risk.n
    shape = len(test), risk.n
    found["loss of the example"] = -risk.losses().expand(shape)  # as if every example helped by its loss
    random = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found["random"] = random.to(risk.theta)
    return found


def truth(risk: Risk, test: Examples, name: str, shape: Shape, seed: int) -> tuple[Float[Tensor, "t n"], int]:
    """Return the changes of the test losses after each removal, and how many problems did not come to rest.

    Args:
        risk: whose parameters are retrained, from where they are or from fresh ones.
        test: t flowers.
        name: one of ``TRUTHS``.
        shape: epochs and rate.
        seed: of the fresh parameters: the network's own.
    """
    how = {
        "solved": {"method": "newton"},
        "trained on": {"method": "finetune", "epochs": shape.finetune, "lr": 1e-3},
        "from scratch": {
            "method": "scratch",
            "epochs": shape.epochs,
            "lr": shape.lr,
            "schedule": SCHEDULE,
            "seeds": [seed],
        },
    }[name]
    with warnings.catch_warnings():
        for known in (NotAtMinimumWarning, MinimiseWarning, RetrainingWarning):
            warnings.simplefilter("ignore", known)  # counted instead
        after = leave_out(risk, [[j] for j in range(risk.n)], weighting="plain", on_failure="warn", **how)
    return after.loss_change(test), sum(status != "converged" for status in after.status)


def agreement(
    predicted: Float[Tensor, "t n"],
    true: Float[Tensor, "t n"],
    members: Int[Tensor, "t k"],
    own: Bool[Tensor, "t n"],
    worst: int,
) -> dict[str, float]:
    """Return the medians over the tests, and the values of one of them (``..._worst``), the paper's.

    ``spearman``, ``pearson`` and ``slope`` (of truth on prediction) are over the members; ``overlap`` is the share of
    the ten largest true changes, of all removals, that are among the ten largest predicted ones; ``undefined`` is the
    share of tests without a rank correlation, all of whose predictions or truths are equal.

    Args:
        predicted: by test and removal.
        true: the same.
        members: removals that a correlation is over.
        own: a test's own removal, which is not counted.
        worst: the test of highest loss.
    """
    x, y = predicted.gather(1, members), true.gather(1, members)
    by_test = {"spearman": row_correlation(average_ranks(x), average_ranks(y)), "pearson": row_correlation(x, y)}
    centred = x - x.mean(1, keepdim=True)
    by_test["slope"] = (centred * y).sum(1) / centred.square().sum(1)
    largest = [side.abs().masked_fill(own, -1.0).topk(LEAST_OVERLAP, dim=1).indices for side in (predicted, true)]
    shared = (largest[0][:, :, None] == largest[1][:, None, :]).any(2)
    by_test["overlap"] = shared.double().mean(1)
    found = {"undefined": float(by_test["spearman"].isnan().double().mean())}
    for name, values in by_test.items():
        known = values[values.isfinite()]
        found[name] = float(known.quantile(0.5)) if len(known) else math.nan
        found[f"{name}_worst"] = float(values[worst])
    return found
