"""The problems of the races: trained on embedded digits, the same numbers wherever they are made."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.utils.data import TensorDataset

import explainlib as xl
from benchmarks.peers.race import Problem
from explainlib.datasets import Examples

PIXELS = 28


def digits(n: int, tests: int, *, flat: bool = False, size: int = PIXELS) -> tuple[Examples, Examples]:
    """Return n training digits and some tests, enlarged; beyond the 1,500 there are, copies moved by a pixel."""
    data = xl.datasets.load("digits")
    shifts = [(a, b) for a in (0, 1, -1) for b in (0, 1, -1)]

    def enlarged(part: Examples, count: int) -> Examples:
        x = part.x.float().view(-1, 1, 8, 8)
        x = x if size == 8 else interpolate(x, size=size, mode="bilinear")
        copies = [x.roll(shift, (2, 3)) for shift in shifts[: -(-count // len(x))]]
        x, y = torch.cat(copies)[:count], part.y.repeat(len(copies))[:count]
        return Examples(x.flatten(1) if flat else x, y)

    return enlarged(data.train, n), enlarged(data.test, tests)


def softmax(n: int, tests: int) -> Problem:
    """Return a softmax regression at its minimum, in float64."""
    data = xl.datasets.load("digits").double()
    model = xl.models.logistic(64, 10, dtype=torch.float64)
    risk = xl.training.minimise(xl.Risk(model, data.train[:n], l2=1e-2))
    return {"model": risk.model, "train": data.train[:n], "test": data.test[:tests], "l2": risk.l2}


def perceptron(n: int, tests: int, hidden: list[int], epochs: int, *, activation: str, damping: float) -> Problem:
    """Return a trained perceptron on digits of 28 x 28, in float32."""
    train, test = digits(n, tests, flat=True)
    widths = [PIXELS**2, *hidden, 10]
    model = xl.models.mlp(widths, activation, dtype=torch.float32)
    fitted = xl.training.fit(model, train, epochs=epochs, batch_size=min(50, n), lr=1e-3)
    return {"model": fitted.model, "train": train, "test": test, "damping": damping, "l2": 0.0} | told(fitted.model)


def convolutional(n: int, tests: int, epochs: int, *, checkpoints: int = 2, damping: float = 0.0) -> Problem:
    """Return a trained convolutional network of 93,962 parameters on digits of 28 x 28, in float32."""
    train, test = digits(n, tests)
    model = xl.models.cnn3(1, 10, dtype=torch.float32)
    options = {"epochs": epochs, "batch_size": min(50, n), "lr": 1e-3, "checkpoints": checkpoints}
    fitted = xl.training.fit(model, train, **options)
    found = {"model": fitted.model, "train": train, "test": test, "damping": damping, "l2": 0.0}
    rates = [float(rate) for rate in fitted.learning_rates]
    return found | {"trajectory": fitted, "checkpoints": list(fitted.checkpoints), "rates": rates} | told(fitted.model)


def told(model: nn.Module) -> dict[str, str]:
    """Return the sentence on a model's size that goes with its problem."""
    return {"told": f"{sum(p.numel() for p in model.parameters()):,} parameters"}


class Reader(nn.Module):
    """A classifier of short texts: embedded tokens, a transformer encoder, the mean over positions, a read-out."""

    def __init__(self, layers: int, width: int, tokens: int, length: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(tokens, width)
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.0, activation="gelu", batch_first=True)
        self.encode = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.read = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of token sequences [n, length]."""
        return self.read(self.encode(self.embed(x) + self.position).mean(1))


def transformer(layers: int, width: int, tokens: int, length: int, n: int, tests: int) -> Problem:
    """Return an untrained transformer encoder and random texts: a kernel's cost does not depend on the training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Reader(layers, width, tokens, length, 4).eval()
        z, x = (torch.randint(0, tokens, (count, length)) for count in (n, tests))
    return {"model": model, "z": z, "x": x} | told(model)


def risk_of(problem: Problem, **options: object) -> xl.Risk:
    """Return explainlib's objective of a problem, made anew so that nothing is cached."""
    return xl.Risk(problem["model"], problem["train"], l2=problem["l2"], **options)


def sets(problem: Problem) -> tuple[TensorDataset, TensorDataset]:
    """Return the training and the test set as PyTorch's data sets."""
    return tuple(TensorDataset(problem[part].x, problem[part].y) for part in ("train", "test"))
