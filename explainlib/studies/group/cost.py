"""What the orders cost: seconds and Hessian products of first and second order, by conjugate gradients and dense.

A product is one Hessian-vector product of the training set, for each group. Dense has none in its solves: its seconds
hold the materialised matrix and its factor, which all groups share (``seconds``); a further call has them already
(``seconds_again``). Conjugate gradients take theirs again at each call.
"""

from __future__ import annotations

import time

import pandas
from jaxtyping import Float
from torch import Tensor

from explainlib.curvature import hessian_product
from explainlib.influence import removal_effect
from explainlib.risk import Risk
from explainlib.solvers.inverse import inverse_curvature
from explainlib.studies.group.problems import random_groups

GROUPS = 8
FRACTION = 0.3
OWN = 1  # product with the group's own Hessian, which second order needs once


def cost(risk: Risk, name: str, seed: int = 0) -> pandas.DataFrame:
    """Return a row for each solver and order.

    Args:
        risk: at its minimum.
        name: of the problem.
        seed: of the groups.
    """
    groups, rows = random_groups(risk.n, FRACTION, GROUPS, seed), []
    for solver in ("cg", "dense"):
        for order in (1, 2):
            fresh, seconds = risk.at(risk.theta), []  # without a cached factor
            for _ in range(2):
                started = time.perf_counter()
                removal_effect(fresh, groups, order=order, solver=solver)
                seconds.append(time.perf_counter() - started)
            solves = cg_products(risk, groups)[:order] if solver == "cg" else []
            row = {"problem": name, "n": risk.n, "p": risk.p, "ridge": risk.l2, "groups": GROUPS, "solver": solver}
            row |= {"order": order, "products": sum(solves) + (OWN if order == 2 else 0)}
            rows.append(row | {"seconds": seconds[0], "seconds_again": seconds[1]})
    return pandas.DataFrame(rows)


def cg_products(risk: Risk, groups: list[Tensor]) -> list[int]:
    """Return how many products the solves for theta1 and for theta2 take, all groups in one batch.

    The right-hand sides are H times what the solves return: theta1 up to its sign, and f/(1-f) theta1 - theta2.

    Args:
        risk: at its minimum.
        groups: of one size.
    """
    effect = removal_effect(risk, groups, order=2, solver="dense")
    odds = len(groups[0]) / (risk.n - len(groups[0]))
    solved: list[Float[Tensor, "g p"]] = [effect.theta1, odds * effect.theta1 - effect.theta2]
    inverse = inverse_curvature(risk, solver="cg")
    return [inverse(hessian_product(risk, rows)).steps + 1 for rows in solved]  # one more for the residual
