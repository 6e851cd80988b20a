"""The Hessian of the risk: H = grad^2 R = 1/n sum_i w_i grad^2 l_i + l2 I."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import grad, vjp

from explainlib import compute
from explainlib.checks import symmetrised
from explainlib.curvature.gauss_newton import gauss_newton, gauss_newton_operator, require_dense, summed_products
from explainlib.gate import GRADIENT, HESSIAN
from explainlib.memory import alternatives
from explainlib.risk import Risk

ROWS = 128  # basis vectors in one batched pass


@alternatives("hessian_product(risk, v) and top_eigenvalues(risk, k) never form it")
@compute.entry
def hessian(risk: Risk) -> Float[Tensor, "p p"]:
    """Return H [p, p], ridge included, symmetric.

    One forward and one backward pass, then reverse-over-reverse for blocks of basis vectors together. Where only a
    final linear layer is trained the outputs are linear in theta, and H is the Gauss-Newton matrix, in closed form.

    Source: Koh & Liang 2017, section 2.1, with the ridge added.

    Example: least squares through the origin has H = 2 mean(x^2) + l2.

        >>> from explainlib.datasets import Examples
        >>> model = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
        >>> train = Examples(torch.tensor([[1.0], [3.0]]).double(), torch.zeros(2, 1).double())
        >>> hessian(Risk(model, train, loss="squared_error", l2=0.5)).item()
        10.5
    """
    if risk.head is not None:
        return gauss_newton(risk)
    require_dense(risk, "the Hessian")
    rows = hessian_operator(risk)(torch.eye(risk.p, dtype=risk.theta.dtype, device=risk.theta.device))
    return symmetrised("the Hessian", rows)


def hessian_operator(risk: Risk) -> Callable[[Float[Tensor, "k p"]], Float[Tensor, "k p"]]:
    """Return v -> H v for rows v [k, p]; the forward and first backward pass are done once, in this call."""
    if risk.head is not None:
        return gauss_newton_operator(risk)
    risk.require_derivatives(GRADIENT, HESSIAN)

    def part_product(objective: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        pull = vjp(grad(objective), risk.theta)[1]
        return lambda row: pull(row)[0]

    total = summed_products(risk, part_product, risk.objectives)
    return lambda v: total(v) / risk.n + risk.l2 * v


@compute.entry
def hessian_product(risk: Risk, v: Float[Tensor, "*k p"]) -> Float[Tensor, "*k p"]:
    """Return H v without materialising H, for one vector [p] or for rows [k, p]; costs about four gradients a row."""
    return hessian_operator(risk)(v.reshape(-1, risk.p)).reshape(v.shape)
