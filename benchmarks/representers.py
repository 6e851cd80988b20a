"""The n x n neural tangent kernel of the 93k network: layer by layer, against per-example gradients that are formed."""

from __future__ import annotations

import threading
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import explainlib as xl
from benchmarks.timing import Row, seconds
from explainlib.datasets import Examples
from explainlib.layerwise import graded

N, CHUNK = 5000, 250


def rows() -> list[Row]:
    """Return one ratio, each side once after a warm-up on few examples: the plain side takes most of a minute."""
    train, source = images()
    model = xl.training.fit(
        xl.models.cnn3(1, 10), train, epochs=3, lr=2e-3, batch_size=50, optimizer="adam"
    ).model  # fmt: skip
    x = train.x
    ours, plain = lambda z: xl.representers.kernel(model, z, z, output=0), lambda z: formed(model, z)
    few = float((ours(x[:200]) - plain(x[:200])).abs().max() / plain(x[:200]).abs().max())
    with Peak() as peak:
        own = seconds(lambda: ours(x))
    other = seconds(lambda: plain(x))
    route = "int8 units" if graded.available(x) else "float32"
    what = f"NTK, p=93,962, {N} {source}, {route}, {peak.gib:.1f} GiB more (differs {few:.0e})"
    return [Row(what, own, other, "3.5x", other / own >= 3.5 and peak.gib * 2**30 < 1.5e9)]


def images() -> tuple[Examples, str]:
    """Return 5,000 MNIST digits where their files are at hand, else 1,500 digits scaled up to 28 x 28, repeated."""
    try:
        train = xl.datasets.load("mnist").train
        if len(train) >= N:
            return train[torch.arange(N)], "MNIST"
    except FileNotFoundError:
        pass
    digits = xl.datasets.load("digits").train
    x = nn.functional.interpolate(digits.x.view(-1, 1, 8, 8), size=28, mode="bilinear")
    times = -(-N // len(x))
    return Examples(x.repeat(times, 1, 1, 1)[:N], digits.y.repeat(times)[:N], digits.classes), "digits"


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
