"""Nets that hold every layer the engine reads, some that it does not, and the Jacobian that judges all of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from explainlib.params import Parameters
from tests.problems import normal


def seeded(make):
    """Return make() in float64 and in evaluation mode, its weights and running statistics from one seed."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make().double()
        for layer in net.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2.0)
            if isinstance(layer, nn.modules.batchnorm._BatchNorm | nn.LayerNorm | nn.GroupNorm):
                nn.init.normal_(layer.weight)
        return net.eval()


class Text(nn.Module):
    """Embedding, linear layers on every position, LayerNorm; the read-out shares the table's weight on request."""

    def __init__(self, *, tied=False, sequence_first=False):
        super().__init__()
        self.embedding = nn.Embedding(7, 4, padding_idx=0)
        self.mix = nn.Linear(4, 4, bias=False)
        self.norm = nn.LayerNorm(4)
        self.read = nn.Linear(4, 7 if tied else 3)
        self.sequence_first = sequence_first
        if tied:
            self.read.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        h = self.embedding(tokens)
        if self.sequence_first:
            h = self.mix(h.transpose(0, 1)).transpose(0, 1)
        return self.read(self.norm(torch.tanh(self.mix(h))).mean(1))


class Twice(nn.Module):
    """One linear layer and one convolution, each used at two places, the second convolution on a smaller picture."""

    def __init__(self):
        super().__init__()
        self.conv, self.square = nn.Conv2d(2, 2, 3, padding=1), nn.Linear(5, 5)
        self.first, self.read = nn.Linear(2, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.avg_pool2d(torch.tanh(self.conv(x)), 2)
        h = self.first(torch.tanh(self.conv(h)).mean((2, 3)))
        return self.read(self.square(torch.tanh(self.square(h))))


class Hidden(nn.Module):
    """A linear layer whose weight is also read without calling the layer, a bare parameter, and outputs overwritten in place."""

    def __init__(self):
        super().__init__()
        self.inner, self.read = nn.Linear(4, 4), nn.Linear(4, 3)
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.inner(x).tanh_()
        h = functional.linear(h, self.inner.weight) * self.scale
        y = self.read(h)
        return y.add_(h[:, :3].detach())


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.read = nn.LSTM(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.cell(x)[0][:, -1])


def tokens(n=7, length=5):
    return torch.randint(0, 7, (n, length), generator=torch.Generator().manual_seed(0))


def picture_net(**options):
    return lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, **options), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )


# name: (model, x)
READ = {
    "linear": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3, bias=False)), normal(7, 4)),
    "positions": (lambda: nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Flatten(), nn.Linear(30, 3)), normal(7, 2, 3, 4)),
    "conv": (picture_net(), normal(7, 2, 7, 6)),
    "conv without bias": (picture_net(bias=False), normal(7, 2, 7, 6)),
    "conv stride and padding": (picture_net(stride=2, padding=(1, 2)), normal(7, 2, 7, 6)),
    "conv dilation": (picture_net(dilation=2, padding="same"), normal(7, 2, 7, 6)),
    "conv groups": (picture_net(groups=2, padding=1), normal(7, 2, 7, 6)),
    "conv circular": (picture_net(padding=1, padding_mode="circular"), normal(7, 2, 7, 6)),
    "conv1d": (
        lambda: nn.Sequential(
            nn.Conv1d(4, 4, 3, stride=2, padding=2, dilation=2, groups=2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)
        ),
        normal(7, 4, 6),
    ),
    "batch norm": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 3)
        ),
        normal(7, 1, 4, 4),
    ),
    "group norm": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)),
        normal(7, 1, 4, 4),
    ),
    "layer norm": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.LayerNorm([4, 4]), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)),
        normal(7, 2, 6),
    ),
    "text": (Text, tokens()),
    "used twice": (Twice, normal(7, 2, 4, 4)),
}  # fmt: skip

# name: (model, x, parameters that fall back)
FALLBACK = {
    "tied": (lambda: Text(tied=True), tokens(), ["embedding.weight"]),
    "sequence first": (lambda: Text(sequence_first=True), tokens(), ["mix.weight"]),
    "unknown": (lambda: nn.Sequential(nn.Linear(4, 4), nn.PReLU(4), nn.Linear(4, 3)), normal(7, 4), ["1.weight"]),
    "hidden use": (Hidden, normal(7, 4), ["inner.weight", "scale"]),
    "recurrent": (
        Recurrent,
        normal(7, 4, 3),
        ["cell.weight_ih_l0", "cell.weight_hh_l0", "cell.bias_ih_l0", "cell.bias_hh_l0"],
    ),
}


def jacobian(parameters: Parameters, x: Tensor, cotangents: Tensor) -> Tensor:
    """Return d (c_i . f(x_i)) / d theta [n, p], one example at a time by reverse mode; the oracle of the room."""
    rows = [
        torch.autograd.functional.jacobian(
            lambda theta, one=one, c=c: (parameters.outputs(theta, one[None])[0] * c).sum(), parameters.theta
        )
        for one, c in zip(x, cotangents, strict=True)
    ]
    return torch.stack(rows)
