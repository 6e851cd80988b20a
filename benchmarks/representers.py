"""The n x n neural tangent kernel of the 93k network: layer by layer, against per-example gradients that are formed."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import explainlib as xl
from benchmarks.timing import Row, seconds
from explainlib.curvature.empirical_fisher import empirical_fisher_operator
from explainlib.datasets import Examples

N, CHUNK = 5000, 250
TESTS, BY_CG = 100, 10  # tests whose influences are found, and those that CG solves for
T = TypeVar("T")


def rows() -> list[Row]:
    """Return the kernel's ratio on each data set, each side once after a warm-up on few, and influence against CG.

    The plain sides take most of a minute each, and minutes.
    """
    found = []
    for source, train in images().items():
        model = xl.training.fit(
            xl.models.cnn3(1, 10), train, epochs=3, lr=2e-3, batch_size=50, optimizer="adam"
        ).model  # fmt: skip
        found.append(kernel_row(model, train.x, source))
    return [*found, influence_row(model, train)]


def kernel_row(model: nn.Module, x: Tensor, source: str) -> Row:
    """Return the kernel's time, layer by layer and formed. No ratio is asked for; the memory is bounded."""
    ours, plain = lambda z: xl.representers.kernel(model, z, z, output=0), lambda z: formed(model, z)
    few = float((ours(x[:200]) - plain(x[:200])).abs().max() / plain(x[:200]).abs().max())
    with Peak() as peak:
        own = seconds(lambda: ours(x))
    other = seconds(lambda: plain(x))
    what = f"NTK, p=93,962, {N} {source}, {peak.gib:.1f} GiB more (differs {few:.0e})"
    return Row(what, own, other, "1.5 GB", peak.gib * 2**30 < 1.5e9)


def influence_row(model: nn.Module, train: Examples) -> Row:
    """Return TESTS x N influences in float64 through Gram matrices, against conjugate gradients for some of the tests.

    The damping is a thousandth of the curvature's largest eigenvalue, so CG has work to do.
    """
    risk = xl.Risk(copy.deepcopy(model).double(), train.double())
    test = risk.train[torch.arange(TESTS) * (N // TESTS)]
    product = empirical_fisher_operator(risk)
    v = risk.loss_gradients(test).sum(0, keepdim=True)
    for _ in range(8):  # towards the largest eigenvalue
        v = product(v / v.norm())
    damping = 1e-3 * float(v.norm())

    def find() -> Tensor:
        return xl.influence.loss_influence(
            risk, test, curvature="empirical_fisher", damping=damping, solver="low_rank"
        )  # fmt: skip

    def iterate() -> xl.solvers.Solution:
        return xl.solvers.cg(
            lambda v: product(v) + damping * v, risk.loss_gradients(test[torch.arange(BY_CG)]), tolerance=1e-12
        )

    own, ours = timed(find)
    other, solution = timed(iterate)
    columns = [risk.loss_gradients(risk.train[part]) for part in torch.arange(N).split(1000)]
    theirs = -torch.cat([solution.value @ g.T for g in columns], dim=1)
    apart = float((ours[:BY_CG] - theirs).norm() / theirs.norm())
    what = f"influence {TESTS} x {N}, float64; CG {BY_CG} tests, {solution.steps} steps, differs {apart:.0e}"
    return Row(what, own, other, "1e-8", apart <= 1e-8)


def timed(action: Callable[[], T]) -> tuple[float, T]:
    """Return seconds, and what the action returned."""
    started = time.perf_counter()
    found = action()
    return time.perf_counter() - started, found


def images() -> dict[str, Examples]:
    """Return 1,500 digits scaled up to 28 x 28 and repeated, and 5,000 MNIST digits where their files are at hand."""
    digits = xl.datasets.load("digits").train
    x = nn.functional.interpolate(digits.x.view(-1, 1, 8, 8), size=28, mode="bilinear")
    times = -(-N // len(x))
    found = {"digits": Examples(x.repeat(times, 1, 1, 1)[:N], digits.y.repeat(times)[:N], digits.classes)}
    try:
        train = xl.datasets.load("mnist").train
    except FileNotFoundError:
        return found
    return found | ({"MNIST": train[torch.arange(N)]} if len(train) >= N else {})


class Peak:
    """The largest growth of this process's memory inside a block, looked at a hundred times a second."""

    def __enter__(self) -> Peak:
        self.start, self.most, self.over = resident(), 0, threading.Event()
        self.watch = threading.Thread(target=self.look, daemon=True)
        self.watch.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.watch.join()

    @property
    def gib(self) -> float:
        """The growth in GiB."""
        return max(0, self.most - self.start) / 2**30

    def look(self) -> None:
        """Look until the block is over."""
        while not self.over.wait(0.01):
            self.most = max(self.most, resident())


def resident() -> int:
    """Return the bytes of this process that are in memory; 0 where the system does not say."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * 4096 if status.is_file() else 0


def formed(model: nn.Module, x: Tensor) -> Tensor:
    """Return G G^T with all per-example gradients G in memory, made in chunks by vmap."""
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def output(named: dict[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(model, named, (one[None],))[0, 0]

    each = vmap(grad(output), in_dims=(None, 0))
    found = [torch.cat([g.flatten(1) for g in each(parameters, part).values()], dim=1) for part in x.split(CHUNK)]
    gradients = torch.cat(found)
    return gradients @ gradients.T
