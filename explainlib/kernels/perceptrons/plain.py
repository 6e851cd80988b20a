"""Small perceptrons trained by plain PyTorch: what the fused kernel has to equal, and what runs in its place."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from explainlib.kernels.perceptrons.options import Options

ACTIVATIONS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid, "selu": torch.selu}
SMALLEST_CHANGE = 1e-8  # of a rate, as torch.optim.lr_scheduler.ReduceLROnPlateau


def outputs(
    x: Float[Tensor, "n d"], theta: Float[Tensor, "m p"], widths: tuple[int, ...], activation: str
) -> Float[Tensor, "m n c"]:
    """Return the outputs of m perceptrons.

    Args:
        x: examples.
        theta: their parameters, W [out, in] and then b [out], layer by layer.
        widths: of the inputs, hidden layers and outputs.
        activation: a key of ``ACTIVATIONS``, after every layer but the last.
    """
    start, a = 0, x.expand(len(theta), *x.shape)
    for k in range(len(widths) - 1):
        if k:
            a = ACTIVATIONS[activation](a)
        size = widths[k] * widths[k + 1]
        w = theta[:, start : start + size].unflatten(1, (widths[k + 1], widths[k]))
        start += size + widths[k + 1]
        a = torch.baddbmm(theta[:, None, start - widths[k + 1] : start], a, w.mT)
    return a


def trained(
    x: Float[Tensor, "n d"],
    y: Int[Tensor, " n"],
    weights: Float[Tensor, "m n"],
    starts: Float[Tensor, "m p"],
    options: Options,
) -> Float[Tensor, "m p"]:
    """Return the trained parameters of all networks; arguments as in ``trained_perceptrons``."""
    widths, activation, epochs, lr, optimizer, l2, plateau, batches = options
    theta = starts.detach().clone().requires_grad_()
    stepper = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer]([theta], lr=1.0)
    rates = starts.new_full((len(starts), 1), lr)
    best, idle = torch.full_like(rates, torch.inf), torch.zeros_like(rates)
    rows = torch.arange(len(x), device=x.device)[None] if batches is None else batches
    for step in range(epochs * len(rows)):
        row = rows[step % len(rows)]
        z = outputs(x[row], theta, widths, activation)
        losses = cross_entropy(z.flatten(0, 1), y[row].repeat(len(theta)), reduction="none").view(len(theta), -1)
        values = (weights[:, row] * losses).sum(1, keepdim=True) / len(row) + l2 / 2 * theta.square().sum(1, True)
        if plateau is not None and step:
            factor, patience, threshold, least = plateau
            better = values < best * (1 - threshold)
            best, idle = torch.where(better, values.detach(), best), torch.where(better, 0.0, idle + 1)
            lower = (rates * factor).clamp(min=least)
            rates = torch.where((idle > patience) & (rates - lower > SMALLEST_CHANGE), lower, rates)
            idle = torch.where(idle > patience, 0.0, idle)
        (theta.grad,) = torch.autograd.grad(values.sum(), theta)
        before = theta.detach().clone()
        stepper.step()  # at rate 1; each network has its own
        theta.data = before + rates * (theta.detach() - before)
    return theta.detach()
