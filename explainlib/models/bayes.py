"""Bayesian networks by moment propagation: every weight a Gaussian, every output a mean and a variance.

A plain network becomes a Bayesian one layer by layer, its weights the first means. Called like any module it gives the
mean logits, which are the plain network's at the mean weights. ``training.ElboRisk`` explains it, variances included;
``Risk`` refuses it.

    means and variances in  ->  ``moments``  ->  mean and variance of the logits
    KL(q || p)              ->  ``kl``           what training pays for leaving the prior N(0, prior_variance)
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from explainlib.checks import require_positive
from explainlib.models.bayes_layers import BayesianConv2d, BayesianLinear, GaussianLayer
from explainlib.models.lenet import lenet
from explainlib.models.mlp import mlp
from explainlib.models.moments import (
    DERIVATIVES,
    Moments,
    elementwise_moments,
    gaussian_kl,
    max_pool_moments,
    mean_pool_moments,
    require_variance,
    softmax_moments,
)
from explainlib.models.vgg13 import HeConv2d, vgg13

GAUSSIAN = {nn.Linear: BayesianLinear, nn.Conv2d: BayesianConv2d, HeConv2d: BayesianConv2d}
RESHAPING = (nn.Flatten, nn.Identity)


class Bayesian(nn.Sequential):
    """A chain of Gaussian layers, activations and poolings; made by ``bayesian`` or its builders.

    ``forward(x)`` gives the mean logits [n, C]. ``named_parameters`` holds ``weight`` and ``bias``, the means, and
    ``weight_rho`` and ``bias_rho``, whose softplus are the variances.
    """

    def moments(self, x: Tensor, variance: Tensor | None = None) -> tuple[Float[Tensor, "n C"], Float[Tensor, "n C"]]:
        """Return mean and variance of the logits, both [n, C].

        Args:
            x: the inputs [n, ...], or their means.
            variance: of the inputs, of x's shape; None where they are known.

        Raises:
            ValueError: a variance below zero, NaN or of another shape.
        """
        if variance is not None:
            require_variance("variance", variance)
            if variance.shape != x.shape:
                raise ValueError(
                    f"variance has shape {list(variance.shape)}, x {list(x.shape)}; pass one variance for each number."
                )
        mean, spread = self.propagated(x, variance)
        return mean, require_variance("the variance of the outputs", spread)

    def propagated(self, x: Tensor, variance: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return what ``moments`` does, without its checks: for torch.func, which cannot look at values."""
        moments: Moments = (x, variance)
        for layer in self:
            moments = layer_moments(layer, *moments)
        return moments

    def probabilities(self, x: Tensor) -> tuple[Float[Tensor, "n C"], Float[Tensor, "n C"]]:
        """Return mean and variance of the class probabilities, both [n, C] (eqs (13) and (14))."""
        return softmax_moments(*self.moments(x))

    def kl(self, prior_variance: int | float = 1.0) -> Float[Tensor, ""]:
        """Return KL(q || p) of all weights and biases, p = N(0, prior_variance) for each.

        Raises:
            ValueError: a prior variance that is not above zero.
        """
        require_positive("prior_variance", float(prior_variance))
        parts = [pair for layer in self if isinstance(layer, GaussianLayer) for pair in layer.gaussians() if pair]
        return sum(gaussian_kl(mean.flatten(), variance.flatten(), prior_variance) for mean, variance in parts)

    def last_names(self) -> tuple[str, ...]:
        """Return the parameter names of the last Gaussian layer: what "last" means for this network."""
        name, layer = [(name, layer) for name, layer in self.named_children() if isinstance(layer, GaussianLayer)][-1]
        return tuple(f"{name}.{parameter}" for parameter, _ in layer.named_parameters())


def layer_moments(layer: nn.Module, mean: Tensor, variance: Tensor | None) -> Moments:
    """Return mean and variance behind one layer.

    Args:
        layer: one that ``bayesian`` accepts.
        mean: before it.
        variance: before it, None where the input is known.
    """
    if isinstance(layer, GaussianLayer):
        return layer.moments(mean, variance)
    if isinstance(layer, RESHAPING):
        return layer(mean), None if variance is None else layer(variance)
    if isinstance(layer, nn.MaxPool2d):
        return max_pool_moments(layer, mean, variance)
    if isinstance(layer, nn.AvgPool2d):
        return mean_pool_moments(layer, mean, variance)
    return elementwise_moments(layer, mean, variance)


