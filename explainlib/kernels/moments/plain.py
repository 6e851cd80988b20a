"""Moments of a linear layer with Gaussian weights in plain PyTorch: what the kernel has to equal, and its derivatives.

    mu_y = W mu_x + mu_b          var_y = S var_x + W^2 var_x + S mu_x^2 + var_b

with W and S, mean and variance of the weights.

Source: Epifano et al., eqs (6), (7) and (12), after Dera et al. 2019; covariances are dropped, as there.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

Moments = tuple[Tensor, Tensor | None]


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
    mu_w, var_w = (part.mT for part in weight)
    mu_y, var_y = mean @ mu_w, mean.square() @ var_w  # eqs (6), (7)
    if variance is not None:
        var_y = var_y + variance @ (var_w + mu_w.square())  # eq. (12)
    if bias is None:
        return mu_y, var_y
    return mu_y + bias[0][..., None, :], var_y + bias[1][..., None, :]


def tangents(given: tuple[Tensor | None, ...], moved: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor]:
    """Return the tangents of both moments, [b, n, o] each.

    Args:
        given: mean, variance, weight mean, weight variance, bias mean, bias variance; None where there is none.
        moved: the tangent of each, None where it does not move.
    """
    mean, variance, weight, spread, _, _ = given
    mean_, variance_, weight_, spread_, bias_, bias_spread_ = moved
    of_mean, of_variance = [], []
    if mean_ is not None:
        of_mean.append(mean_ @ weight.mT)
        of_variance.append(2 * (mean * mean_) @ spread.mT)
    if weight_ is not None:
        of_mean.append(mean @ weight_.mT)
        if variance is not None:
            of_variance.append(2 * variance @ (weight * weight_).mT)
    if variance_ is not None:
        of_variance.append(variance_ @ (spread + weight.square()).mT)
    if spread_ is not None:
        of_variance.append((mean.square() if variance is None else mean.square() + variance) @ spread_.mT)
    if bias_ is not None:
        of_mean.append(bias_[..., None, :])
    if bias_spread_ is not None:
        of_variance.append(bias_spread_[..., None, :])
    zero = mean.new_zeros(()).expand(*mean.shape[:-1], weight.shape[-2])
    return sum(of_mean, zero), sum(of_variance, zero)


def cotangents(given: tuple[Tensor | None, ...], of_mean: Tensor, of_variance: Tensor) -> tuple[Tensor | None, ...]:
    """Return the cotangents of the six arguments; differentiable again.

    Args:
        given: as in ``tangents``.
        of_mean: cotangent of the means [b, n, o].
        of_variance: of the variances.
    """
    mean, variance, weight, spread, bias, bias_spread = given
    second = mean.square() if variance is None else mean.square() + variance
    own = of_mean.mT @ mean
    return (
        of_mean @ weight + 2 * mean * (of_variance @ spread),
        None if variance is None else of_variance @ (spread + weight.square()),
        own if variance is None else own + 2 * weight * (of_variance.mT @ variance),
        of_variance.mT @ second,
        None if bias is None else of_mean.sum(-2),
        None if bias_spread is None else of_variance.sum(-2),
    )
