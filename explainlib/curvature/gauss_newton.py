"""The generalised Gauss-Newton matrix: G = 1/n sum_i w_i J_i^T S_i J_i + l2 I.

J_i [C, p] is the Jacobian of example i's outputs, S_i [C, C] the Hessian of its loss in the outputs. G is the Hessian
of the risk with the model replaced by its tangent at theta; it is positive semi-definite for convex losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacrev, jvp, vjp

from explainlib import compute
from explainlib.derivatives import vmap
from explainlib.gate import FORWARD, FORWARD_HESSIAN, GRADIENT
from explainlib.losses import NAMED, Loss
from explainlib.memory import alternatives, require_memory
from explainlib.risk import PART, Risk

T = TypeVar("T")
ROWS = 128


def require_dense(risk: Risk, what: str) -> None:
    """Return nothing; raise if three matrices of p x p numbers do not fit into memory.

    Args:
        risk: gives p.
        what: the matrix.

    Raises:
        TooLargeError: with the alternatives of the called function.
    """
    size = 3 * risk.p**2 * risk.theta.element_size()
    require_memory(f"{what} of p = {risk.p:,} parameters", size, risk.theta.device)


@alternatives("gauss_newton_product(risk, v) never forms it")
@compute.entry
def gauss_newton(risk: Risk) -> Float[Tensor, "p p"]:
    """Return G [p, p], ridge included, symmetric; equal to the Hessian when outputs are linear in theta.

    Costs n C p^2 multiplications, for a trained final layer of d features n C^2 d^2.

    Source: Schraudolph 2002; Martens 2020, section 8.
    """
    require_dense(risk, "the Gauss-Newton matrix")
    ridge = risk.l2 * torch.eye(risk.p, dtype=risk.theta.dtype, device=risk.theta.device)
    if risk.head is not None:
        return _head_gauss_newton(risk) / risk.n + ridge
    risk.require_derivatives(GRADIENT, of_loss=(FORWARD_HESSIAN,))
    total = torch.zeros_like(ridge)
    weighted = risk.weights_or_ones()
    outputs, curvature = risk.outputs(), risk.loss.hessian(risk.outputs(), risk.train.y) * weighted[:, None, None]
    step = max(1, 2**26 // (risk.p * outputs.shape[1]))
    for x, s in zip(risk.train.x.split(step), curvature.split(step), strict=True):
        jacobian = _jacobians(risk, x)
        total += torch.einsum("ncp,nce,neq->pq", jacobian, s, jacobian)
    return (total + total.T) / (2 * risk.n) + ridge


def _jacobians(risk: Risk, x: Tensor) -> Float[Tensor, "n C p"]:
    return vmap(jacrev(lambda theta, one: risk.parameters.outputs(theta, one[None])[0]), in_dims=(None, 0))(
        risk.theta, x
    )


def _head_gauss_newton(risk: Risk) -> Float[Tensor, "p p"]:
    """Return sum_i w_i S_i (x) phi_i phi_i^T: one matrix product for each output's row of blocks."""
    phi, head = risk.features(), risk.head
    s = risk.loss.hessian(risk.outputs(), risk.train.y) * risk.weights_or_ones()[:, None, None]
    n_outputs, d = s.shape[1], phi.shape[1]
    blocks = phi.new_empty(n_outputs, d, n_outputs, d)
    for c in range(n_outputs):  # S_i is symmetric: blocks c' >= c are computed, the others copied
        row = phi.T @ (s[:, c, c:, None] * phi[:, None, :]).flatten(1)
        blocks[c, :, c:] = row.unflatten(1, (n_outputs - c, d))
        blocks[c + 1 :, :, c] = blocks[c, :, c + 1 :].movedim(1, 0)
    matrix = head.flat(head.flat(blocks).movedim(-1, 0))
    return (matrix + matrix.T) / 2


def gauss_newton_blocks(risk: Risk) -> Float[Tensor, "C d d"]:
    """Return the diagonal blocks of G, one per output of a trained final layer, ridge included; needs ``risk.head``.

    Their inverses are a good preconditioner: a softmax couples its outputs by s_c s_e, which is small where one
    probability is near 1.
    """
    phi, weights = risk.features(), risk.weights_or_ones()
    s = risk.loss.hessian(risk.outputs(), risk.train.y).diagonal(dim1=1, dim2=2) * weights[:, None]  # [n, C]
    require_dense(risk, "the Gauss-Newton matrix")
    ridge = risk.l2 * torch.eye(phi.shape[1], dtype=phi.dtype, device=phi.device)
    return torch.stack([phi.T @ (phi * column[:, None]) for column in s.T]) / risk.n + ridge


