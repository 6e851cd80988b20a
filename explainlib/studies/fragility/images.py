"""Images: larger networks and data, and how far the retraining that judges them agrees with itself.

Networks are trained as people do it, on small batches, and explained where training stopped. Two truths: the last layer
solved again without the example, and all parameters trained on without it, on small batches. The second is made twice,
with two orders of the batches: where the two disagree, no prediction can agree with either.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import pandas
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from explainlib.checks import require_choice
from explainlib.datasets import Examples, load
from explainlib.influence import loss_influence
from explainlib.metrics import fidelity
from explainlib.metrics.seeds import clustered_mean
from explainlib.models import bayesian_mlp, bayesian_vgg13, lenet, mlp, vgg13
from explainlib.risk import NotAtMinimumWarning, Risk
from explainlib.solvers import CG
from explainlib.studies.fragility.bench import (
    BAYESIAN,
    highest_loss_example,
    last_layer,
    predicted_changes,
    true_changes,
)
from explainlib.training import ElboRisk, fit, fit_variational

BATCH, RATE, RIDGE, DAMPING = 50, 1e-3, 1e-3, 1e-2  # Epifano et al., section 3.2 gives rate, ridge and damping
TOLERANCE = 1e-3  # of the solve over all parameters: 1e-2 and 1e-3 order LeNet's and VGG13's examples alike to .999
PAIRS = {
    "last layer's influence, last layer solved again": ("last", "solved"),
    "last layer's influence, all trained on": ("last", "trained on"),
    "all parameters' influence, all trained on": ("all", "trained on"),
    "trained on twice, two orders of batches": ("trained on", "trained on again"),
}


@dataclass(frozen=True)
class Images:
    """One row's network and data.

    Attributes:
        data: "digits", "mnist" or "cifar10".
        network: "fully connected", "LeNet", "VGG13", or one of them Bayesian.
        n: training examples.
        width: of the hidden layer of a fully connected network, of the first block of VGG13 (64 in the paper).
        epochs: of training; retraining takes a third.
        removed: examples, the most influential by the last layer.
        repeats: seeds.
    """

    data: str = "digits"
    network: str = "fully connected"
    n: int = 300
    width: int = 32
    epochs: int = 30
    removed: int = 40
    repeats: int = 2


def _network(case: Images, x: Tensor, classes: int, seed: int) -> nn.Module:
    """Return the untrained network in float64."""
    widths = [x[0].numel(), case.width, classes]
    channels = x.shape[1] if x.ndim == 4 else 1
    makers = {
        "fully connected": lambda: mlp(widths, "relu", seed=seed, dtype=torch.float64),
        f"{BAYESIAN} fully connected": lambda: bayesian_mlp(widths, "relu", seed=seed, dtype=torch.float64),
        "LeNet": lambda: lenet(channels, classes, seed=seed, dtype=torch.float64),
        "VGG13": lambda: vgg13(channels, classes, width=case.width, seed=seed, dtype=torch.float64),
        f"{BAYESIAN} VGG13": lambda: bayesian_vgg13(
            channels, classes, width=case.width, seed=seed, dtype=torch.float64
        ),
    }
    return makers[require_choice("network", case.network, tuple(makers))]()


def _trained(model: nn.Module, train: Examples, epochs: int, seed: int, without: Sequence[int] = ()) -> nn.Module:
    """Return a copy trained on small batches; a Bayesian one without an example has batches of its own."""
    if BAYESIAN in type(model).__name__:
        kept = [i for i in range(len(train)) if i not in without]
        return fit_variational(model, train[kept], epochs=epochs, batch_size=BATCH, lr=RATE, seed=seed).model
    options = {"batch_size": BATCH, "lr": RATE, "weight_decay": RIDGE, "seed": seed}
    return fit(model, train, epochs=epochs, without=without, **options).model


def _risk(model: nn.Module, train: Examples) -> Risk:
    bayesian = BAYESIAN in type(model).__name__
    return ElboRisk(model, train) if bayesian else Risk(model, train, l2=RIDGE)


def _trained_on(
    model: nn.Module, train: Examples, test: Examples, removed: Int[Tensor, " g"], epochs: int, seed: int
) -> Float[Tensor, " g"]:
    """Return the test's loss after training on without each example, minus that after training on with all."""
    groups = [[], *([int(j)] for j in removed)]
    ends = [_risk(_trained(model, train, epochs, seed, group), train).losses(test) for group in groups]
    losses = torch.cat(ends)
    return losses[1:] - losses[0]


