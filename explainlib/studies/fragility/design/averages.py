"""Stochastic weight averaging beside its un-averaged twin: the same epochs at the same rate, the last ones averaged.

    network   trained until its schedule ends
    twin      trained on for as long as the average, at the constant first rate
    average   the mean of the twin's parameters over these epochs

What the average does beyond more training is average minus twin.
"""

from __future__ import annotations

from dataclasses import replace

import pandas
import torch

from explainlib.datasets import load
from explainlib.models import mlp
from explainlib.studies.fragility.bench import (
    L2,
    PLAIN,
    SCHEDULE,
    Training,
    evaluate_network,
    stochastic_weight_average,
)
from explainlib.studies.fragility.design.settings import Averages, Shape
from explainlib.studies.place import placed
from explainlib.training import fit_ensemble, fit_risks

STATES = ("network", "twin", "average")


def evaluate_averages(settings: Averages, shape: Shape, ridge: float) -> pandas.DataFrame:
    """Return a row for each seed and state, judged as in the sweeps: last layer, the paper's removals.

    Args:
        settings: seeds and epochs.
        shape: of the networks.
        ridge: of the objective; without one the truth is training on, and the prediction is damped, as in the paper.
    """
    split, seeds = placed(load("iris").double()), range(settings.seeds)
    widths = [split.train.x.shape[1], *[shape.width] * shape.depth, len(split.train.classes)]
    network = placed(mlp(widths, shape.activation, dtype=torch.float64))
    options = {"epochs": shape.epochs, "lr": shape.lr, "schedule": SCHEDULE, "l2": ridge}
    ensemble = fit_ensemble(network, split.train, seeds=seeds, **options)
    twins = fit_risks(ensemble.risk, starts=ensemble.theta, epochs=settings.epochs, lr=shape.lr)
    means = stochastic_weight_average(ensemble, epochs=settings.epochs, lr=shape.lr)
    kind, rows = (L2 if ridge else PLAIN), []
    how = replace(Training(), epochs=shape.epochs, lr=shape.lr, finetune=shape.finetune, l2=ridge)
    for state, thetas in zip(STATES, (ensemble.theta, twins.theta, means), strict=True):
        for seed, theta in zip(seeds, thetas, strict=True):
            row = evaluate_network(how, ensemble.risk.at(theta), kind, split)
            rows.append({"shape": shape.name, "ridge": ridge, "state": state, "seed": seed, **row})
    return pandas.DataFrame(rows)
