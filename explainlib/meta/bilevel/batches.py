"""How many tasks go into one batch: as many as keep within a bounded number of numbers, and at least one."""

from __future__ import annotations

from explainlib.datasets import Tasks
from explainlib.meta.bilevel.problem import Problem
from explainlib.meta.bilevel.state import ROWS

NUMBERS = 2**24  # in memory at once
VECTORS = 8  # of each row of a product, which conjugate gradients hold at once
ACTIVATIONS = 256  # numbers kept for the derivatives of a network, for each number of its inputs


def tasks_per_batch(problem: Problem, tasks: Tasks, outputs: int, *, closed_form: bool) -> int:
    """Return how many tasks one batch has.

    Args:
        problem: both levels.
        tasks: any; all are of one size.
        outputs: C.
        closed_form: whether the total Hessian has one.
    """
    s, r, p, q = tasks.support_y.shape[1], tasks.query_y.shape[1], problem.theta0.numel(), problem.lam0.numel()
    inputs = tasks.support_x[0].numel() + tasks.query_x[0].numel()
    if problem.matrix_free and not problem.convex:
        return max(1, NUMBERS // (VECTORS * ROWS * p + ACTIVATIONS * inputs))
    woodbury = problem.convex and s * outputs < p
    inner = 4 * (s * outputs) ** 2 if woodbury else 4 * p**2
    rows = 3 * (s + r) * outputs * p if closed_form else (3 * p + ROWS) * (p + q)
    return max(1, NUMBERS // (inner + rows + 64 * inputs))