def evaluate_images(case: Images, seed: int) -> pandas.DataFrame:
    """Return one row for each pair of ``PAIRS``: correlation, slope, share of variance; or why there is none.

    Args:
        case: network and data.
        seed: of weights and batches.
    """
    same = {"data": case.data, "network": case.network, "n": case.n, "seed": seed}
    try:
        split = load(case.data, limit=case.n).double()
    except FileNotFoundError:
        return pandas.DataFrame([{**same, "status": f"the files of {case.data} are not at hand"}])
    train = split.train
    model = _trained(_network(case, train.x, len(train.classes), seed), train, case.epochs, seed)
    risk = _risk(model, train)
    test, last = highest_loss_example(risk, split.test), last_layer(risk)
    accuracy = (risk.outputs(split.test)[:, : len(train.classes)].argmax(1) == split.test.y).double().mean()
    bayesian = isinstance(risk, ElboRisk)
    changes = {"last": predicted_changes(last, test, damping=DAMPING if bayesian else 0.0)}
    if not bayesian:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotAtMinimumWarning)
            options = {"curvature": "gauss_newton", "solver": CG(tolerance=TOLERANCE), "damping": DAMPING}
            changes["all"] = -loss_influence(risk, test, on_failure="warn", **options)[0] / risk.n
    removed = changes["last"].abs().topk(case.removed).indices
    changes = {name: values[removed] for name, values in changes.items()}
    changes["solved"], unsolved = true_changes(last, test, removed)
    more = max(1, case.epochs // 3)
    changes["trained on"] = _trained_on(model, train, test, removed, more, seed)
    changes["trained on again"] = _trained_on(model, train, test, removed, more, seed + 1000)
    same |= {"parameters": risk.p, "accuracy": float(accuracy), "gradient_norm": float(risk.gradient().norm())}
    rows = []
    for pair, (a, b) in PAIRS.items():
        if a in changes:
            said = fidelity(changes[a], changes[b], resamples=1)
            numbers = {name: float(getattr(said, name)) for name in ("spearman", "pearson", "slope", "r2")}
            unrested = unsolved if b == "solved" else 0
            rows.append({**same, "pair": pair, **numbers, "unsolved": unrested, "status": "compared"})
    return pandas.DataFrame(rows)


def images_summary(rows: pandas.DataFrame) -> pandas.DataFrame:
    """Return means over the repeats with 95% intervals by data, network and pair; what was not tried keeps its row."""
    found = []
    keys = ["data", "network", "n", "status", "pair"]
    measured = ["pair", "accuracy", "parameters", "spearman", "pearson", "r2"]
    rows = rows.reindex(columns=[*dict.fromkeys([*rows.columns, *measured])])  # all missing where no data were at hand
    for values, part in rows.assign(pair=rows["pair"].astype(object).fillna("")).groupby(keys, sort=False):
        row = dict(zip(keys, values, strict=True)) | {"repeats": part["seed"].nunique()}
        row |= {"accuracy": part["accuracy"].mean(), "parameters": part["parameters"].max()}
        for name in ("spearman", "pearson", "r2"):
            known = part[name].dropna().to_numpy(copy=True)
            mean = clustered_mean(torch.tensor(known)[:, None]) if len(known) else None
            row[name] = float("nan") if mean is None else float(mean)
            row[f"{name}_low"], row[f"{name}_high"] = (mean.low, mean.high) if mean is not None else (row[name],) * 2
        found.append(row)
    return pandas.DataFrame(found)
