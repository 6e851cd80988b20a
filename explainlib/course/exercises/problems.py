"""The small problems of the notebooks, solved once when the first exercise on them is checked."""

from __future__ import annotations

import functools

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.datasets import Examples, Split, load
from explainlib.influence import loss_influence
from explainlib.models import logistic, mlp
from explainlib.risk import Risk
from explainlib.training import minimise


@functools.cache
def digits() -> Split:
    """Return the 1,500 training and 297 test digits in float64."""
    return load("digits").double()


@functools.cache
def digits_risk() -> Risk:
    """Return softmax regression on the digits at its minimum, ridge 0.01: notebooks 00 to 02."""
    return minimise(Risk(logistic(64, 10, dtype=torch.float64), digits().train, l2=1e-2))


@functools.cache
def misread_influence() -> Float[Tensor, " n"]:
    """Return the influence of every training digit on the loss of test digit 96: notebook 00."""
    return loss_influence(digits_risk(), misread())[0]


def misread() -> Examples:
    """Return test digit 96, a 1 that is read as a 9."""
    return digits().test[[96]]


def of_class(label: int) -> Int[Tensor, " k"]:
    """Return the positions of the training digits of one class."""
    return (digits().train.y == label).nonzero()[:, 0]


@functools.cache
def one_hot_risk() -> Risk:
    """Return least squares on the one-hot classes of the digits at its minimum, ridge 0.01: notebooks 01 and 02."""
    targets = torch.nn.functional.one_hot(digits().train.y, 10).double()
    data = Examples(digits().train.x, targets)
    return minimise(Risk(logistic(64, 10, dtype=torch.float64), data, loss="squared_error", l2=1e-2))


@functools.cache
def iris_risk() -> Risk:
    """Return the iris network of notebook 03 at its minimum, ridge 0.005, all 43 parameters."""
    train = load("iris").double().train
    return minimise(Risk(mlp([4, 5, 3], "tanh", dtype=torch.float64), train, l2=5e-3))


@functools.cache
def iris_last() -> Risk:
    """Return the same minimum as a problem of the last layer's 18 parameters."""
    whole = iris_risk()
    return Risk(whole.model, whole.train, l2=5e-3, parameters="last")


@functools.cache
def iris_worst() -> Examples:
    """Return the test flower of highest loss: notebook 03."""
    test = load("iris").double().test
    return test[[int(iris_risk().losses(test).argmax())]]
