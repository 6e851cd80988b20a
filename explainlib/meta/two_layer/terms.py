r"""The Hessian of one MAML step: blocks on the diagonal, and products J^T Y of few rows.

With theta = w - a g_s(w), g and H the gradients and Hessians of the support loss at w (s) and the query loss at theta
(q), and T the support loss's third derivative along g_q,

    grad^2 L = B H_q B - a T,   B = I - a H_s.                                                        TLXML eq. (5)

Every H is J^T S J + R with R block-diagonal over hidden units, and T is the support's parts differentiated along g_q
(dJ, dS, dR). With B_R = I - a R_s, J_b = J_q B_R, E = J R_q B_R and K = a J_q J^T S this is

    grad^2 L = B_R R_q B_R - a dR  +  J_b^T S_q J_b  +  J^T Y + Y^T J,
    Y = -a S (E + dJ)  -  K^T S_q J_b  +  [ K^T S_q K + a^2 S (J R_q J^T) S - a dS ] J / 2.

J is never materialised. Row (n, e) of J at unit u is v_eu slope_un + hidden_un e_e, a product Phi Gamma: Gamma is
block-diagonal, n + c rows (slopes, then unit vectors) and D columns a unit; Phi holds v and the hidden values. Right
factors such as B_R act on Gamma alone, and J^T Y = Gamma^T (Phi^T Y) costs about (n + c) p^2 multiplications where the
rows of J would cost n c p^2. Several tasks' Gamma and Phi^T Y, stacked, are one batched product.

Shapes as in ``two_layer.units``; p = u D + c, the last c columns being the output biases; rows of Y are (n, e).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import jvp
from torch.nn import functional as F

from explainlib.meta.two_layer.units import Derivatives, Network, UnitParameters, derivatives, loss_gradient


class Terms(NamedTuple):
    """Weighted Hessians of t tasks in factored form: blocks + X + X^T, X = J^T Y + J_b^T Z, Z = S_q J_b / 2."""

    blocks: Float[Tensor, "u D D"]
    support: Derivatives  # J is Phi Gamma, the last c rows of Gamma being unit vectors
    y: Float[Tensor, "t n c p"]
    query: Derivatives  # J_b is Phi_q Gamma_b
    gamma_b: Float[Tensor, "t u m D"]
    z: Float[Tensor, "t r c p"]


class HessianTotal:
    """The sum over tasks, p x p, accumulated over batches of tasks.

    Args:
        units: hidden units.
        size: D, entries of a unit.
        c: contrasts.
        rows: of the work array, at most; t (s + r + c) for t tasks.
        like: gives dtype and device.
    """

    def __init__(self, units: int, size: int, c: int, rows: int, like: Tensor) -> None:
        p = units * size + c
        self.blocks = like.new_zeros(units, size, size)
        self.inputs = like.new_zeros(units, size, p)
        self.outputs = like.new_zeros(units, c * p)
        self.bias = like.new_zeros(c, p)
        self._work = like.new_empty(rows, units, p)  # reused: allocating it costs as much as filling it

    def add(self, terms: Terms) -> None:
        """Add some tasks' Hessians: Gamma^T (Phi^T Y) for both losses, all tasks stacked into single products."""
        s, q, y, z = terms.support, terms.query, terms.y, terms.z
        t, r, c, k = len(z), z.shape[1], z.shape[2], s.slope.shape[-1]
        start = 0
        for v, rows in ((s.v, y), (q.v, z)):
            spread = v.mT[:, None].expand(-1, rows.shape[1], -1, -1).flatten(0, 1)
            out = self._work[start : start + len(spread)]  # [(t n), u, p]
            torch.bmm(spread, rows.flatten(0, 1), out=out)
            start += len(out)
        by_class = q.hidden[:, None].expand(-1, c, -1, -1).flatten(0, 1)
        torch.bmm(by_class, z.transpose(1, 2).flatten(0, 1), out=self._work[start : start + t * c])  # [(t c), u, p]
        gammas = F.pad(s.slope, (0, c)), terms.gamma_b[:, :, :r], F.pad(terms.gamma_b[:, :, r:, :k], (0, c))
        stacked = torch.cat([gamma.permute(1, 3, 0, 2).flatten(2) for gamma in gammas], dim=-1)
        self.inputs.baddbmm_(stacked, self._work[: start + t * c].transpose(0, 1))
        for hidden, rows in ((s.hidden, y), (q.hidden, z)):  # unit vectors need no product: B_R leaves them in J_b too
            self.outputs.addmm_(hidden.transpose(0, 1).flatten(1), rows.flatten(0, 1).flatten(1))
            self.bias += rows.sum((0, 1))
        self.blocks += terms.blocks

    def matrix(self) -> Float[Tensor, "p p"]:
        """Return the sum."""
        u, size, p = self.inputs.shape
        half = self.inputs.clone()
        half[:, size - len(self.bias) :] += self.outputs.unflatten(1, (-1, p))
        half = torch.cat([half.flatten(0, 1), self.bias])
        total = half + half.T
        on_diagonal = total[: u * size, : u * size].unflatten(0, (u, size)).unflatten(2, (u, size)).diagonal(0, 0, 2)
        on_diagonal += self.blocks.permute(1, 2, 0)
        return total


