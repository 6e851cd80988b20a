"""The columns: what a function of the library returns, against the same by the plain oracle.

A column calls the library and returns what judges the answer, so that an error tells whose it is. The number is
|ours - oracle| / |oracle| over the whole table. For task and bilevel influence it is that of the equation that defines
them: the curvature times the result, by differences along the result, against minus the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

import explainlib as xl
from benchmarks.quality.families import WORDS, Family
from benchmarks.quality.plain import Plain, along, matrix, twice_along

L2, DAMPING, GROUPS = 1.0, 0.5, [[0, 2, 5], [1, 7]]
INNER_LR, STRENGTH, TASKS = 0.3, 20.0, 3
RATES = (0.3, 0.1)
Judge = Callable[[], float]


class Case:
    """One model with data: what the library is given, and the oracle; both made when they are first asked for.

    Args:
        family: which.
        dtype: of the library's side; the oracle works in float64 on the same numbers.
    """

    def __init__(self, family: Family, dtype: torch.dtype = torch.float64) -> None:
        self.family, self.dtype = family, torch.float16 if family.half else dtype
        self.generator = torch.Generator().manual_seed(1)
        self.model: nn.Module = family.model().to(self.dtype)
        self.train, self.test = self._examples(8), self._examples(3)

    def _inputs(self, *n: int) -> Tensor:
        if self.family.shape is None:
            return torch.randint(0, WORDS, (*n, 5), generator=self.generator)
        return torch.randn(*n, *self.family.shape, generator=self.generator, dtype=torch.float64).to(self.dtype)

    def _examples(self, n: int) -> xl.datasets.Examples:
        return xl.datasets.Examples(self._inputs(n), torch.arange(n) % 3)

    @cached_property
    def tasks(self) -> xl.datasets.Tasks:
        """Tasks of three ways; tokens as whole floating-point numbers."""
        sides = []
        for each in (2, 1):
            sides += [self._inputs(TASKS, 3 * each).to(self.dtype), torch.arange(3).repeat(TASKS, each)]
        return xl.datasets.Tasks(*sides)

    @cached_property
    def risk(self) -> xl.Risk:
        return xl.Risk(self.model, self.train, l2=L2)

    @cached_property
    def trajectory(self) -> xl.training.Trajectory:
        """Two checkpoints, the model's own and one near by, each with the model's buffers."""
        now = torch.cat([p.detach().reshape(-1) for p in self.model.parameters()])
        moves = torch.cat([
            torch.full((p.numel(),), -0.01 if p.requires_grad else 0.0, dtype=p.dtype) for p in self.model.parameters()
        ])  # fmt: skip
        buffers = tuple({k: b.clone() for k, b in self.model.named_buffers()} for _ in RATES)
        checkpoints = torch.stack([now, now + moves * now.abs()])
        return xl.training.Trajectory(self.model, checkpoints, torch.tensor(RATES, dtype=self.dtype), buffers=buffers)

    @cached_property
    def plain(self) -> Plain:
        made = Plain(self.family, self.model)
        made.require_sound(self.train.x)
        return made

    def risk_gradient(self, v: Tensor) -> Tensor:
        return self.plain.gradient(v, self.train.x, self.train.y) + L2 * v

    @cached_property
    def hessian(self) -> Tensor:
        return matrix(self.risk_gradient, self.plain.theta)

    def losses(self, part: xl.datasets.Examples, plain: Plain | None = None) -> Tensor:
        plain = plain or self.plain
        return plain.loss_rows(plain.theta, part.x, part.y)

    @cached_property
    def train_losses(self) -> Tensor:
        return self.losses(self.train)

    @cached_property
    def test_losses(self) -> Tensor:
        return self.losses(self.test)


def error(got: Tensor, want: Tensor) -> float:
    """Return |got - want| / |want|."""
    return float((got.double() - want).norm() / want.norm())


def _influence(curved: Tensor, case: Case) -> Tensor:
    damped = curved + DAMPING * torch.eye(len(curved), dtype=curved.dtype)
    return -case.test_losses @ torch.linalg.solve(damped, case.train_losses.T)


def dense(case: Case) -> Judge:
    got = xl.influence.loss_influence(case.risk, case.test, damping=DAMPING)
    return lambda: error(got, _influence(case.hessian, case))


def cg(case: Case) -> Judge:
    got = xl.influence.loss_influence(case.risk, case.test, solver="cg", damping=DAMPING)
    return lambda: error(got, _influence(case.hessian, case))


def ekfac(case: Case) -> Judge:
    got = xl.influence.loss_influence(case.risk, case.test, curvature="ekfac", damping=DAMPING)
    return lambda: error(got, _influence(xl.curvature.Ekfac(case.risk).matrix().double(), case))


def _removed(case: Case, third: bool) -> Tensor:
    theta, n, found = case.plain.theta, len(case.train), []
    for group in GROUPS:
        f = len(group) / n
        mean = lambda v, group=group: case.plain.gradient(v, case.train.x[group], case.train.y[group])  # noqa: E731
        first = -torch.linalg.solve(case.hessian, f * mean(theta) + f * L2 * theta) / (1 - f)
        second = f / (1 - f) * (first - torch.linalg.solve(case.hessian, along(mean, theta, first) + L2 * first))
        if third:
            second -= torch.linalg.solve(case.hessian, twice_along(case.risk_gradient, theta, first)) / 2
        found.append(second - first)
    return torch.stack(found)


def second_order(case: Case) -> Judge:
    got = xl.influence.removal_effect(case.risk, GROUPS, order=2).change
    return lambda: error(got, _removed(case, third=False))


def third_order(case: Case) -> Judge:
    got = xl.influence.removal_effect(case.risk, GROUPS, order=2, third_derivative=True).change
    return lambda: error(got, _removed(case, third=True))


def ntk(case: Case) -> Judge:
    got = xl.representers.kernel(case.model, case.test.x, case.train.x, kind="ntk")

    def judge() -> float:
        plain, want = case.plain, torch.zeros(len(case.test), len(case.train), dtype=torch.float64)
        for c in range(plain.outputs(plain.theta, case.test.x).shape[1]):
            sides = [plain.rows(plain.theta, part.x, lambda f, i, c=c: f[0, c]) for part in (case.test, case.train)]
            want += sides[0] @ sides[1].T
        return error(got, want)

    return judge


def tracin(case: Case) -> Judge:
    got = xl.influence.tracin(case.trajectory, case.train, case.test)

    def judge() -> float:
        mask = torch.cat([torch.full((p.numel(),), p.requires_grad) for p in case.model.parameters()])
        want = torch.zeros(len(case.test), len(case.train), dtype=torch.float64)
        for at, rate in zip(case.trajectory.checkpoints, RATES, strict=True):
            there = case.plain.held(at[mask].double())
            want -= rate * case.losses(case.test, there) @ case.losses(case.train, there).T
        return error(got, want)

    return judge


def trak(case: Case) -> Judge:
    got = xl.influence.trak(case.risk, case.test, features=None, damping=DAMPING)

    def rows(part: xl.datasets.Examples) -> Tensor:
        def odds(f: Tensor, i: int) -> Tensor:
            own = one_hot(part.y[i], f.shape[1]).bool()
            return f[0, part.y[i]] - f[0].masked_fill(own, -torch.inf).logsumexp(0)

        return case.plain.rows(case.plain.theta, part.x, odds)

    def judge() -> float:
        phi, y = rows(case.train), case.train.y
        doubt = 1 - case.plain.outputs(case.plain.theta, case.train.x).detach().softmax(1)[torch.arange(len(y)), y]
        damped = phi.T @ phi + DAMPING * torch.eye(phi.shape[1], dtype=torch.float64)
        return error(got, -rows(case.test) @ torch.linalg.solve(damped, phi.T) * doubt)

    return judge


def task_influence(case: Case) -> Judge:
    learner, tasks = xl.meta.Maml(case.model, inner_lr=INNER_LR), case.tasks
    found = xl.influence.TaskInfluence(learner, learner.w0, tasks, keep=None, damping=DAMPING, l2=L2)

    def judge() -> float:
        support = Plain(case.family, case.model, batch_statistics=True)
        support.require_sound(tasks.support_x[0])
        each = [_meta_gradient(support, tasks, k) for k in range(TASKS)]
        meta, gradients = found.meta.double(), torch.stack([one(support.theta) for one in each])
        curved = torch.stack([sum(along(one, support.theta, row) for one in each) / TASKS for row in meta])
        return error(curved + (L2 + DAMPING) * meta, -gradients)

    return judge


def _meta_gradient(support: Plain, tasks: xl.datasets.Tasks, k: int) -> Callable[[Tensor], Tensor]:
    """Return v -> (I - inner_lr H_support) grad l_query(v - inner_lr grad l_support) of task k."""
    inner = lambda v: support.gradient(v, tasks.support_x[k], tasks.support_y[k])  # noqa: E731
    query = support.held(support.theta - INNER_LR * inner(support.theta))

    def gradient(v: Tensor) -> Tensor:
        outer = query.gradient(v - INNER_LR * inner(v), tasks.query_x[k], tasks.query_y[k])
        return outer - INNER_LR * along(inner, v, outer)

    return gradient


def bilevel(case: Case) -> Judge:
    learner, tasks = xl.meta.Bilevel(case.model, strength=STRENGTH, l2=L2), case.tasks
    found = xl.influence.BilevelInfluence(learner, learner.lam0, tasks)
    rows = torch.stack([found.task(k) for k in range(TASKS)]).double()
    inner = learner.inner_solution(learner.lam0, tasks).double()

    def judge() -> float:
        lam, parts = case.plain.theta, (tasks.support_x, tasks.support_y, tasks.query_x, tasks.query_y)
        each = [_Inner(case.plain, [part[k] for part in parts], inner[k]) for k in range(TASKS)]
        if not all(one.solved for one in each):
            return torch.inf
        gradients = torch.stack([one.total(lam) for one in each])
        curved = torch.stack([sum(along(one.total, lam, row) for one in each) for row in rows])
        return error(curved + L2 * rows, -gradients)

    return judge


class _Inner:
    """theta(lam) of one task, and the total gradient D f = strength H^-1 grad f.

    A network has several inner solutions: the oracle starts at the library's and requires that it is one. Near by, the
    matrix there is good enough for steps that are repeated until they vanish.
    """

    def __init__(self, plain: Plain, task: list[Tensor], start: Tensor) -> None:
        self.sx, self.sy, self.qx, self.qy = task
        self.at, self.start = plain.held(start), start
        curved = matrix(lambda v: self.pull(v, plain.theta), start)
        self.inverse = torch.linalg.inv(curved)
        away = (self.inverse @ self.pull(start, plain.theta)).norm() / start.norm()
        self.solved = bool(away < 1e-8 and torch.linalg.eigvalsh((curved + curved.T) / 2)[0] > 0)

    def pull(self, theta: Tensor, lam: Tensor) -> Tensor:
        """Return the gradient of the inner objective in theta."""
        return self.at.gradient(theta, self.sx, self.sy, "sum") + STRENGTH * (theta - lam)

    def total(self, lam: Tensor) -> Tensor:
        """Return D f."""
        theta = _repeated(self.start, lambda v: self.inverse @ self.pull(v, lam), 1e-15)
        pushed = self.at.gradient(theta, self.qx, self.qy, "sum")
        left = lambda v: self.inverse @ (along(lambda t: self.pull(t, lam), theta, v) - pushed)  # noqa: E731
        return STRENGTH * _repeated(self.inverse @ pushed, left, 1e-13)


def _repeated(at: Tensor, step: Callable[[Tensor], Tensor], tolerance: float) -> Tensor:
    """Return the vector at which the step vanishes."""
    for _ in range(30):
        moved = step(at)
        at = at - moved
        if moved.norm() <= tolerance * at.norm():
            break
    return at


FUNCTIONS: dict[str, Callable[[Case], Judge]] = {
    "loss_influence, dense": dense,
    "loss_influence, cg": cg,
    "removal_effect, order 2": second_order,
    "removal_effect, third derivative": third_order,
    "kernel, ntk": ntk,
    "tracin": tracin,
    "trak": trak,
    "loss_influence, ekfac": ekfac,
    "TaskInfluence.meta": task_influence,
    "BilevelInfluence.task": bilevel,
}
SINGLE = ("loss_influence, dense", "loss_influence, cg", "kernel, ntk", "tracin", "trak")  # also in float32