def bayesian(plain: nn.Sequential, *, initial_variance: int | float = 0.01) -> Bayesian:
    """Return the Bayesian network whose first means are a plain chain's weights, trainable like it.

    Args:
        plain: an ``nn.Sequential`` of linear layers, convolutions, activations (ReLU, SELU, sigmoid, tanh, GELU), max
            and mean pooling without padding, and flattening. It stays as it is.
        initial_variance: of every weight and bias, above zero. Training moves it.

    Raises:
        TypeError: not a chain, or a layer whose moments are not known.
        ValueError: nothing to put a Gaussian on, or a variance that is not above zero.

    Source: Epifano et al., section 2.4, with every weight its own variance.

    Example: at the mean weights it is the plain network.

        >>> plain = mlp([4, 5, 3])
        >>> torch.equal(bayesian(plain)(torch.ones(2, 4)), plain(torch.ones(2, 4)))
        True
    """
    if not isinstance(plain, nn.Sequential):
        raise TypeError(f"plain is a {type(plain).__name__}; moments go through an nn.Sequential of known layers.")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, layer in plain.named_children():
        if type(layer) in GAUSSIAN:
            layers[name] = GAUSSIAN[type(layer)](layer, initial_variance)
        else:
            layers[name] = _passive(name, layer)
    if not any(isinstance(layer, GaussianLayer) for layer in layers.values()):
        raise ValueError("plain has no linear or convolutional layer, so there is no weight to be uncertain about.")
    return Bayesian(layers)


def _passive(name: str, layer: nn.Module) -> nn.Module:
    """Return a fresh layer of the same kind if its moments are known."""
    fixed = isinstance(layer, nn.AvgPool2d) and (layer.padding not in (0, (0, 0)) or layer.ceil_mode)
    if isinstance(layer, nn.GELU) and layer.approximate != "none":
        fixed = True
    known = (*DERIVATIVES, *RESHAPING, nn.MaxPool2d, nn.AvgPool2d)
    if type(layer) not in known or fixed:
        names = ", ".join(sorted(kind.__name__ for kind in (*GAUSSIAN, *known) if kind is not HeConv2d))
        raise TypeError(
            f"layer {name!r}, {layer}, has no rule for moments; use {names} (mean pooling without padding, exact GELU)."
        )
    return copy.deepcopy(layer)


def bayesian_mlp(
    widths: Sequence[int],
    activation: str = "relu",
    *,
    initial_variance: int | float = 0.01,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Bayesian:
    """Return ``mlp`` with Gaussian weights: twice its parameters, its weights of that seed as first means.

    Args:
        widths: features, hidden widths and outputs.
        activation: "relu", "selu", "sigmoid", "tanh" or "gelu".
        initial_variance: of every weight and bias.
        seed: of the first means.
        dtype: floating point; None is torch's current default.
        device: None is torch's current default.

    Raises:
        ValueError: as ``mlp``, or a variance that is not above zero.
    """
    return bayesian(mlp(widths, activation, seed=seed, dtype=dtype, device=device), initial_variance=initial_variance)


def bayesian_lenet(
    channels_in: int,
    C: int,
    *,
    side: int = 28,
    initial_variance: int | float = 0.01,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Bayesian:
    """Return ``lenet`` with Gaussian weights; see ``lenet`` and ``bayesian_mlp`` for the arguments."""
    plain = lenet(channels_in, C, side=side, seed=seed, dtype=dtype, device=device)
    return bayesian(plain, initial_variance=initial_variance)


def bayesian_vgg13(
    channels_in: int,
    C: int,
    *,
    width: int = 64,
    initial_variance: int | float = 1e-4,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Bayesian:
    """Return ``vgg13`` with Gaussian weights; see ``vgg13`` and ``bayesian_mlp`` for the arguments.

    The first variance is smaller than elsewhere: a layer with thousands of inputs multiplies it by their number.
    """
    plain = vgg13(channels_in, C, width=width, seed=seed, dtype=dtype, device=device)
    return bayesian(plain, initial_variance=initial_variance)
