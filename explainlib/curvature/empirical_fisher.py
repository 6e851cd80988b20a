"""The empirical Fisher matrix: F = 1/n sum_i w_i g_i g_i^T, g_i = grad l_i at the observed label, no ridge.

It is not the Fisher matrix (whose labels are drawn from the model) and not the Gauss-Newton matrix, though all three
are sums of outer products; their influence scores correlate weakly.
"""

from __future__ import annotations

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor

from explainlib import compute
from explainlib.curvature.gauss_newton import require_dense
from explainlib.memory import alternatives
from explainlib.risk import Risk


@alternatives("loss_influence(..., curvature='empirical_fisher', solver='low_rank') never forms it")
@compute.entry
def empirical_fisher(risk: Risk) -> Float[Tensor, "p p"]:
    """Return F [p, p]; no ridge, so it is singular if n < p and at every exact fit.

    Source: Kunstner et al. 2019, eq. (3).
    """
    require_dense(risk, "the empirical Fisher matrix")
    g = risk.loss_gradients()
    return g.T @ (g * risk.weights_or_ones()[:, None]) / risk.n


def empirical_fisher_operator(risk: Risk) -> Callable[[Float[Tensor, "k p"]], Float[Tensor, "k p"]]:
    """Return v -> F v for rows v [k, p]; the n gradients are computed once, in this call."""
    g, weights = risk.loss_gradients(), risk.weights_or_ones()
    return lambda v: (v @ g.T * weights) @ g / risk.n


def empirical_fisher_factor(risk: Risk) -> Float[Tensor, "n p"]:
    """Return A [n, p] with A^T A = F.

    Raises:
        ValueError: a negative weight.
    """
    weights = risk.weights_or_ones()
    if (weights < 0).any():
        raise ValueError("a negative weight has no square root; use solver='dense' for this risk.")
    return risk.loss_gradients() * (weights / risk.n).sqrt()[:, None]
