"""The validation bench: networks of one shape trained from many seeds in five ways, influence against retraining.

    plain         no ridge
    SWA           its networks trained on at the first rate, the mean of every epoch's parameters
    L2            a ridge, which is inside every Hessian
    L2 + SWA      the same on top of the ridge
    Bayesian      mean and variance of every weight, trained on the evidence lower bound

Influence and truth see the same parameters here, those of the last layer (Epifano et al., section 3.1). Where a finite
minimum exists (a ridge, or a prior) the truth is solved to it; without a ridge there is none, and the truth is
what some epochs of fine-tuning reach, as in the paper.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import pandas
import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_choice, require_count
from explainlib.curvature import top_eigenvalues
from explainlib.datasets import Examples, Split
from explainlib.influence import loss_influence
from explainlib.metrics import fidelity
from explainlib.models import bayesian_mlp, mlp
from explainlib.retraining import RetrainingWarning, leave_out
from explainlib.risk import NotAtMinimumWarning, Risk
from explainlib.studies.place import placed
from explainlib.training import (
    ElboRisk,
    Ensemble,
    MinimiseWarning,
    Plateau,
    fit_ensemble,
    fit_variational_ensemble,
)
from explainlib.training.stacked import stack_networks
from explainlib.training.steps import stepper

PLAIN, SWA, L2, L2_SWA, BAYESIAN = KINDS = ("plain", "SWA", "L2", "L2 + SWA", "Bayesian")
FAMILIES = {PLAIN: (PLAIN, SWA), L2: (L2, L2_SWA), BAYESIAN: (BAYESIAN,)}  # trained together
PROTOCOLS = ("highest_loss", "most_influential")
SIDES = ("predicted", "true")
SHOWN, SPECTRUM = 5, 20  # seeds whose points are kept, and eigenvalues of each
SCHEDULE = Plateau(0.1, 100)  # Epifano et al., section 3.1


@dataclass(frozen=True)
class Training:
    """How the networks of a sweep are trained and judged.

    Attributes:
        epochs: full-batch Adam steps.
        lr: the first learning rate; ``SCHEDULE`` lowers it.
        swa: epochs of the average.
        l2: the ridge of the two kinds that have one.
        damping: added to the last layer's curvature where neither ridge nor prior makes it definite (Epifano et al.,
            section 2.2, add it everywhere; what that costs is measured beside it).
        finetune: epochs of retraining where there is no finite minimum.
        removed: examples removed one by one in each protocol.
        activation: of all hidden layers.
    """

    epochs: int = 3000
    lr: float = 0.01
    swa: int = 300
    l2: float = 0.005
    damping: float = 0.01
    finetune: int = 500
    removed: int = 40
    activation: str = "relu"


def train_family(
    how: Training, train: Examples, widths: Sequence[int], name: str, seeds: Sequence[int]
) -> dict[str, list[Risk]]:
    """Return the trained networks by kind, one ``Risk`` over all parameters for each seed.

    Args:
        how: epochs, rates, ridge.
        train: the examples, in float64.
        widths: features, hidden widths, classes.
        name: "plain" (with SWA), "L2" (with L2 + SWA) or "Bayesian".
        seeds: of the first parameters.

    Raises:
        ValueError: another name, or no epochs to average over.
    """
    require_choice("name", name, tuple(FAMILIES))
    if name == BAYESIAN:
        network = placed(bayesian_mlp(widths, how.activation, dtype=torch.float64))
        risk = ElboRisk(network, train, loss="expected_cross_entropy")  # other costs: ``fragility.design.bayes``
        ensemble = fit_variational_ensemble(risk, epochs=how.epochs, seeds=seeds, lr=how.lr, schedule=SCHEDULE)
        return {BAYESIAN: [risk.at(theta) for theta in ensemble.theta]}
    network = placed(mlp(widths, how.activation, dtype=torch.float64))
    options = {"epochs": how.epochs, "lr": how.lr, "schedule": SCHEDULE, "l2": how.l2 if name == L2 else 0.0}
    ensemble = fit_ensemble(network, train, seeds=seeds, **options)
    means = stochastic_weight_average(ensemble, epochs=how.swa, lr=how.lr)
    ends = ensemble.theta, means
    return {kind: [ensemble.risk.at(theta) for theta in rows] for kind, rows in zip(FAMILIES[name], ends, strict=True)}


def stochastic_weight_average(ensemble: Ensemble, *, epochs: int, lr: float) -> Float[Tensor, "m p"]:
    """Return the stochastic weight average of each network: Adam goes on at a constant rate, epochs are averaged.

    Args:
        ensemble: where the networks start, and their objectives.
        epochs: full-batch steps, each of which enters the mean; at least 1.
        lr: the constant rate; the schedule's last one is so small that nothing would be averaged.

    Raises:
        ValueError: no epochs.

    Source: Izmailov et al. 2018, with Adam in place of gradient descent.
    """
    require_count("epochs", epochs)
    networks = stack_networks(ensemble.risk, ensemble.weights)
    packed = networks.pack(ensemble.theta)
    step, total = stepper("adam", packed), torch.zeros_like(packed)
    with compute.settings(ensemble.risk.n * ensemble.risk.p):
        for _ in range(epochs):
            step(networks.gradients(packed), lr)
            total += packed
    return networks.unpack(total / epochs)


def last_layer(risk: Risk) -> Risk:
    """Return the same objective, its loss and weights too, over the last layer alone; the layers below stay frozen.

    Raises:
        ValueError: a network without a final linear layer.
    """
    if isinstance(risk, ElboRisk):
        options = {"loss": risk.cost, "kl_weight": risk.kl_weight, "prior_variance": risk.prior_variance}
        last = ElboRisk(risk.model, risk.train, parameters="last", **options)
    else:
        last = Risk(risk.model, risk.train, loss=risk.loss, l2=risk.l2, parameters="last")
    return last if risk.weights is None else last.reweighted(risk.weights)


def is_collapsed(risk: Risk) -> bool:
    """Return whether the network gives every training example the same class."""
    outputs = risk.outputs()
    if isinstance(risk, ElboRisk):
        outputs = outputs.chunk(2, -1)[0]
    return len(outputs.argmax(1).unique()) == 1


def highest_loss_example(risk: Risk, test: Examples) -> Examples:
    """Return the test example of highest loss, alone."""
    return test[int(risk.losses(test).argmax())]


def predicted_changes(risk: Risk, test: Examples, *, damping: float) -> Float[Tensor, " n"]:
    """Return what influence predicts for one test's loss when each training example is removed, weighting "plain"."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotAtMinimumWarning)  # the gradient's norm is in the table
        return -loss_influence(risk, test, damping=damping)[0] / risk.n


