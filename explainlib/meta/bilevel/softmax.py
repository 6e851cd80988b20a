r"""The total Hessian of proximal softmax regression in closed form, third derivatives included.

With logits eta = theta phi, probabilities s, S = diag(s) - s s^T, and J = strength H_in^-1:

    sum_i c_i J_i [ sum_validation a_z Phi_z^T S_z Phi_z + sum_training b_z Phi_z^T S'_z Phi_z ] J_i
    S'_z = diag(d) - d s^T - s d^T,   d = S_z (u phi_z),   u = -H_in^-1 grad_theta f        l'''[u, ., .]

For each example J is applied to its own C directions only, and the rows of all tasks enter one matrix product.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from explainlib.meta.bilevel.inner import features
from explainlib.meta.bilevel.inverse import HeadInverse, matrix_positions
from explainlib.meta.bilevel.state import InnerState, LamRows


def softmax_total_hessian(
    state: InnerState, weights: Float[Tensor, " m"], *, third_order: bool = True
) -> Float[Tensor, "q q"]:
    """Return sum_i weight_i D D f_i [q, q].

    Args:
        state: tasks of proximal softmax regression at their inner solutions.
        weights: of the tasks [m].
        third_order: False drops d^2 theta/dlam^2.

    Returns:
        Symmetric, in loss per squared parameter. Cost: 2 m (s + r) C q^2.

    Source: Ren et al., Definition 4.2 and Remark 4.4.
    """
    head = state.problem.linear
    phi, small = _curvatures(state, third_order)
    small = weights[:, None, None, None] * small
    if isinstance(state.inverse, HeadInverse):
        rows = state.inverse.feature_products(phi)  # [m, n, C, C, d]
    else:
        c = small.shape[-1]
        eye = torch.eye(c, dtype=phi.dtype, device=phi.device)
        basis = (phi[:, :, None, None, :] * eye[:, :, None]).flatten(1, 2)  # Phi, a row for each output
        rows = head.matrix(state.jvp(head.flat(basis))).unflatten(1, (-1, c))
    m, n, c = rows.shape[:3]
    rows = rows.reshape(m, n, c, -1)
    total = rows.view(m * n * c, -1).T @ (small @ rows).view(m * n * c, -1)
    positions = matrix_positions(head, total.new_zeros(c, phi.shape[-1]))
    total = total[positions[:, None], positions]
    return (total + total.T) / 2


def softmax_products(state: InnerState, v: LamRows, *, third_order: bool = True) -> LamRows:
    """Return D D f_i v for k rows of every task; the matrix is not materialised.

    Args:
        state: m tasks at their inner solutions.
        v: [m, k, q].
        third_order: False drops the third derivatives.
    """
    head = state.problem.linear
    phi, small = _curvatures(state, third_order)
    logits = torch.einsum("mkcd,mnd->mnck", head.matrix(state.jvp(v)), phi)
    theta_rows = torch.einsum("mnck,mnd->mkcd", small @ logits, phi)
    return state.vjp(head.flat(theta_rows))


def _curvatures(state: InnerState, third_order: bool) -> tuple[Tensor, Tensor]:
    """Return (phi [m, n, d], the small matrices [m, n, C, C]): validation first, then training unless dropped."""
    problem, batch = state.problem, state.batch
    matrix = problem.linear.matrix(state.theta).mT
    phi = features(problem, state.lam, batch.query_x)
    s = (phi @ matrix).softmax(-1)
    small = batch.validation[..., None, None] * (torch.diag_embed(s) - s[..., :, None] * s[..., None, :])
    if not third_order:
        return phi, small
    support_phi = features(problem, state.lam, batch.support_x)
    s = (support_phi @ matrix).softmax(-1)
    eta = support_phi @ problem.linear.matrix(state.adjoint).mT
    d = s * (eta - (s * eta).sum(-1, keepdim=True))
    outer = d[..., :, None] * s[..., None, :]
    training_blocks = batch.training[..., None, None] * (torch.diag_embed(d) - outer - outer.mT)
    return torch.cat([phi, support_phi], dim=1), torch.cat([small, training_blocks], dim=1)
