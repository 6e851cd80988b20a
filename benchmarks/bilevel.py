"""Bilevel influence on 325 parameters: the exact total Hessian against re-solving, and 1,000 tasks in one batch."""

from __future__ import annotations

from statistics import median

import torch

import explainlib as xl
from benchmarks.timing import Row, seconds
from explainlib.datasets import Tasks
from explainlib.influence.bilevel.influence import BilevelInfluence
from explainlib.meta.bilevel.learner import Bilevel
from explainlib.meta.bilevel.solve import solve

FEATURES, WAYS, EACH, SAMPLES = 64, 5, 5, 3
FEW, MANY, REMOVED = 20, 1000, 3
COLUMNS = 20  # columns of the difference quotient that are timed; the rest is multiplied
STEP = 1e-4


def rows() -> list[Row]:
    """Return the Hessian's ratio to differences of re-solved problems, and the time of 1,000 tasks' influence."""
    torch.set_num_threads(1)
    learner = Bilevel(xl.models.logistic(FEATURES, WAYS, dtype=torch.float64), strength=2.0, l2=1.0)
    tasks = random_tasks(FEW)
    lam = learner.lam0
    exact = learner.total_hessian(lam, tasks)
    found = by_solving_again(learner, lam, tasks)
    agree = float((found - exact[:, :COLUMNS]).norm() / exact[:, :COLUMNS].norm())
    samples = []
    for _ in range(SAMPLES):  # interleaved
        slow = seconds(lambda: by_solving_again(learner, lam, tasks)) / COLUMNS * learner.q
        samples.append((slow, seconds(lambda: learner.total_hessian(lam, tasks))))
    slow, fast = (median(column) for column in zip(*samples, strict=True))
    many = random_tasks(MANY)
    solved = solve(learner, many, tolerance=1e-7).w
    influence = seconds(lambda: BilevelInfluence(learner, solved, many).tasks())
    whole, again = removal_times(learner, tasks)
    what = f"total Hessian, {learner.q} parameters, {FEW} tasks"
    return [
        Row(f"{what} (agree {agree:.0e})", fast, slow, "80x", slow / fast >= 80),
        Row(f"task influence of all {MANY} tasks", influence, None, "30 s", influence <= 30),
        Row(f"all {FEW} task removals by formula, against retraining each", whole, again, "5x", again / whole >= 5),
    ]


def random_tasks(count: int) -> Tasks:
    """Return tasks of five overlapping classes with 25 training and 25 validation examples."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(WAYS).repeat_interleave(EACH).expand(count, -1)
    centres = torch.randn(count, WAYS, FEATURES, generator=g, dtype=torch.float64)
    x, z = (
        torch.repeat_interleave(centres, EACH, 1)
        + 2 * torch.randn(count, WAYS * EACH, FEATURES, generator=g, dtype=torch.float64)
        for _ in range(2)
    )
    return Tasks(x / 4, y, z / 4, y)


def by_solving_again(learner: Bilevel, lam: torch.Tensor, tasks: Tasks) -> torch.Tensor:
    """Return the first columns of the total Hessian by differences of the total gradient, inner problems re-solved.

    Each re-solve starts at the solution already known, as a person in a hurry would.
    """
    start = learner.inner_solution(lam, tasks)
    columns = []
    for j in range(COLUMNS):
        step = torch.zeros_like(lam)
        step[j] = STEP
        plus, minus = (learner.total_gradients(lam + s * step, tasks, start=start).sum(0) for s in (1, -1))
        columns.append((plus - minus) / (2 * STEP))
    return torch.stack(columns, dim=1)


def removal_times(learner: Bilevel, tasks: Tasks) -> tuple[float, float]:
    """Return the seconds for every task's removal by formula, and by solving again (timed on a few)."""
    lam = solve(learner, tasks, tolerance=1e-8).w
    weights = 1 - torch.eye(len(tasks), dtype=lam.dtype)

    def again() -> None:
        for k in range(REMOVED):
            solve(learner, tasks, tolerance=1e-8, weights=weights[k], start=lam)

    formula = seconds(lambda: lam - BilevelInfluence(learner, lam, tasks).tasks())
    return formula, seconds(again) / REMOVED * len(tasks)
