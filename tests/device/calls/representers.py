"""Rows: representers and metrics."""

from __future__ import annotations

import torch

import explainlib as xl
from explainlib import influence, metrics, representers
from explainlib.representers import axioms
from tests.device.calls.problems import D, normal, risk, test, trajectory
from tests.device.table import call


def gram(device):
    x = normal(10, 3)
    return (x @ x.T + 0.5 * torch.eye(10, dtype=D)).to(device)


@call("representers.kernel", "representers.representer_scores", "representers.gradient_cosine")
def kernels(device):
    r, t, found = risk(device, "fitted"), test(device), []
    for kind in ("last_layer", "ntk", "influence"):
        for output in (None, 1, "each", "cross"):
            given = {"risk": r, "damping": 0.1} if kind == "influence" else {}
            found.append(representers.kernel(r.model, t.x, r.train.x, kind=kind, output=output, **given))
    alpha = normal(12, 3).to(device)
    scores = [representers.representer_scores(alpha, k, output=1) for k in found if k.ndim != 3 or k.shape[2] == 3]
    return found, scores, representers.gradient_cosine(r, t)


@call("representers.target_importance", "representers.surrogate_importance", "representers.tracking_importance", "representers.descent_importance", "representers.null_weights", "representers.representer_points", "representers.surrogate_points")  # fmt: skip
def importances(device):
    r, t, K, f = risk(device), test(device), gram(device), normal(10, 3, seed=4).to(device)
    found = [representers.target_importance(r), representers.tracking_importance(trajectory(device))]
    for loss in ("cross_entropy", "squared_error"):
        found.append(representers.surrogate_importance(K, f, loss=loss, l2=0.1))
        found.append(representers.descent_importance(K, f, loss=loss, lr=0.05, epochs=2, batch_size=4))
    found.append(representers.null_weights(K - K.diagonal().min() * 0 - 0.5 * torch.eye(10, dtype=D, device=device)))
    return found, representers.representer_points(r, t, output=1), representers.surrogate_points(r, t, output=1)


@call("representers.representer_factors", "representers.RepresenterFactors", "representers.axioms.table", "representers.axioms.efficiency", "representers.axioms.self_explanation", "representers.axioms.symmetric_zero", "representers.axioms.symmetric_cycle", "representers.axioms.irreducibility", "representers.axioms.continuity")  # fmt: skip
def factors(device):
    K = gram(device)
    alpha = normal(10, seed=2).to(device)
    within, between = alpha * K, alpha * K[:3]
    outputs = between.sum(1)
    each = axioms.efficiency(between, outputs), axioms.self_explanation(within, between), axioms.symmetric_zero(within)
    more = axioms.symmetric_cycle(within), axioms.irreducibility(within)
    path = axioms.continuity(lambda x: x @ K, K[0], K[1])
    return representers.representer_factors(within, between), axioms.table(within, between, outputs), each, more, path


@call("representers.random_scores", host="it has no input whose device it could follow")
def random_scores(device):
    return representers.random_scores(3, 5)


@call("metrics.fidelity", "metrics.Fidelity", "metrics.LossChange.loss_change", "metrics.Estimate")
def fidelity(device):
    r, t = risk(device), test(device)
    predicted = influence.removal_effect(r, [[0, 1], [2, 3], [4]])
    true = xl.retraining.leave_out(r, [[0, 1], [2, 3], [4]])
    tables = predicted.loss_change(t), true.loss_change(t)
    random = representers.random_scores(*tables[1].shape)
    return metrics.fidelity(predicted, true, test=t), metrics.fidelity(*tables), metrics.fidelity(random, tables[1])


@call("metrics.average_ranks", "metrics.clustered_mean", "metrics.curve_intervals", "metrics.paired_difference", "metrics.self_rank", "metrics.proper_order", "metrics.ProperOrder")  # fmt: skip
def tables(device):
    a, b = normal(4, 6).to(device), normal(4, 6, seed=1).to(device)
    regular = torch.tensor([True, True, True, False, False, False]).to(device)
    order = metrics.proper_order(a, regular)
    own = metrics.self_rank(a, torch.tensor([0, 1, 2, 3]).to(device)), metrics.self_rank(normal(5, 5).to(device))
    changes = normal(3, 4, 5).to(device)
    means = metrics.clustered_mean(a), metrics.paired_difference(a, b), metrics.curve_intervals(changes)
    return metrics.average_ranks(a), means, own, order


@call("metrics.deletion_auc", "metrics.deletion_curve", "metrics.deletion_groups", "metrics.retrained_changes")
def deletion(device):
    r, t = risk(device), test(device, 2)
    scores = influence.loss_influence(r, t)
    groups = metrics.deletion_groups(scores, shares=(0.0, 0.1, 0.2))
    truth = metrics.retrained_changes(r, t, groups, output=[0, 1], method="newton")
    fresh = metrics.retrained_changes(r, t, groups, method="scratch", epochs=2)
    curve = metrics.deletion_curve(scores, truth, shares=(0.0, 0.1, 0.2))
    asked = metrics.deletion_curve(
        scores, lambda g: metrics.retrained_changes(r, t, g, method="newton"), shares=(0.0, 0.1)
    )
    return groups, truth, fresh, curve, asked, metrics.deletion_auc(scores, truth, shares=(0.0, 0.1, 0.2))


@call("metrics.detection_curve", "metrics.mislabel_auc", "metrics.linear_datamodeling_score")
def labels(device):
    scores = normal(8).to(device)
    wrong = torch.arange(8).to(device) % 3 == 0
    subsets = [[0, 1, 2], [3, 4], [5, 6, 7, 0]]
    lds = metrics.linear_datamodeling_score(normal(2, 8).to(device), subsets, normal(3, 2).to(device))
    return metrics.detection_curve(scores, wrong), metrics.mislabel_auc(scores, wrong), lds
