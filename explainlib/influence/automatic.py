"""Which curvature and solver the influence of single examples takes where none is chosen, and why.

few parameters             the exact Hessian, factored
outputs linear in theta    the exact Hessian by conjugate gradients; the objective is convex
layers that EK-FAC covers  EK-FAC, an approximation that needs neither p x p numbers nor the n gradients
anything else              the Gauss-Newton matrix by conjugate gradients; where the n gradients do not fit into memory
                           EK-FAC of what it covers, the rest left out
"""

from __future__ import annotations

from typing import NamedTuple

from explainlib.curvature.ekfac import Ekfac
from explainlib.curvature.kronecker import UncoveredError
from explainlib.memory import memory_limit
from explainlib.risk import Risk
from explainlib.solvers.inverse import Curvature

DENSE = 2000  # parameters up to which a Hessian is made and factored: seconds
COPIES = 4  # of the n gradients that conjugate gradients and the product with them hold


class Automatic(NamedTuple):
    """A choice and its reason.

    Attributes:
        curvature: as in ``loss_influence``; EK-FAC is fitted already.
        solver: as in ``loss_influence``.
        why: in a sentence.
    """

    curvature: Curvature
    solver: str
    why: str


def choose_method(risk: Risk) -> Automatic:
    """Return the curvature and the solver for a risk of this size, and why.

    Args:
        risk: whose influence is asked for.
    """
    p = risk.p
    gradients = COPIES * risk.n * p * risk.theta.element_size()
    fits = gradients <= memory_limit(None, risk.theta.device)
    if fits and p <= DENSE:
        return Automatic("hessian", "dense", f"exact Hessian, factored, because {p:,} parameters are few")
    if fits and risk.parameters.head(risk.train.x[:2]) is not None:
        return Automatic(
            "hessian", "cg", f"exact Hessian by conjugate gradients, because the outputs are linear in {p:,} parameters"
        )
    try:
        many = f"{p:,} parameters are too many for their exact Hessian"
        why = many if fits else f"the gradients of {risk.n:,} examples in {p:,} parameters do not fit into memory"
        return Automatic(
            Ekfac(risk, uncovered="raise" if fits else "warn"), "dense", f"EK-FAC, an approximation, because {why}"
        )
    except UncoveredError as error:
        outside = ", ".join(error.outside[:3])
        why = f"Gauss-Newton by conjugate gradients, because EK-FAC does not cover {outside}"
        return Automatic("gauss_newton", "cg", why)
