"""Retraining curves of several networks: how often the loss of the worst test turns round on its way."""

from __future__ import annotations

import pandas
import torch

from explainlib.datasets import load
from explainlib.models import mlp
from explainlib.studies.fragility.bench import L2, Training, train_family
from explainlib.studies.fragility.design.images import BATCH, RATE, RIDGE
from explainlib.studies.fragility.parts import curves, jumps
from explainlib.studies.place import placed
from explainlib.training import fit

FULL = "full batches"


def evaluate_curves(data: str, seed: int, removed: int, epochs: int, *, full: bool = False) -> pandas.DataFrame:
    """Return one row: the restlessness of a network's retraining curves (see ``parts.jumps``).

    Args:
        data: "iris", full batches, a perceptron of width 5 with the ridge; or images, batches of 50 and 128 units.
        seed: of network and batches.
        removed: curves.
        epochs: of each.
        full: retrain on full batches for as many epochs, the control.
    """
    if data == "iris":
        split, how = placed(load("iris").double()), Training()
        risk = train_family(how, split.train, [4, 5, 3], L2, [seed])[L2][0]
        options = {"batch_size": None, "epochs": epochs, "l2": how.l2}
        table = curves(risk.model, split, data, removed=removed, **options)
    else:
        split = placed(load(data, limit=500).double())
        classes = len(split.train.classes)
        first = placed(mlp([split.train.x[0].numel(), 128, classes], "relu", seed=seed, dtype=torch.float64))
        options = {"batch_size": BATCH, "lr": RATE, "weight_decay": RIDGE, "seed": seed}
        first = fit(first, split.train, epochs=30, **options).model
        options = {"batch_size": None if full else BATCH, "epochs": epochs, "l2": RIDGE, "removed": removed}
        table = curves(first, split, f"{data}, {FULL}" if full else data, **options)
    return jumps(table).assign(seed=seed)