def true_changes(
    risk: Risk, test: Examples, removed: Int[Tensor, " g"], *, finetune: int | None = None, lr: float = 1e-3
) -> tuple[Float[Tensor, " g"], int]:
    """Return the change of one test's loss after each removal, and how many problems did not come to rest.

    Args:
        risk: the parameters that are retrained, from where they are.
        test: one example.
        removed: training examples, each removed alone, weighting "plain".
        finetune: epochs of Adam; None solves to the minimum.
        lr: of fine-tuning.
    """
    groups = [[int(j)] for j in removed]
    how = {"method": "newton"} if finetune is None else {"method": "finetune", "epochs": finetune, "lr": lr}
    with warnings.catch_warnings():
        for known in (NotAtMinimumWarning, MinimiseWarning, RetrainingWarning):
            warnings.simplefilter("ignore", known)  # counted instead
        after = leave_out(risk, groups, weighting="plain", on_failure="warn", **how)
    return after.loss_change(test)[0], sum(status != "converged" for status in after.status)


def evaluate_network(how: Training, risk: Risk, kind: str, split: Split, *, points: bool = False) -> dict[str, object]:
    """Return one row: how the network does, its spectrum, and the correlations under both protocols.

    Args:
        how: damping, epochs and counts.
        risk: a trained network over all parameters.
        kind: of ``KINDS``.
        split: its training data, and the tests among which the one of highest loss is taken.
        points: whether what is behind the correlations is kept too, as JSON: ``removed``, ``predicted`` and ``true``
            of each protocol, and ``spectrum``, the ``SPECTRUM`` largest eigenvalues.
    """
    test = highest_loss_example(risk, split.test)
    outputs = risk.outputs(split.test)[:, : len(split.train.classes)]
    row: dict[str, object] = {
        "parameters": risk.p,
        "accuracy": float((outputs.argmax(1) == split.test.y).double().mean()),
        "test_loss": float(risk.losses(test)),
        "gradient_norm": float(risk.gradient().norm()),
        "collapsed": is_collapsed(risk),
        "top_eigenvalue": float(top_eigenvalues(risk, 1)),
    }
    if points:
        row["spectrum"] = _numbers(top_eigenvalues(risk, min(SPECTRUM, risk.p)))
    if row["collapsed"]:
        return row | {"status": "collapsed: one class for every example"}
    last = last_layer(risk)
    without_ridge = kind in FAMILIES[PLAIN]
    damped = predicted_changes(last, test, damping=how.damping)
    predicted = damped if without_ridge else predicted_changes(last, test, damping=0.0)  # the truth has no damping
    ranks = {"highest_loss": risk.losses(), "most_influential": predicted.abs()}
    chosen = {name: values.topk(how.removed).indices for name, values in ranks.items()}
    removed = torch.cat(list(chosen.values())).unique()
    finetune = how.finetune if without_ridge else None
    true, unsolved = true_changes(last, test, removed, finetune=finetune)
    for name, members in chosen.items():
        agreement = fidelity(predicted[members], true[torch.searchsorted(removed, members)], resamples=1)
        row |= {f"spearman_{name}": float(agreement.spearman), f"pearson_{name}": float(agreement.pearson)}
        row |= {f"slope_{name}": float(agreement.slope)}
        if points:
            pairs = predicted[members], true[torch.searchsorted(removed, members)]
            row |= {f"removed_{name}": json.dumps(members.tolist())}
            row |= {f"{side}_{name}": _numbers(values) for side, values in zip(SIDES, pairs, strict=True)}
    own = chosen["highest_loss"]
    with_damping = fidelity(damped[own], true[torch.searchsorted(removed, own)], resamples=1)
    row["spearman_damped"] = float(with_damping.spearman)
    return row | {"retrained": len(removed), "unsolved": unsolved, "status": "compared"}


def _numbers(values: Float[Tensor, " k"]) -> str:
    """Return numbers as JSON, to five digits."""
    return json.dumps([float(f"{value:.5g}") for value in values.tolist()])


def cell(how: Training, split: Split, depth: int, width: int, name: str, seeds: Sequence[int]) -> pandas.DataFrame:
    """Return the rows of one shape and family: every kind and seed; the first ``SHOWN`` seeds keep their points.

    Args:
        how: training and judging.
        split: in float64.
        depth: hidden layers.
        width: of each.
        name: of the family.
        seeds: repeats.
    """
    widths = [split.train.x.flatten(1).shape[1], *[width] * depth, len(split.train.classes)]
    rows = []
    for kind, risks in train_family(how, split.train, widths, name, seeds).items():
        for seed, risk in zip(seeds, risks, strict=True):
            row = evaluate_network(how, risk, kind, split, points=seed < SHOWN)
            rows.append({"kind": kind, "depth": depth, "width": width, "seed": seed, **row})
    return pandas.DataFrame(rows)
