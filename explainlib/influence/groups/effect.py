"""Group influence: the change of the minimum when whole groups of examples are removed.

    "preserve"   R(theta, eps) = 1/n [ sum_U (1 + eps) l_i + sum_rest (1 - f/(1-f) eps) l_i ] + l2/2 |theta|^2
    "plain"      R(theta, eps) = 1/n [ sum_U (1 + eps) l_i + sum_rest l_i ] + l2/2 |theta|^2
    theta(eps) = theta + eps theta1 + eps^2 theta2 + O(eps^3),       f = |U|/n,       removal is eps = -1.

With g_U = sum_U grad l_i, H_U the group's mean Hessian without ridge, and H_d = H + damping I,

    preserve:  theta1 = -1/(1-f) H_d^-1 [g_U/n + f l2 theta],   theta2 = f/(1-f) H_d^-1 [H - l2 I - H_U] theta1 - T/2
    plain:     theta1 = -H_d^-1 g_U/n,                          theta2 = -f H_d^-1 H_U theta1 - T/2
    T = H_d^-1 R'''[theta1, theta1], which the paper drops.

Damping only solves: the terms are those of the minimum of R(., eps) + damping/2 |. - theta|^2. Slip 15: eq. (15) of
the paper, f/(1-f) [I - H^-1 (H_U + l2 I)] theta1, is the same without damping; read literally with a damped inverse it
keeps f/(1-f) damping H_d^-1 theta1, even where group and rest have the same curvature and the second order is zero.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from explainlib import compute
from explainlib.checks import require_choice, require_groups, require_nonnegative, warn_caller
from explainlib.influence.groups.remaining import remaining_inverse
from explainlib.influence.groups.removal import WEIGHTINGS, Removal, group_statuses, removal_weights, require_solved
from explainlib.influence.products import member_sums
from explainlib.memory import alternatives
from explainlib.progress import tqdm
from explainlib.risk import Risk, require_minimum
from explainlib.solvers.cg import cg
from explainlib.solvers.inverse import Curvature, Inverse, Solver, inverse_curvature
from explainlib.solvers.preconditioner import preconditioner
from explainlib.solvers.remedies import DENSE_INDEFINITE, risk_remedies
from explainlib.training.variational import ElboRisk
from explainlib.training.weighted import weighted_risks


class SeriesWarning(UserWarning):
    """A series in a group's weight whose terms do not shrink."""


ENTRIES = 2**23  # g x n x C numbers of one batch


