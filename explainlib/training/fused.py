"""Ensembles of small perceptrons on a GPU: handed to the kernel that trains each of them in one launch."""

from __future__ import annotations

import sys
from dataclasses import astuple

from jaxtyping import Float
from torch import Tensor, nn

from explainlib.losses import CROSS_ENTROPY
from explainlib.training.stacked import ACTIVATIONS, Stacked, StackedPerceptrons
from explainlib.training.steps import Plateau

NAMES = {
    id(ACTIVATIONS[kind]): name
    for kind, name in ((nn.ReLU, "relu"), (nn.Tanh, "tanh"), (nn.Sigmoid, "sigmoid"), (nn.SELU, "selu"))
}


def fused_training(
    networks: Stacked,
    starts: Float[Tensor, "m p"],
    *,
    epochs: int,
    lr: float,
    optimizer: str,
    schedule: Plateau | None,
) -> Float[Tensor, "m p"] | None:
    """Return the trained parameters where the kernel trains such networks here; else None.

    Args:
        networks: their objective.
        starts: initial parameters.
        epochs: full-batch steps.
        lr: learning rate.
        optimizer: "adam" or "sgd".
        schedule: None, or a ``Plateau``.
    """
    if not starts.is_cuda and "triton" not in sys.modules:  # on the CPU Triton is not imported for this question
        return None
    if type(networks) is not StackedPerceptrons or networks.risk.loss is not CROSS_ENTROPY:
        return None
    names = {NAMES.get(id(activation)) for activation in networks.layers.activations}
    if len(names) != 1 or None in names or not all(networks.biased):
        return None
    from explainlib.kernels.perceptrons import fits_kernel, trained_perceptrons

    linear = networks.layers.linear
    widths, (name,) = (linear[0].in_features, *(layer.out_features for layer in linear)), names
    if not fits_kernel(widths, name, starts):
        return None
    x, y = networks.risk.train.x.flatten(1), networks.risk.train.y
    plateau = None if schedule is None else astuple(schedule)
    options = {"epochs": epochs, "lr": lr, "optimizer": optimizer, "l2": networks.risk.l2, "plateau": plateau}
    return trained_perceptrons(x, y, networks.weights, starts, widths=widths, activation=name, **options)
