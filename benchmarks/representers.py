"""The n x n neural tangent kernel of the 93k network: layer by layer, against per-example gradients that are formed."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

import explainlib as xl
from benchmarks.timing import Row, seconds

N, CHUNK = 5000, 250


def rows() -> list[Row]:
    """Return one ratio, each side once after a warm-up on few examples: the plain side takes most of a minute."""
    digits = xl.datasets.load("digits").train
    x = nn.functional.interpolate(digits.x.view(-1, 1, 8, 8), size=28, mode="bilinear")
    many = x.repeat(4, 1, 1, 1)[:N]
    train = xl.datasets.Examples(x[:1000], digits.y[:1000], digits.classes)
    model = xl.training.fit(xl.models.cnn3(1, 10), train, epochs=5, lr=0.3, batch_size=50, optimizer="sgd").model
    ours, plain = lambda z: xl.representers.kernel(model, z, z, output=0), lambda z: formed(model, z)
    few = float((ours(many[:200]) - plain(many[:200])).abs().max() / plain(many[:200]).abs().max())
    own, other = seconds(lambda: ours(many)), seconds(lambda: plain(many))
    return [Row(f"NTK of 93,962 parameters, n={N} (differs by {few:.0e})", own, other, "3.5x", other / own >= 3.5)]


def formed(model: nn.Module, x: Tensor) -> Tensor:
    """Return G G^T with all per-example gradients G in memory, made in chunks by vmap."""
    parameters = {name: value.detach() for name, value in model.named_parameters()}

    def output(named: dict[str, Tensor], one: Tensor) -> Tensor:
        return functional_call(model, named, (one[None],))[0, 0]

    each = vmap(grad(output), in_dims=(None, 0))
    found = [torch.cat([g.flatten(1) for g in each(parameters, part).values()], dim=1) for part in x.split(CHUNK)]
    gradients = torch.cat(found)
    return gradients @ gradients.T
