"""Linear and convolutional layers whose weights are independent Gaussians: a mean and a variance for each.

The mean is the parameter ``weight`` (``bias``), as in a plain layer; the variance is softplus(``weight_rho``), which no
training step can turn negative. ``forward`` uses the means alone.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from explainlib.checks import require_positive
from explainlib.models.moments import Moments, convolution_moments, linear_moments


def variance_of(rho: Tensor) -> Tensor:
    """Return softplus(rho) = log(1 + exp(rho)), the variance of a parameter rho."""
    return functional.softplus(rho, threshold=40)  # torch's own threshold would make a jump of 2e-9


def rho_of(variance: float) -> float:
    """Return the rho whose softplus is a variance above zero, to float32: one start at every precision."""
    return torch.tensor(variance + math.log(-math.expm1(-variance)), dtype=torch.float32).item()


class GaussianLayer(nn.Module):
    """What both kinds share: parameters made from a plain layer's, and how they are drawn afresh.

    Args:
        layer: the plain layer whose weights become the means; it is not kept.
        initial_variance: of every weight and bias, above zero.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, initial_variance: int | float) -> None:
        super().__init__()
        self.rho = rho_of(require_positive("initial_variance", float(initial_variance)))
        self._draw = type(layer).reset_parameters  # it asks for nothing but ``weight`` and ``bias``
        self.out_features, self.in_features = layer.weight.shape[0], layer.weight[0].numel()
        self.weight = nn.Parameter(layer.weight.detach().clone())
        self.weight_rho = nn.Parameter(torch.full_like(self.weight, self.rho))
        if layer.bias is None:
            self.register_parameter("bias", None)
            self.register_parameter("bias_rho", None)
        else:
            self.bias = nn.Parameter(layer.bias.detach().clone())
            self.bias_rho = nn.Parameter(torch.full_like(self.bias, self.rho))

    def reset_parameters(self) -> None:
        """Draw the means as the plain layer does, and set every variance to its first value."""
        self._draw(self)
        for rho in (self.weight_rho, self.bias_rho):
            if rho is not None:
                nn.init.constant_(rho, self.rho)

    def gaussians(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor] | None]:
        """Return (mean, variance) of the weights, and of the biases or None."""
        bias = None if self.bias is None else (self.bias, variance_of(self.bias_rho))
        return (self.weight, variance_of(self.weight_rho)), bias


def require_certain_weights(model: nn.Module) -> None:
    """Refuse a network with Gaussian layers unless it says that it gives their moments (``gives_moments``).

    Raises:
        TypeError: its forward uses the means alone, so no loss of its outputs ever moves a variance.
    """
    if isinstance(model, nn.Module) and not getattr(model, "gives_moments", False):
        name = next((name for name, part in model.named_modules() if isinstance(part, GaussianLayer)), None)
        if name is not None:
            raise TypeError(
                f"layer {name!r} of the model has Gaussian weights, and a Risk would see their means alone; pass "
                "xl.training.ElboRisk(model, train), whose outputs hold the variances too, or the plain network."
            )


class BayesianLinear(GaussianLayer):
    """y = W x + b with Gaussian W and b."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of the mean weights."""
        return functional.linear(x, self.weight, self.bias)

    def moments(self, mean: Tensor, variance: Tensor | None) -> Moments:
        """Return mean and variance of the outputs."""
        return linear_moments(mean, variance, *self.gaussians())


class BayesianConv2d(GaussianLayer):
    """A convolution with Gaussian kernels and biases."""

    def __init__(self, layer: nn.Conv2d, initial_variance: int | float) -> None:
        super().__init__(layer, initial_variance)
        if layer.padding_mode != "zeros":
            raise ValueError(f"padding_mode={layer.padding_mode!r} is not known to moments; use padding_mode='zeros'.")
        self.stride, self.padding, self.dilation, self.groups = (
            layer.stride, layer.padding, layer.dilation, layer.groups,
        )  # fmt: skip

    def _convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return functional.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of the mean kernels."""
        return self._convolve(x, self.weight, self.bias)

    def moments(self, mean: Tensor, variance: Tensor | None) -> Moments:
        """Return mean and variance of the outputs."""
        return convolution_moments(mean, variance, *self.gaussians(), self._convolve)
