"""First-order changes of test losses for thousands of groups of a large network: no parameter vector a group.

    preserve:  dm_t = 1/(1-f) [ v_t . g_U/n + f l2 v_t . theta ],    plain:  dm_t = v_t . g_U/n,    v_t = C^-1 grad m_t

The solves are for the tests, and each member's gradient is read once for all tests and groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_groups, require_nonnegative
from explainlib.datasets import Examples
from explainlib.influence.groups.removal import require_weighting
from explainlib.influence.measures import measure_gradients, require_measure
from explainlib.influence.products import training_products
from explainlib.layerwise import per_example
from explainlib.losses import LossFunction
from explainlib.memory import alternatives, slices
from explainlib.risk import Risk, require_minimum
from explainlib.solvers.dense import Keep
from explainlib.solvers.inverse import Curvature, Solver, curvature_name, inverse_curvature

BLOCK = 2**26  # bytes of indicators of groups at a time


@alternatives("pass solver='cg' (no p x p matrix), curvature='ekfac', fewer tests, or a Risk(..., parameters='last')")
@compute.entry
def removal_loss_change(
    risk: Risk,
    groups: Sequence[Sequence[int] | Int[Tensor, " _"]],
    test: Examples,
    *,
    weighting: str = "preserve",
    measure: str | LossFunction = "loss",
    output: int | None = None,
    curvature: Curvature = "gauss_newton",
    solver: str | Solver = "dense",
    damping: float = 0.0,
    keep: Keep = None,
    strict: bool = False,
    on_failure: str = "raise",
    memory: int | float | None = None,
) -> Float[Tensor, "t g"]:
    """Return the first-order change of each test's loss, or another measure, when each group is removed.

    The same numbers as ``removal_effect(..., order=1).loss_change(test, evaluate=False)``, from t solves instead of g
    and without g parameter vectors.

    Args:
        risk: for curvature "hessian" at a minimum (a warning otherwise, or with ``strict`` an error).
        groups: g lists of distinct training examples, none empty, none all of them.
        test: t examples.
        weighting: "preserve" or "plain", as in ``removal_effect``.
        measure: as in ``loss_influence``.
        output: as in ``loss_influence``.
        curvature: as in ``parameter_influence``.
        solver: as in ``parameter_influence``.
        damping: as in ``parameter_influence``.
        keep: as in ``parameter_influence``.
        strict: raise where the risk is not at a minimum.
        on_failure: "raise" or "warn" when the solve does not converge.
        memory: bytes to work with in the products with the gradients, beside the t solved vectors and the result; None
            is a quarter of what is free. ``curvature="ekfac"`` fits within a quarter of what is free; for less pass
            ``xl.curvature.Ekfac(risk, memory=...)``.

    Returns:
        [t, g], in units of the measure. Positive: it rises when the group leaves; for the loss the group was helpful.

    Raises:
        SolverError: singular curvature, or a solve that did not converge.
        ValueError, TypeError: a bad group or option, or tests that do not fit.

    Source: Koh et al. 2019 for "plain"; Basu et al. 2020, eq. (8), for "preserve".
    """
    require_weighting(risk, weighting)
    require_nonnegative("damping", damping)
    risk.require_examples(test, "test")
    measured = require_measure(measure, output, loss=risk.loss, parameters=risk.parameters, theta=risk.theta, test=test)
    checked = require_groups(groups, risk.n)
    if curvature_name(curvature) == "hessian":
        require_minimum(risk, strict=strict, user="group influence")
    inverse = inverse_curvature(risk, curvature=curvature, solver=solver, damping=damping, keep=keep)
    rows = per_example(measure_gradients(risk.parameters, risk.theta, test, measured, memory=memory))
    solved = inverse(rows).require_converged(on_failure).value
    members = torch.cat(checked).unique()
    products = training_products(risk.subset(members), solved, memory=memory)  # [t, m]
    products = products * risk.weights_or_ones()[members.to(risk.theta.device)] / risk.n
    change = _group_sums(products, members, checked)
    if weighting == "plain":
        return change
    f = risk.theta.new_tensor([len(group) / risk.n for group in checked])
    return (change + f * risk.l2 * (solved @ risk.theta)[:, None]) / (1 - f)


def _group_sums(
    products: Float[Tensor, "t m"], members: Int[Tensor, " m"], groups: Sequence[Int[Tensor, " _"]]
) -> Float[Tensor, "t g"]:
    """Return the sums over each group's members, some groups at a time; ``members`` is sorted."""
    out = products.new_empty(len(products), len(groups))
    for part in slices(len(groups), BLOCK // (len(members) * products.element_size())):
        own = products.new_zeros(part.stop - part.start, len(members))
        for row, group in zip(own, groups[part], strict=True):
            row[torch.searchsorted(members, group).to(own.device)] = 1
        out[:, part] = products @ own.T
    return out
