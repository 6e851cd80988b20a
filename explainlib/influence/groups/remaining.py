"""Inverse Hessians of the problems that remain without each group, for softmax regression with few parameters.

    H_g = c_g (H - H_U) + (l2 + damping) I,     H, H_U the weighted sums over all and over the group, divided by n,

and c_g = 1, or 1/(1 - f) where the rest takes the group's weight. H_U costs the group's members, not all n examples.
"""

from __future__ import annotations

import sys

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib.kernels.groups import plain
from explainlib.losses import CROSS_ENTROPY
from explainlib.risk import Risk
from explainlib.solvers.cg import Operator

PRODUCTS = 16  # n p flops that conjugate gradients are taken to cost a group beside those of one exact step
MEMORY = 4  # times the numbers of all groups' outputs [g, n, C]


def remaining_inverse(
    risk: Risk, rest: Float[Tensor, "g n"], scale: Float[Tensor, "g 1"], damping: float
) -> Operator | None:
    """Return v -> H_g^-1 v, row by row, where that costs less than conjugate gradients; else None.

    It is a preconditioner with which they end after one step: what they check of the result is checked all the same.

    Args:
        risk: the whole problem, at the parameters where H_g is taken.
        rest: weights of the remaining problems, 0 on each group.
        scale: c_g.
        damping: absolute.
    """
    if type(risk) is not Risk or risk.head is None or risk.loss is not CROSS_ENTROPY:
        return None
    left_out = rest == 0
    members = int(left_out.sum()) / len(rest)
    if risk.p**2 / 3 + 2 * members * risk.p > PRODUCTS * risk.n or risk.p**2 > MEMORY * risk.n * risk.n_outputs:
        return None
    everyone = torch.arange(risk.n, device=rest.device)
    whole = _hessians(risk, everyone, everyone.new_tensor([0, risk.n]))
    offsets = torch.cat([everyone.new_zeros(1), left_out.sum(1).cumsum(0)])
    H = scale[..., None] * (whole - _hessians(risk, left_out.nonzero()[:, 1], offsets)) / risk.n
    H.diagonal(dim1=-2, dim2=-1).add_(risk.l2 + damping)
    factor, info = torch.linalg.cholesky_ex(H)
    if info.any() or not torch.isfinite(factor).all():
        return None

    def solved(v: Float[Tensor, "g p"]) -> Float[Tensor, "g p"]:
        matrix = risk.head.matrix(v)
        return risk.head.flat(torch.cholesky_solve(matrix.flatten(1)[..., None], factor).view_as(matrix))

    return solved


def _hessians(risk: Risk, members: Int[Tensor, " k"], offsets: Int[Tensor, " h"]) -> Float[Tensor, "g r r"]:
    p, x, weights = risk.outputs().softmax(1), risk.features(), risk.weights_or_ones()
    if x.is_cuda or "explainlib.kernels.choice" in sys.modules:  # otherwise Triton is not imported for this question
        from explainlib.kernels import group_hessians

        return group_hessians(p, x, weights, members, offsets)
    scaled = weights[:, None] * p
    return plain.group_products(scaled, scaled, p, x, x, members, offsets)
