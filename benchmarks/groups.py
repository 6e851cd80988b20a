"""Thousands of groups: of a softmax regression with one factorisation against CG for each, and of a large network."""

from __future__ import annotations

import resource
import time
from statistics import median

import torch

import explainlib as xl
from benchmarks.timing import Row
from explainlib.curvature.hessian import hessian_operator
from explainlib.solvers import cg
from explainlib.solvers.eigenbasis import ekfac_solve
from explainlib.training.weighted import weighted_risks

N, D, CLASSES, GROUPS = 10_000, 784, 10, 1_000
LOOPED = 3  # groups that the loop is timed on; the rest is multiplied
WIDTHS, EXAMPLES, NETWORK_GROUPS, TESTS = [784, 1_024, 384, 10], 4_000, 2_000, 20
NETWORK_LOOPED = 20


def rows() -> list[Row]:
    """Return a network's groups first, whose memory is the process's peak, then those of a softmax regression."""
    return [network_row(), softmax_row()]


def network_row(*, memory: float = 2e8) -> Row:
    """Return first-order loss changes with EK-FAC against a loop over groups; its fit is in neither.

    The loop solves for the tests once, and takes one backward pass a group.
    """
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(CLASSES, (EXAMPLES,), generator=generator)
    x = torch.randn(CLASSES, D, generator=generator)[y] * 0.3 + torch.randn(EXAMPLES, D, generator=generator)
    train, test = xl.datasets.Examples(x, y), xl.datasets.Examples(x[:TESTS] + 0.1, y[:TESTS])
    model = xl.training.fit(xl.models.mlp(WIDTHS, "relu"), train, epochs=1, lr=0.05).model
    risk = xl.Risk(model, train, l2=1e-3)
    sizes = torch.randint(20, 201, (NETWORK_GROUPS,), generator=generator).tolist()
    groups = [torch.randperm(EXAMPLES, generator=generator)[:size] for size in sizes]
    fitted = xl.curvature.Ekfac(risk, memory=memory)
    how = {"curvature": fitted, "damping": 1e-3, "weighting": "plain", "memory": memory}
    before = peak_bytes()
    started = time.perf_counter()
    ours = xl.influence.removal_loss_change(risk, groups, test, **how)
    seconds = time.perf_counter() - started
    more = (peak_bytes() - before) / 1e9
    started = time.perf_counter()
    solved = ekfac_solve(fitted, risk.loss_gradients(test), damping=1e-3).value
    solving = time.perf_counter() - started
    times, looped = [], []
    for group in groups[:NETWORK_LOOPED]:
        started = time.perf_counter()
        looped.append(solved @ summed_gradient(model, train[group]) / EXAMPLES)
        times.append(time.perf_counter() - started)
    worst = float((torch.stack(looped, 1) - ours[:, :NETWORK_LOOPED]).abs().max() / ours.abs().max())
    plain = solving + sum(times) / NETWORK_LOOPED * NETWORK_GROUPS
    what = (
        f"{NETWORK_GROUPS} groups, network p={risk.p / 1e6:.1f}M, {TESTS} tests, EK-FAC; to {worst:.0e}, {more:.2f} GB"
    )
    return Row(what, seconds, plain, "-", True)


def summed_gradient(model: torch.nn.Module, examples: xl.datasets.Examples) -> torch.Tensor:
    """The plain loop's body: one backward pass of the group's summed loss."""
    loss = torch.nn.functional.cross_entropy(model(examples.x), examples.y, reduction="sum")
    return torch.cat([part.reshape(-1) for part in torch.autograd.grad(loss, list(model.parameters()))])


def peak_bytes() -> int:
    """Return the process's peak memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def softmax_row() -> Row:
    """Return the ratio for first and second order together; the loop's CG stops at the agreement that is printed."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(CLASSES, (N,), generator=generator)
    centres = torch.randn(CLASSES, D, generator=generator, dtype=torch.float64)
    x = (centres[y] * 0.1 + torch.randn(N, D, generator=generator, dtype=torch.float64)) / D**0.5 * 4
    risk = xl.Risk(xl.models.logistic(D, CLASSES).double(), xl.datasets.Examples(x, y), l2=1e-2)
    risk = xl.training.minimise(risk)
    groups = [torch.randperm(N, generator=generator)[:500] for _ in range(GROUPS)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    ours = xl.influence.removal_effect(risk, groups, order=2)
    seconds = time.perf_counter() - started
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    times, worst = [], 0.0
    for g in range(LOOPED):
        started = time.perf_counter()
        change = second_order_by_cg(risk, groups[g])
        times.append(time.perf_counter() - started)
        worst = max(worst, float((change - ours.change[g]).norm() / ours.change[g].norm()))
    looped = median(times) * GROUPS
    what = f"{GROUPS} groups, {N} x {D} x {CLASSES}, second order; agree to {worst:.0e}, {peak:.1f} GiB more"
    return Row(what, seconds, looped, "15x", looped / seconds >= 15 and peak < 3)


def second_order_by_cg(risk: xl.Risk, group: torch.Tensor) -> torch.Tensor:
    """The plain loop's body: two CG solves with the full Hessian for one group, "preserve"."""
    f = len(group) / risk.n
    product = hessian_operator(risk)
    members = torch.zeros(1, risk.n, dtype=risk.theta.dtype)
    members[0, group] = 1.0
    alone, theta = weighted_risks(risk, members), risk.theta[None]
    pull = alone.gradients(theta) - risk.l2 * theta
    theta1 = -cg(product, (pull + f * risk.l2 * theta) / (1 - f), tolerance=1e-9).value
    curved = alone.operator(theta)(theta1) - risk.l2 * theta1
    theta2 = f / (1 - f) * theta1 - cg(product, (curved + f * risk.l2 * theta1) / (1 - f), tolerance=1e-9).value
    return (theta2 - theta1)[0]