def gauss_newton_operator(risk: Risk) -> Callable[[Float[Tensor, "k p"]], Float[Tensor, "k p"]]:
    """Return v -> G v for rows v [k, p]; outputs are computed once, in this call."""
    if risk.head is not None:
        phi, head, outputs, weights = risk.features(), risk.head, risk.outputs(), risk.weights_or_ones()

        def head_product(v: Float[Tensor, "k p"]) -> Float[Tensor, "k p"]:
            moved = phi @ head.matrix(v).mT  # J v, [k, n, C]
            u = risk.loss.hessian_product(outputs, risk.train.y, moved) * weights[:, None]
            return head.flat(u.mT @ phi) / risk.n + risk.l2 * v

        return head_product
    risk.require_derivatives(GRADIENT, FORWARD, of_loss=(FORWARD_HESSIAN,))
    total = summed_products(risk, lambda part: _part_product(risk, *part), risk.parts)
    return lambda v: total(v) / risk.n + risk.l2 * v


def summed_products(
    risk: Risk, make: Callable[[T], Callable], parts: Callable[[], Iterator[T]]
) -> Callable[[Float[Tensor, "k p"]], Float[Tensor, "k p"]]:
    """Return rows v -> the sum over parts of the training set of ``make(part)`` mapped over the rows.

    A product holds the graph of its part. With a single part it is kept for the next call; with several, one is in
    memory at a time and each call builds them again.

    Args:
        risk: gives the training set.
        make: from a part to a product with one vector.
        parts: yields the parts.
    """
    kept = [make(part) for part in parts()] if risk.n <= PART else None

    def total(v: Float[Tensor, "k p"]) -> Float[Tensor, "k p"]:
        out = torch.zeros_like(v)
        for part in parts() if kept is None else kept:
            out += vmap(make(part) if kept is None else part, chunk_size=ROWS)(v)
        return out

    return total


def _part_product(risk: Risk, f: Callable[[Tensor], Tensor], y: Tensor, weights: Tensor | None) -> Callable:
    outputs, pull = vjp(f, risk.theta)
    s = risk.loss.hessian(outputs.detach(), y)
    s = s if weights is None else s * weights[:, None, None]
    return lambda v: pull(torch.einsum("nce,ne->nc", s, jvp(f, (risk.theta,), (v,))[1]))[0]


@compute.entry
def gauss_newton_product(risk: Risk, v: Float[Tensor, "*k p"]) -> Float[Tensor, "*k p"]:
    """Return G v without materialising G, for one vector [p] or for rows [k, p]."""
    return gauss_newton_operator(risk)(v.reshape(-1, risk.p)).reshape(v.shape)


@compute.entry
def gauss_newton_factor(risk: Risk) -> Float[Tensor, "r p"]:
    """Return A [r, p] with A^T A = G - l2 I, its rows S_i^(1/2) J_i scaled by sqrt(w_i/n).

    A softmax has no curvature along its shift, so each example gives C - 1 rows, not C.

    Raises:
        ValueError: a negative weight, or a loss that is not convex in the outputs (no real square root).
    """
    risk.require_derivatives(GRADIENT, of_loss=(FORWARD_HESSIAN,))
    outputs, weights = risk.outputs(), risk.weights_or_ones()
    rows = risk.n * (risk.n_outputs - risk.loss.lost_ranks)
    size = 2 * rows * risk.p * risk.theta.element_size()
    require_memory(f"a factor of {rows:,} rows of p = {risk.p:,} parameters", size, risk.theta.device)
    if (weights < 0).any():
        raise ValueError("a negative weight has no square root; use solver='dense' for this risk.")
    root = loss_roots(risk.loss, outputs, risk.train.y).mT * (weights / risk.n).sqrt()[:, None, None]
    if risk.head is not None:
        rows = root.mT[..., None] * risk.features()[:, None, None, :]  # [n, r, C, d]
        return risk.head.flat(rows).flatten(0, 1)
    return torch.einsum("ncp,ncr->nrp", _jacobians(risk, risk.train.x), root).flatten(0, 1)


def loss_roots(
    loss: Loss, outputs: Float[Tensor, "n C"], y: Tensor, *, otherwise: str = "use solver='dense'"
) -> Float[Tensor, "n r C"]:
    """Return R with R^T R = the loss's Hessian in the outputs, for each example; r = C minus ``lost_ranks``.

    Args:
        loss: convex in the outputs.
        outputs: of n examples.
        y: their targets.
        otherwise: remedy for the message.

    Raises:
        ValueError: a loss that is not convex in the outputs.
    """
    values, vectors = torch.linalg.eigh(loss.hessian(outputs, y))
    known = any(loss is each for each in NAMED.values())  # convex: what is negative is rounding, of saturated outputs
    if not known and values.min() < -1e-6 * values.abs().max():
        raise ValueError(f"the loss is not convex in the outputs, so G has no real factor; {otherwise}.")
    kept = slice(loss.lost_ranks, None)  # eigh sorts in ascending order
    return (vectors[..., kept] * values[:, None, kept].clamp(min=0).sqrt()).mT
