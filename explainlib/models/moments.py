"""Means and variances on their way through a network: two numbers for each unit, all units independent.

    linear    mu_y = mu_w^T mu_a + mu_b          var_y = var_w var_a + mu_w^2 var_a + mu_a^2 var_w + var_b     (exact)
    a = f(z)  mu_a = f(mu_z)                     var_a = var_z f'(mu_z)^2                               (first order)

The two moments of a linear map of independent numbers are exact; a nonlinear one is replaced by its tangent at the
mean. ``None`` as a variance means that the input is known. Every function takes leading dimensions, so that a whole
ensemble of networks goes through at once.

Source: Epifano et al., eqs (6)-(14), after Dera et al. 2019; covariances are dropped, as there.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from explainlib import kernels
from explainlib.checks import require_tensor
from explainlib.kernels.moments import plain

Moments = tuple[Tensor, Tensor | None]
SELU_ALPHA, SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946


def linear_moments(
    mean: Float[Tensor, "... n d"],
    variance: Float[Tensor, "... n d"] | None,
    weight: tuple[Float[Tensor, "... o d"], Float[Tensor, "... o d"]],
    bias: tuple[Float[Tensor, "... o"], Float[Tensor, "... o"]] | None,
) -> Moments:
    """Return the moments of a linear layer's outputs [..., n, o]; weights and inputs are independent.

    Args:
        mean: of the inputs.
        variance: of the inputs, or None where they are known.
        weight: mean and variance of the weights; a leading dimension is over networks.
        bias: mean and variance of the biases, or None.
    """
    if mean.is_cuda or "explainlib.kernels.choice" in sys.modules:  # Triton is imported only where it may be of use
        return kernels.linear_moments(mean, variance, weight, bias)
    return plain.linear_moments(mean, variance, weight, bias)  # eqs (6), (7) and (12)


def convolution_moments(
    mean: Float[Tensor, "n c h w"],
    variance: Float[Tensor, "n c h w"] | None,
    weight: tuple[Float[Tensor, "o i kh kw"], Float[Tensor, "o i kh kw"]],
    bias: tuple[Float[Tensor, " o"], Float[Tensor, " o"]] | None,
    convolve: Callable[[Tensor, Tensor, Tensor | None], Tensor],
) -> Moments:
    """Return the moments of a convolution's outputs: eqs (6), (7) and (12) at every position.

    Args:
        mean: of the inputs.
        variance: of the inputs, or None where they are known.
        weight: mean and variance of the kernels.
        bias: mean and variance of the biases, or None.
        convolve: (inputs, kernels, biases or None) -> outputs, with the layer's stride and padding.
    """
    (mu_w, var_w), (mu_b, var_b) = weight, bias or (None, None)
    mu_y, var_y = convolve(mean, mu_w, mu_b), convolve(mean.square(), var_w, var_b)
    if variance is not None:
        var_y = var_y + convolve(variance, var_w + mu_w.square(), None)
    return mu_y, var_y


def elementwise_moments(layer: nn.Module, mean: Tensor, variance: Tensor | None) -> Moments:
    """Return the moments after an activation of ``DERIVATIVES``, eqs (9) and (10)."""
    if variance is None:
        return layer(mean), None
    return layer(mean), variance * DERIVATIVES[type(layer)](mean).square()


def _selu_slope(z: Tensor) -> Tensor:
    return SELU_SCALE * torch.where(z > 0, torch.ones_like(z), SELU_ALPHA * z.clamp(max=0).exp())


def _gelu_slope(z: Tensor) -> Tensor:
    return (1 + torch.erf(z / math.sqrt(2))) / 2 + z * torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)


DERIVATIVES: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {
    nn.ReLU: lambda z: (z > 0).to(z.dtype),
    nn.SELU: _selu_slope,
    nn.Sigmoid: lambda z: z.sigmoid() * (1 - z.sigmoid()),
    nn.Tanh: lambda z: 1 - z.tanh().square(),
    nn.GELU: _gelu_slope,
}


def max_pool_moments(layer: nn.MaxPool2d, mean: Tensor, variance: Tensor | None) -> Moments:
    """Return the moments of the unit whose mean is largest in each window."""
    if variance is None:
        return layer(mean), None
    largest, where = functional.max_pool2d(
        mean, layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.ceil_mode, return_indices=True
    )
    chosen = variance.flatten(-2).gather(-1, where.flatten(-2))
    return largest, chosen.view(largest.shape)


def mean_pool_moments(layer: nn.AvgPool2d, mean: Tensor, variance: Tensor | None) -> Moments:
    """Return the moments of each window's mean; k independent units leave 1/k of their mean variance."""
    if variance is None:
        return layer(mean), None
    size = layer.kernel_size
    units = size * size if isinstance(size, int) else math.prod(size)
    return layer(mean), layer(variance) / units


def softmax_moments(mean: Float[Tensor, "*n C"], variance: Float[Tensor, "*n C"]) -> tuple[Tensor, Tensor]:
    """Return mean and variance of softmax(f) to first order: p, and sum_j J_ij^2 var_j with J = diag(p) - p p^T.

    Source: Epifano et al., eqs (13) and (14). Deviation: eq. (14) keeps the diagonal of J alone, and prints it with the
    mean of the logits where p has to stand; the whole Jacobian is used here.
    """
    p = mean.softmax(-1)
    jacobian = torch.diag_embed(p) - p[..., :, None] * p[..., None, :]
    return p, (jacobian.square() @ variance[..., None])[..., 0]  # eq. (14), whole


def gaussian_kl(mean: Tensor, variance: Tensor, prior_variance: int | float = 1.0) -> Float[Tensor, "*m"]:
    """Return KL(N(mean, variance) || N(0, prior_variance)), summed over the last dimension.

    Source: Epifano et al., eq. (5), third term. Deviation: there it stands without its constant and with the sign of
    the bound next to two terms with the sign of a cost; here it is the divergence, >= 0.
    """
    ratio = variance / prior_variance
    return (ratio + mean.square() / prior_variance - 1 - ratio.log()).sum(-1) / 2


def require_variance(name: str, variance: Tensor) -> Tensor:
    """Return ``variance`` if every entry is finite and at least zero.

    Raises:
        TypeError: not a tensor.
        ValueError: NaN, infinity, or an entry below zero, with the first such place.
    """
    require_tensor(name, variance)
    bad = ~((variance >= 0) & torch.isfinite(variance))
    if bad.any():
        first = bad.nonzero()[0].tolist()
        raise ValueError(
            f"{name} is {float(variance[tuple(first)]):.3g} at {first}, and a variance has to be finite and zero or "
            "more; pass variances (squares of standard deviations, not their logarithms)."
        )
    return variance
