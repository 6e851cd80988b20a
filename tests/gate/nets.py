"""Random networks of every family, and the same with one layer whose backward is wrong by one percent."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DOUBLE = torch.float64
SMOOTH = (nn.Tanh, nn.GELU, nn.SiLU, nn.Softplus, nn.Sigmoid, nn.ELU)
KINKED = (nn.ReLU, nn.LeakyReLU, nn.Hardtanh, nn.ReLU6, nn.Hardsigmoid)
NORMS = (nn.Identity, nn.LayerNorm, nn.BatchNorm1d, nn.RMSNorm)


class OffByOnePercent(torch.autograd.Function):
    """The identity, whose backward is one percent too long; written so that torch.func can use it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return 1.01 * g


class Broken(nn.Module):
    """A sound layer followed by a wrong backward."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return OffByOnePercent.apply(self.layer(x))


def number(g: torch.Generator, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (), generator=g))


def perceptron(g: torch.Generator) -> tuple[nn.Module, Tensor]:
    widths = [number(g, 2, 6), *[number(g, 3, 12) for _ in range(number(g, 1, 4))], number(g, 1, 4)]
    layers: list[nn.Module] = []
    for before, after in zip(widths[:-2], widths[1:-1], strict=True):
        act = (*SMOOTH, *KINKED)[number(g, 0, len(SMOOTH) + len(KINKED) - 1)]
        layers += [nn.Linear(before, after), NORMS[number(g, 0, 3)](after), act()]
    layers.append(nn.Linear(widths[-2], widths[-1]))
    return nn.Sequential(*layers), torch.randn(7, widths[0], generator=g, dtype=DOUBLE)


def convolutional(g: torch.Generator) -> tuple[nn.Module, Tensor]:
    channels, act = number(g, 2, 5), (*SMOOTH, *KINKED)[number(g, 0, len(SMOOTH) + len(KINKED) - 1)]
    pool = (nn.MaxPool2d, nn.AvgPool2d)[number(g, 0, 1)](2)
    norm = (nn.BatchNorm2d(channels), nn.GroupNorm(1, channels), nn.InstanceNorm2d(channels))[number(g, 0, 2)]
    net = nn.Sequential(
        nn.Conv2d(1, channels, 3), norm, act(), pool, nn.Conv2d(channels, 3, 2), act(), nn.Flatten(), nn.Linear(12, 3)
    )
    return net, torch.randn(5, 1, 8, 8, generator=g, dtype=DOUBLE)


class Attentive(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.read, self.block = (
            nn.Linear(3, width),
            nn.TransformerEncoderLayer(width, 2, 2 * width, 0.0, batch_first=True),
        )
        self.answer = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.block(self.read(x)).mean(1))


def transformer(g: torch.Generator) -> tuple[nn.Module, Tensor]:
    return Attentive(2 * number(g, 2, 4)), torch.randn(4, 5, 3, generator=g, dtype=DOUBLE)


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module], width: int) -> None:
        super().__init__()
        self.cell, self.answer = kind(3, width, batch_first=True), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(self.cell(x)[0][:, -1])


def recurrent(g: torch.Generator) -> tuple[nn.Module, Tensor]:
    kind = (nn.LSTM, nn.GRU, nn.RNN)[number(g, 0, 2)]
    return Recurrent(kind, number(g, 2, 5)), torch.randn(4, 4, 3, generator=g, dtype=DOUBLE)


class Words(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.table, self.hidden, self.answer = nn.Embedding(9, width), nn.Linear(width, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.answer(F.gelu(self.hidden(self.table(x).mean(1))))


def words(g: torch.Generator) -> tuple[nn.Module, Tensor]:
    return Words(number(g, 2, 6)), torch.randint(0, 9, (6, 5), generator=g)


FAMILIES = (perceptron, perceptron, convolutional, transformer, recurrent, words)


def sound(seed: int) -> tuple[nn.Module, Tensor]:
    """A random sound network in evaluation mode, its weights scaled at random, and examples."""
    g = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net, x = FAMILIES[seed % len(FAMILIES)](g)
    net = net.double().eval()
    scale = 10 ** (2 * float(torch.rand((), generator=g, dtype=DOUBLE)) - 1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(scale)
    return net, x


def broken(seed: int) -> tuple[nn.Module, Tensor, str]:
    """A random network with one layer's backward wrong by one percent, examples, and that layer's name."""
    g = torch.Generator().manual_seed(1000 + seed)
    with torch.random.fork_rng():
        torch.manual_seed(1000 + seed)
        net, x = FAMILIES[seed % len(FAMILIES)](g)
    hosts = [
        name for name, layer in net.named_modules()
        if name and not list(layer.children()) and type(layer) in (nn.Linear, nn.Conv2d, nn.Embedding, nn.Tanh, nn.GELU, nn.ReLU)
        and not name.startswith("block")
    ]  # fmt: skip
    name = hosts[number(g, 0, len(hosts) - 1)]
    net.set_submodule(name, Broken(net.get_submodule(name)))
    return net.double().eval(), x, name
