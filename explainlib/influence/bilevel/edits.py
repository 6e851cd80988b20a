"""Editing the meta-parameters by one Newton step of the remaining problem, without some tasks or examples.

    lam - S_-^-1 grad F_-(lam),     F_- = F - (terms of the changed tasks before) + (their terms now)

S_- and grad F_- are exact, so the step includes the change of the curvature; lam - influence is its first order.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from explainlib.datasets import Tasks
from explainlib.influence.bilevel.curvature import Operator, solver_of
from explainlib.meta.bilevel import Bilevel, TaskWeights
from explainlib.solvers.solution import Solution


def newton_edit(
    bilevel: Bilevel,
    lam: Float[Tensor, " q"],
    gradient: Float[Tensor, " q"],
    whole: Float[Tensor, "q q"] | Operator,
    changed: Tasks,
    *,
    before: TaskWeights,
    now: TaskWeights | None,
    solver: str = "dense",
    options: dict[str, int | float | None] | None = None,
) -> Solution:
    """Return the step S_-^-1 grad F_- [1, q]; lam minus it is the edited lam.

    Args:
        bilevel: the learner.
        lam: meta-parameters [q].
        gradient: grad F(lam), the outer ridge included.
        whole: the exact S as a matrix for solver "dense", otherwise as products.
        changed: the tasks that change.
        before: their weights, and their examples', in F.
        now: the weights after the edit; None removes the tasks.
        solver: "dense", "cg" or "neumann".
        options: of the solver.

    Returns:
        Solution; its status is not checked here.
    """
    gradient = gradient - before.tasks @ bilevel.total_gradients(lam, changed, weights=before)
    if now is not None:
        gradient = gradient + now.tasks @ bilevel.total_gradients(lam, changed, weights=now)
    if isinstance(whole, Tensor):
        system = whole - bilevel.total_hessian(lam, changed, weights=before)
        if now is not None:
            system = system + bilevel.total_hessian(lam, changed, weights=now)
        return solver_of(solver, system)(gradient[None])
    old_operator = bilevel.hessian_operator(lam, changed, weights=before)
    new_operator = None if now is None else bilevel.hessian_operator(lam, changed, weights=now)

    def product(v: Float[Tensor, "k q"]) -> Float[Tensor, "k q"]:
        left = whole(v) - old_operator(v)
        return left if new_operator is None else left + new_operator(v)

    return solver_of(solver, product, **(options or {}))(gradient[None])