@alternatives("pass solver='cg' (no p x p matrix), fewer groups at a time, or a Risk(..., parameters='last')")
@compute.entry
def removal_effect(
    risk: Risk,
    groups: Sequence[Sequence[int] | Int[Tensor, " _"]],
    *,
    order: int | str = 1,
    weighting: str = "preserve",
    third_derivative: bool = False,
    curvature: Curvature = "hessian",
    solver: str | Solver = "dense",
    damping: float = 0.0,
    strict: bool = False,
    on_failure: str = "raise",
) -> Removal:
    r"""Return the predicted parameters after each group's removal, all groups in one batch, one factorisation.

    Args:
        risk: at a minimum; otherwise a warning, or with ``strict`` an error.
        groups: g lists of distinct training examples, none empty, none all of them.
        order: 1 (theta - theta1), 2 (theta - theta1 + theta2), or "newton" (one Newton step of the remaining problem).
        weighting: "preserve" or "plain"; see the module's formulas. Compare only with a truth of the same weighting.
        third_derivative: with order 2, keep T.
        curvature: with order 1, as in ``parameter_influence``: "gauss_newton", "ekfac" and others in place of H; the
            other orders are of the Hessian. For thousands of groups of a large network see ``removal_loss_change``.
        solver: for orders 1 and 2 as in ``parameter_influence``; "newton" iterates CG on each remaining problem,
            preconditioned with the full problem's factor.
        damping: absolute, added to the curvature only to solve with it.
        strict: raise where the risk is not at a minimum.
        on_failure: "raise" or "warn" when a solve does not converge.

    Returns:
        Removal; ``theta [g, p]``, and ``theta1``, ``theta2`` for orders 1 and 2; ``status`` says for each group whether
        its solves converged, and which did not.

    Raises:
        SolverError: a singular curvature without ridge or damping, or a solve that did not converge; the message names
            the groups.
        ValueError: a bad group or option.

    Source: Basu et al. 2020, eqs (8), (15), (17), which have no ridge; Koh et al. 2019 for "plain". Deviation: their
    eqs (9) and (16) add theta1 and theta2; removal needs -theta1 + theta2, which their eq. (17) contains; eq. (15) is
    read so that damping only solves (slip 15).
    """
    require_choice("order", order if isinstance(order, int | str) else str(order), (1, 2, "newton"))
    require_choice("weighting", weighting, WEIGHTINGS)
    require_nonnegative("damping", damping)
    checked = require_groups(groups, risk.n)
    _require_ridge_alone(risk, order)
    if curvature != "hessian" and order != 1:
        raise ValueError(f"order={order!r} is made of Hessians; pass curvature='hessian', or order=1.")
    if third_derivative and order != 2:
        raise ValueError(f"third_derivative=True belongs to order=2, got order={order!r}; leave it out.")
    rest = removal_weights(risk, checked, weighting)
    gradient_norm = (
        require_minimum(risk, strict=strict, user="group influence")
        if curvature == "hessian"
        else float(risk.gradient().norm())
    )
    batch = max(1, ENTRIES // (risk.n * max(risk.n_outputs, 1)))
    f = risk.theta.new_tensor([len(group) / risk.n for group in checked])
    if order == "newton":
        step = _newton_steps(risk, damping, weighting)
    else:
        how = {"curvature": curvature, "solver": solver, "damping": damping}
        offers = ("curvature", "solver", "damping") if order == 1 else ("solver", "damping")
        inverse = inverse_curvature(risk, **how, offers=offers)
        step = _terms(risk, inverse, damping, order, weighting, third_derivative)
    results, statuses = [], []
    with tqdm(total=len(checked), desc="removal effect", delay=2.0, leave=False) as bar:
        for weights, share in zip(rest.split(batch), f.split(batch), strict=True):
            solutions, terms = step(weights, share[:, None])
            require_solved(solutions, len(statuses), on_failure)
            statuses += [f"{status}, |gradient| {gradient_norm:.1e}" for status in group_statuses(solutions)]
            results.append(terms)
            bar.update(len(weights))
    theta1, theta2 = (torch.cat([piece[k] for piece in results]) for k in range(2))
    if order == 2:
        _warn_of_large_terms(theta1, theta2)
    name = {"1": "first order", "2": "second order", "newton": "Newton step"}[str(order)]
    name += " with third derivative" if third_derivative else ""
    movement = theta1 if order == "newton" else theta2 - theta1
    terms = (None, None) if order == "newton" else (theta1, theta2 if order == 2 else None)
    return Removal(risk, checked, risk.theta + movement, weighting, tuple(statuses), name, *terms)


def _require_ridge_alone(risk: Risk, order: int | str) -> None:
    """Refuse the series for an evidence lower bound: its terms assume a ridge, not a divergence."""
    if order != "newton" and isinstance(risk, ElboRisk):
        raise ValueError(
            f"order={order!r} assumes losses and a ridge, and this evidence lower bound has a divergence; pass "
            "order='newton', or take -1/n times xl.influence.parameter_influence."
        )


def _warn_of_large_terms(theta1: Tensor, theta2: Tensor) -> None:
    """Warn about groups with a second term larger than the first."""
    sizes = theta2.norm(dim=1) / theta1.norm(dim=1).clamp(min=torch.finfo(theta1.dtype).tiny)
    large = (sizes > 1).nonzero()[:, 0].tolist()
    if large:
        message = (
            f"the second term is larger than the first for {len(large)} of {len(sizes)} groups, "
            f"{float(sizes.max()):.1f} times at most: the series cannot be trusted there; "
            "see xl.influence.series_trust, take order='newton', or retrain."
        )
        warn_caller(message, SeriesWarning)


def _terms(risk: Risk, inverse: Inverse, damping: float, order: int, weighting: str, third_derivative: bool):
    """Return a function (rest weights, f) -> solutions, (theta1, theta2) for batches of groups."""
    keep = weighting == "preserve"

    def step(rest: Float[Tensor, "g n"], f: Float[Tensor, "g 1"]) -> tuple[list, tuple[Tensor, Tensor]]:
        group_weights = torch.where(rest == 0, risk.weights_or_ones(), 0.0)  # the group's own weights, 0 elsewhere
        theta = risk.theta.expand(len(rest), -1)
        group_gradient = member_sums(risk, group_weights / risk.n)  # g_U / n
        first = inverse(
            (group_gradient + f * risk.l2 * theta) / (1 - f) if keep else group_gradient
        )  # eq. (8), ridge added
        theta1 = -first.value
        if order == 1:
            return [first], (theta1, torch.zeros_like(theta1))
        group_product = _member_curvature(risk, group_weights, theta1)  # f H_U theta1
        if keep:
            # H_d theta1 minus this right-hand side is (H - l2 I - H_U) theta1: damping cancels
            second = inverse((group_product + f * (risk.l2 + damping) * theta1) / (1 - f))
            theta2 = f / (1 - f) * theta1 - second.value  # eq. (15), ridge added, slip 15 corrected
        else:
            second = inverse(group_product)
            theta2 = -second.value
        if not third_derivative:
            return [first, second], (theta1, theta2)
        everyone = weighted_risks(risk, risk.weights_or_ones().expand(len(rest), -1))
        third = inverse(everyone.third_products(theta, theta1))
        return [first, second, third], (theta1, theta2 - third.value / 2)

    return step


def _member_curvature(risk: Risk, weights: Float[Tensor, "g n"], v: Float[Tensor, "g p"]) -> Float[Tensor, "g p"]:
    """Return 1/n sum_i w_gi H_i v_g, row by row, H_i without ridge; only examples that some group holds are read."""
    members = (weights != 0).any(0).nonzero()[:, 0]
    part = risk.subset(members)  # its 1/n is 1 over the members
    theta = risk.theta.expand(len(v), -1)
    product = weighted_risks(part, weights[:, members]).operator(theta)(v) - risk.l2 * v
    return product * (len(members) / risk.n)


def _newton_steps(risk: Risk, damping: float, weighting: str):
    """Return a function (rest weights, f) -> solutions, (movement, 0): -H_rest^-1 grad R_rest, row by row."""
    shared = functools.cache(lambda: preconditioner(risk, damping=damping))
    bound = isinstance(risk, ElboRisk)
    options = {"offers": ("damping",), "curvature": "hessian", "solver": "cg", "has_ridge": not bound}
    remedies = risk_remedies(risk.theta.dtype, **options)
    if not bound:
        remedies = replace(remedies, direct="pass order=2", definite=f"pass order=1 with {DENSE_INDEFINITE}")

    def step(rest: Float[Tensor, "g n"], f: Float[Tensor, "g 1"]) -> tuple[list, tuple[Tensor, Tensor]]:
        remaining = weighted_risks(risk, rest)
        theta = risk.theta.expand(len(rest), -1)
        product = remaining.operator(theta)
        own = remaining_inverse(risk, rest, 1 / (1 - f) if weighting == "preserve" else torch.ones_like(f), damping)
        solution = cg(lambda v: product(v) + damping * v, -remaining.gradients(theta), preconditioner=own or shared())
        return [replace(solution, remedies=remedies)], (solution.value, torch.zeros_like(theta))

    return step