def terms(
    net: Network,
    units: UnitParameters,
    support: tuple[Float[Tensor, "t s d"], Int[Tensor, "t s"]],
    query: tuple[Float[Tensor, "t r d"], Int[Tensor, "t r"]],
    weights: Float[Tensor, " t"],
    a: float,
) -> Terms:
    """Return the weighted Hessians of t tasks as ``Terms``.

    Args:
        net: the network.
        units: the parameters by hidden unit.
        support: inputs and labels.
        query: inputs and labels.
        weights: one a task.
        a: the inner step.
    """
    here = UnitParameters(*(part.expand(len(weights), *part.shape[1:]).clone() for part in units))
    theta = here.step(-a, loss_gradient(net, here, *support))
    q = derivatives(net, theta, *query)
    s, ds = jvp(lambda units: derivatives(net, units, *support), (here,), (loss_gradient(net, theta, *query),))
    b = torch.eye(s.r.shape[-1], dtype=s.r.dtype, device=s.r.device) - a * s.r  # B_R
    r_b = q.r @ b
    blocks = torch.einsum("t,tude->ude", weights, b @ r_b - a * ds.r)
    gamma, gamma_b = gamma_of(s), gamma_of(q) @ b
    e_dj = gamma @ r_b
    e_dj[:, :, : s.rho.shape[1], : s.slope.shape[-1]] += ds.slope
    on_e, on_b, on_j = coefficients(s, ds.s, q, weights, a)
    d_phi, phi, phi_q = (ds.v, ds.hidden), (s.v, s.hidden), (q.v, q.hidden)
    y = rows_of([(e_dj, [(on_e, *phi)]), (gamma, [(on_e, *d_phi), (on_j, *phi)]), (gamma_b, [(on_b, *phi_q)])])
    half_s = block_diagonal(q.s * (weights / 2)[:, None, None, None])
    z = rows_of([(gamma_b, [(half_s, *phi_q)])])
    return Terms(blocks, s, with_bias(y, on_j.sum(1) + on_b.sum(1)), q, gamma_b, with_bias(z, half_s.sum(1)))


def coefficients(
    s: Derivatives, ds: Float[Tensor, "t n c c"], q: Derivatives, weights: Float[Tensor, " t"], a: float
) -> tuple[Float[Tensor, "t n c rows"], Float[Tensor, "t r c rows"], Float[Tensor, "t n c rows"]]:
    """Return the factors of E + dJ, J_b and J in Y, transposed: a column for each support example and contrast.

    Args:
        s: derivatives of the support loss.
        ds: their change along the query gradient.
        q: derivatives of the query loss.
        weights: one a task.
        a: the inner step.
    """
    c = s.rho.shape[2]
    k = a * torch.einsum("trfnc,tnce->trfne", query_by_support(q, s), s.s)  # K
    s_k = torch.einsum("trfg,trgne->trfne", q.s, k).flatten(3)  # S_q K, [t, r, c, rows]
    middle = a * a * torch.einsum("tncd,tndme,tmef->tncmf", s.s, through_units(s, q.r), s.s)
    own = k.flatten(3).flatten(1, 2).mT @ s_k.flatten(1, 2) + middle.flatten(3).flatten(1, 2)
    scale = weights[:, None, None, None]
    on_j = scale / 2 * (own.unflatten(1, (-1, c)) - a * block_diagonal(ds))
    return -a * scale * block_diagonal(s.s), -scale * s_k, on_j


