"""The second derivatives of a two-layer network's loss, ordered by hidden unit.

    logits = sum_u v_u h_u(x_u; X) + c

Unit u owns x_u = (its row of the first layer, and its bias or, under BatchNorm, its scale and shift) and v_u, its
column of the second layer. Units interact in the logits only, so with J = d logits / d w, S the Hessian of the mean
cross-entropy in the logits and rho its gradient there, the Hessian of a loss is

    J^T S J + blockdiag(R_u),   R_u = sum_n rho_n . d^2 (v_u h_un) / d(x_u, v_u)^2.

Two kinds of flat directions are left out. A softmax depends on differences of logits only: v, c and the logits are
written in C - 1 orthonormal contrasts. A bias before BatchNorm cancels.

Shapes: t tasks, u units, n examples, d features, k entries of x_u, c contrasts, D = k + c.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import jvp
from torch.nn.functional import one_hot

Elementwise = Callable[[Tensor], Tensor]


class UnitParameters(NamedTuple):
    """Parameters ordered by hidden unit, or a direction among them; one set for each task."""

    x: Float[Tensor, "t u k"]
    v: Float[Tensor, "t c u"]
    c: Float[Tensor, "t c"]

    def step(self, length: float, direction: UnitParameters) -> UnitParameters:
        """Return the parameters moved by ``length`` times ``direction``."""
        return UnitParameters(*(part + length * other for part, other in zip(self, direction, strict=True)))


class Derivatives(NamedTuple):
    """The parts of a loss's second derivatives."""

    v: Float[Tensor, "t c u"]
    hidden: Float[Tensor, "t u n"]
    slope: Float[Tensor, "t u n k"]  # d hidden / d x
    rho: Float[Tensor, "t n c"]  # gradient of the loss in the logits
    s: Float[Tensor, "t n c c"]  # its Hessian
    r: Float[Tensor, "t u D D"]


class Network(NamedTuple):
    """The network apart from its parameters.

    Args:
        contrasts: from ``contrasts``.
        activation: elementwise, three times differentiable under ``torch.func.jvp`` (almost everywhere).
        eps: of BatchNorm, for which the n examples of a task are one batch; None without it.
    """

    contrasts: Float[Tensor, "C c"]
    activation: Elementwise
    eps: float | None

    def pre_activation(self, units_x: Float[Tensor, "t u k"], x: Float[Tensor, "t n d"]) -> PreActivation:
        """Return the pre-activation with its derivatives."""
        return affine(units_x, x) if self.eps is None else batch_norm(units_x, x, self.eps)


class PreActivation(NamedTuple):
    """a [t, u, n] before the activation, da/dx, and pi -> sum_n pi_n d^2 a_n / dx^2."""

    value: Float[Tensor, "t u n"]
    slope: Float[Tensor, "t u n k"]
    second_derivative: Callable[[Float[Tensor, "t u n"]], Tensor]


def contrasts(classes: int, like: Tensor) -> Float[Tensor, "C c"]:
    """Return C - 1 orthonormal columns that sum to zero: the logit differences that a softmax depends on.

    Example:
        >>> u = contrasts(3, torch.zeros(1, dtype=torch.float64))
        >>> torch.allclose(u.T @ u, torch.eye(2, dtype=u.dtype)), bool(u.sum(0).abs().max() < 1e-15)
        (True, True)
    """
    rank = torch.arange(1, classes, dtype=like.dtype, device=like.device)  # Helmert: class k against all before it
    above = torch.ones(classes, classes - 1, dtype=like.dtype, device=like.device).triu()
    return (above - torch.diag(rank, -1)[:, :-1]) / (rank * (rank + 1)).sqrt()


def loss_gradient(
    net: Network, units: UnitParameters, x: Float[Tensor, "t n d"], y: Int[Tensor, "t n"]
) -> UnitParameters:
    """Return the gradient of the mean cross-entropy, task by task.

    Args:
        net: the network.
        units: the parameters by hidden unit.
        x: inputs.
        y: labels.
    """
    before = net.pre_activation(units.x, x)
    hidden, first = jvp(net.activation, (before.value,), (torch.ones_like(before.value),))
    rho, _ = softmax_derivatives(hidden.mT @ units.v.mT + units.c[:, None], y, net.contrasts)
    along = (units.v.mT @ rho.mT * first)[..., None, :] @ before.slope
    return UnitParameters(along.squeeze(-2), (hidden @ rho).mT, rho.sum(1))


