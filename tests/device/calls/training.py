"""Rows: minima, training of one network and of ensembles, Bayesian networks."""

from __future__ import annotations

import pytest
import torch

import explainlib as xl
from explainlib import models, training
from tests.device.calls.problems import D, normal, risk
from tests.device.table import call
from tests.problems import classes, images

SELU = {"epochs": 3, "lr": 0.05}


@call("training.minimise", "training.Minima")
def minima(device):
    found = []
    for kind in ("softmax", "fitted", "ridge"):
        r = risk(device, kind)
        weights = torch.ones(2, r.n, dtype=D, device=device)
        weights[0, 0] = 0.0
        found += [training.minimise(r), training.minimise(r, weights=weights, tolerance=1e-8)]
    return found, training.minimise(risk(device), weights=torch.ones(20, dtype=D).to(device)).theta


@call("training.fit", "training.Trajectory", "training.Trajectory.state")
def fitted(device):
    model, train = models.mlp([3, 4, 3], "tanh", dtype=D, device=device), classes(12).to(device)
    found = []
    for options in (
        {},
        {"swa": 1, "batch_size": 4},
        {"without": [1, 2], "checkpoints": 2},
        {"optimizer": "sgd", "record": True},
    ):
        path = training.fit(model, train, **{**SELU, **options})
        found += [path.model, path.checkpoints, path.learning_rates, path.batches, path.losses, path.importance]
    wrapped = training.Trajectory(model, path.checkpoints, path.learning_rates)
    norm = training.fit(models.fc_bn(3, 3, hidden=3, dtype=D, device=device), train, checkpoints=2, **SELU)
    return found, wrapped, training.fit(model, train, checkpoints=3, **SELU).state(1), norm.state(1)


@call("training.fit_ensemble", "training.fit_risks", "training.fresh_starts", "training.Ensemble", "training.Plateau")
def ensembles(device):
    r, train = risk(device, "network"), classes(12).to(device)
    starts = training.fresh_starts(r, [0, 1])
    weights = torch.ones(2, 12, dtype=D, device=device)
    first = training.fit_ensemble(r.model, train, starts=starts, weights=weights, **SELU)
    seeded = training.fit_ensemble(r.model, train, seeds=[3, 4], schedule=training.Plateau(0.5, 1), **SELU)
    return starts, first, seeded, training.fit_risks(r, starts=starts, optimizer="sgd", **SELU)


@call("training.Plateau.watch")
def plateau(device):
    rates = torch.full((2,), 0.1, dtype=D, device=device)
    watch = training.Plateau(0.5, 0).watch(rates)
    for loss in (1.0, 2.0, 3.0):
        watch.update(torch.full((2,), loss, dtype=D, device=device))
    return watch.rates


def bound(device, **options):
    return training.ElboRisk(
        models.bayesian_mlp([3, 4, 3], "tanh", dtype=D, device=device), classes(12).to(device), **options
    )


@call("training.ElboRisk", "training.ElboRisk.model", "training.ElboRisk.kl", "training.ElboRisk.named", "training.ElboRisk.objectives", "training.ElboRisk.parts", "training.ElboRisk.weighted_value")  # fmt: skip
def elbo(device):
    found = []
    for loss in ("sampled_cross_entropy", "expected_cross_entropy", "gaussian"):
        r = bound(device, loss=loss)
        with pytest.raises(ValueError, match="divergence"):
            r.parts()
        found += [r.value(), r.gradient(), r.kl(), r.model, [f(r.theta) for f in r.objectives()]]
        found += [r.weighted_value(r.theta, r.weights_or_ones()), list(r.named(r.theta)), xl.curvature.hessian(r)]
    return found, xl.influence.loss_influence(bound(device), classes(3).to(device), damping=0.5)


@call("training.fit_variational", "training.fit_variational_ensemble")
def variational(device):
    r = bound(device)
    path = training.fit_variational(r.model, r.train, batch_size=5, checkpoints=2, swa=1, **SELU)
    single = training.fit_variational_ensemble(r, seeds=[0, 1], **SELU)
    return (
        path,
        single.theta,
        training.fit_variational_ensemble(r, starts=normal(2, r.p).to(device) * 0.1, **SELU).theta,
    )


@call("models.Bayesian", "models.Bayesian.moments", "models.Bayesian.propagated", "models.Bayesian.probabilities", "models.Bayesian.kl", "models.Bayesian.last_names", "models.bayesian", "models.bayesian_mlp", "models.bayesian_lenet", "models.bayesian_vgg13")  # fmt: skip
def bayesian(device):
    net, x = models.bayesian_mlp([3, 4, 3], dtype=D, device=device), classes(4).to(device).x
    lenet = models.bayesian_lenet(1, 3, side=28, dtype=D, device=device)
    picture = normal(2, 1, 28, 28).to(device)
    plain = models.bayesian(models.mlp([3, 4, 3], dtype=D, device=device))
    small = models.bayesian_vgg13(3, 2, width=2, dtype=D, device=device)
    found = [
        net.moments(x),
        net.moments(x, x.square()),
        net.propagated(x),
        net.probabilities(x),
        net.kl(),
        net.last_names(),
    ]
    return found, lenet.moments(picture), plain.moments(x), small


@call("models.logistic", "models.mlp", "models.cnn2", "models.cnn3", "models.cnn4", "models.fc_bn", "models.lenet", "models.vgg13", "models.text_cnn")  # fmt: skip
def networks(device):
    at, picture = {"dtype": D, "device": device}, normal(2, 1, 28, 28).to(device)
    plain = [models.logistic(3, 2, **at), models.mlp([3, 4, 2], **at), models.fc_bn(3, 2, hidden=4, **at).eval()]
    seeing = [
        models.cnn2(1, 3, **at),
        models.cnn3(1, 3, **at),
        models.cnn4(1, 28, 3, filters=2, **at).eval(),
        models.lenet(1, 3, **at),
    ]
    reading = models.text_cnn(20, 2, dim=4, filters=3, **at)
    words = torch.arange(12).reshape(2, 6).to(device)
    found = [m(classes(4).to(device).x) for m in plain] + [m(picture) for m in seeing]
    return found, reading(words), models.vgg13(3, 2, width=2, **at), images(2).to(device).x