def query_by_support(q: Derivatives, s: Derivatives) -> Float[Tensor, "t r c n c"]:
    """Return J_q J^T, output biases included."""
    by_slope = torch.einsum("turn,tufc->trfnc", q.slope @ s.slope.mT, q.v.mT[..., :, None] * s.v.mT[..., None, :])
    by_hidden = q.hidden.mT @ s.hidden + 1
    same = torch.eye(q.v.shape[1], dtype=q.v.dtype, device=q.v.device)
    return by_slope + by_hidden[:, :, None, :, None] * same[:, None]


def through_units(s: Derivatives, r: Float[Tensor, "t u D D"]) -> Float[Tensor, "t n c n c"]:
    """Return J R J^T for a block-diagonal R whose v-v block is zero."""
    k = s.slope.shape[-1]
    inner = s.slope @ r[..., :k, :]  # [t, u, n, D]
    by_slope = torch.einsum(
        "tunm,tufc->tnfmc", inner[..., :k] @ s.slope.mT, s.v.mT[..., :, None] * s.v.mT[..., None, :]
    )
    weighted = s.v.mT[:, :, None, :, None] * inner[..., None, k:]  # [t, u, n, f, c]: v_fu inner_unc
    mixed = torch.einsum("tunfc,tum->tnfmc", weighted, s.hidden)
    return by_slope + mixed + mixed.permute(0, 3, 4, 1, 2)


def gamma_of(parts: Derivatives) -> Float[Tensor, "t u m D"]:
    """Return Gamma of J: slopes in the first n rows, unit vectors of v in the last c."""
    c, k = parts.rho.shape[-1], parts.slope.shape[-1]
    unit = torch.eye(c, k + c, dtype=parts.slope.dtype, device=parts.slope.device).roll(k, 1)
    return torch.cat([F.pad(parts.slope, (0, c)), unit.expand(*parts.slope.shape[:2], -1, -1)], dim=2)


def rows_of(
    summands: list[tuple[Float[Tensor, "t u _ D"], list[tuple[Tensor, Tensor, Tensor]]]],
) -> Float[Tensor, "t u rows D"]:
    """Return the sum of left Phi Gamma, unit by unit.

    Args:
        summands: each a Gamma and the triples (left^T [t, n, c, rows], v, hidden) whose left Phi multiply it.
    """
    gammas = torch.cat([gamma for gamma, _ in summands], dim=2)
    t, u, m, _ = gammas.shape
    rows = summands[0][1][0][0].shape[-1]
    phis, start = gammas.new_empty(t, u, m * rows), 0  # (left Phi)^T
    for gamma, triples in summands:
        middle, end = start + triples[0][0].shape[1] * rows, start + gamma.shape[2] * rows
        for i, (left, v, hidden) in enumerate(triples):
            # for each n: sum_c left_nc v_cu; for each c: sum_n left_nc hidden_un
            phis[..., start:middle].baddbmm_(v.mT, left.transpose(1, 2).flatten(2), beta=min(i, 1))
            phis[..., middle:end].baddbmm_(hidden, left.flatten(2), beta=min(i, 1))
        start = end
    return phis.unflatten(2, (m, rows)).mT @ gammas


def with_bias(by_unit: Float[Tensor, "t u rows D"], bias: Float[Tensor, "t c rows"]) -> Float[Tensor, "t n c p"]:
    """Return rows with the columns of all units, then those of the output biases."""
    t, u, rows, size = by_unit.shape
    c = bias.shape[1]
    wide = by_unit.new_empty(t, rows, u * size + c)
    wide[..., :-c].unflatten(2, (u, size)).copy_(by_unit.transpose(1, 2))
    wide[..., -c:] = bias.mT
    return wide.unflatten(1, (-1, c))


def block_diagonal(s: Float[Tensor, "t n c c"]) -> Float[Tensor, "t n c rows"]:
    """Return S, block by block, as a matrix over rows (n, c) and columns (n, c)."""
    t, n, c, _ = s.shape
    wide = s.new_zeros(t, n, c, n, c)
    wide.diagonal(0, 1, 3).copy_(s.permute(0, 2, 3, 1))
    return wide.flatten(3)