def derivatives(net: Network, units: UnitParameters, x: Float[Tensor, "t n d"], y: Int[Tensor, "t n"]) -> Derivatives:
    """Return the parts of the mean cross-entropy's second derivatives, task by task.

    Args:
        net: the network.
        units: the parameters by hidden unit.
        x: inputs.
        y: labels.
    """
    before = net.pre_activation(units.x, x)
    hidden, first, second = jet(net.activation, before.value)
    rho, s = softmax_derivatives(hidden.mT @ units.v.mT + units.c[:, None], y, net.contrasts)
    slope = first[..., None] * before.slope
    back = units.v.mT @ rho.mT
    r_xx = before.slope.mT @ ((back * second)[..., None] * before.slope) + before.second_derivative(back * first)
    r_xv = slope.mT @ rho[:, None]
    r_vv = r_xv.new_zeros(*r_xv.shape[:2], rho.shape[-1], rho.shape[-1])  # a unit's output is linear in v
    r = torch.cat([torch.cat([r_xx, r_xv], dim=-1), torch.cat([r_xv.mT, r_vv], dim=-1)], dim=-2)
    return Derivatives(units.v, hidden, slope, rho, s, r)


def softmax_derivatives(
    logits: Float[Tensor, "t n c"], y: Int[Tensor, "t n"], u: Float[Tensor, "C c"]
) -> tuple[Float[Tensor, "t n c"], Float[Tensor, "t n c c"]]:
    """Return gradient and Hessian, in the contrasts, of the mean over n of the cross-entropy.

    Args:
        logits: of n examples, in contrasts.
        y: labels.
        u: the contrasts.
    """
    p, n = (logits @ u.T).softmax(-1), y.shape[1]
    mean = p @ u
    s = (u.T * p[..., None, :]) @ u - mean[..., :, None] * mean[..., None, :]  # U^T (diag p - p p^T) U
    return (mean - one_hot(y, len(u)).to(p.dtype) @ u) / n, s / n


def jet(activation: Elementwise, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return activation(a) and its first two derivatives, element by element."""
    ones = torch.ones_like(a)
    slope = lambda at: jvp(activation, (at,), (ones,))[1]  # noqa: E731
    return activation(a), *jvp(slope, (a,), (ones,))


def affine(units_x: Float[Tensor, "t u k"], x: Float[Tensor, "t n d"]) -> PreActivation:
    """Return a_n = w . X_n + b, where units_x = (w, b)."""
    inputs = torch.cat([x, torch.ones_like(x[..., :1])], dim=-1)
    slope = inputs[:, None].expand(-1, units_x.shape[1], -1, -1)
    return PreActivation(units_x @ inputs.mT, slope, lambda pi: units_x.new_zeros(()))


def batch_norm(units_x: Float[Tensor, "t u k"], x: Float[Tensor, "t n d"], eps: float) -> PreActivation:
    r"""Return a_n = gamma xhat_n + beta, where units_x = (w, gamma, beta) and xhat is X w, normalised over the batch.

    With X centred, m = X w, sigma^2 = mean m^2 + eps and xhat = m / sigma,

        Z = d xhat / dw = (X - xhat l^T) / sigma,   l = d sigma / dw = X^T xhat / N,
        sum_n pi_n d^2 xhat_n / dw^2 = -(z l^T + l z^T + (pi . xhat) (X^T X / N - l l^T) / sigma) / sigma,   z = Z^T pi.

    Args:
        units_x: (w, gamma, beta) of each unit.
        x: inputs.
        eps: BatchNorm's.
    """
    w, gamma, beta = units_x[..., :-2], units_x[..., -2, None], units_x[..., -1, None]
    centred, n = x - x.mean(1, keepdim=True), x.shape[1]
    m = w @ centred.mT
    sigma = (m.square().mean(-1, keepdim=True) + eps).sqrt()  # [t, u, 1]
    xhat = m / sigma
    l = xhat @ centred / n
    z_slope = (centred[:, None] - xhat[..., None] * l[..., None, :]) / sigma[..., None]
    slope = torch.cat([gamma[..., None] * z_slope, xhat[..., None], torch.ones_like(xhat)[..., None]], dim=-1)
    gram = (centred.mT @ centred / n)[:, None]

    def second_derivative(pi: Float[Tensor, "t u n"]) -> Float[Tensor, "t u k k"]:
        z = (pi[..., None, :] @ z_slope).squeeze(-2)
        along = (pi * xhat).sum(-1, keepdim=True) / sigma
        left = z - l * along / 2  # z l^T + l z^T - along l l^T is left l^T + l left^T
        outer = left[..., :, None] * l[..., None, :]
        w_w = -(gamma / sigma)[..., None] * (outer + outer.mT + along[..., None] * gram)
        border = torch.stack([z, torch.zeros_like(z)], dim=-1)  # gamma interacts with w, beta with nothing
        corner = border.new_zeros(*border.shape[:2], 2, 2)
        return torch.cat([torch.cat([w_w, border], dim=-1), torch.cat([border.mT, corner], dim=-1)], dim=-2)

    return PreActivation(gamma * xhat + beta, slope, second_derivative)
