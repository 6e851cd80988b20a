"""Small models of every family, below 150 parameters, and what plain autograd should see in their place.

A ``twin`` is the same function in operations whose first derivative is beyond doubt: a backward of its own is left out,
a value under ``no_grad`` becomes a constant, a table with ``max_norm`` is shortened once. Most models are their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

WORDS = 7
Make = Callable[[], nn.Module]


@dataclass(frozen=True)
class Family:
    """One row of the table.

    Attributes:
        make: the model, its numbers drawn from torch's generator.
        shape: of one example; None is five tokens.
        twin: changes a copy into one for plain autograd.
        half: whether model and examples are in half precision.
    """

    make: Make
    shape: tuple[int, ...] | None = (3,)
    twin: Callable[[nn.Module], nn.Module] = lambda model: model
    half: bool = False

    def model(self) -> nn.Module:
        """Return the model in float64 and evaluation mode; running statistics and scales are not at their start."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = self.make().double()
            for layer in net.modules():
                if isinstance(layer, nn.modules.batchnorm._NormBase) and layer.running_mean is not None:
                    layer.running_mean.normal_()
                    layer.running_var.uniform_(0.5, 2.0)
            with torch.no_grad():
                for p in net.parameters():
                    if p.requires_grad:
                        p.add_(0.1 * torch.randn_like(p))  # norms start at one and zero, LoRA at zero
        net = net.eval()
        return net.half() if self.half else net


class Body(nn.Module):
    """Layers that are run as functions of each other; subclasses say how."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


class ChannelsFirst(nn.LayerNorm):
    """A subclass with a forward of its own: LayerNorm over the channels of [n, c, length]."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.mT, self.normalized_shape, self.weight, self.bias, self.eps).mT


class NormFunction(Body):
    def forward(self, x: Tensor) -> Tensor:
        return self.read(torch.tanh(F.layer_norm(self.first(x), (4,))))


class Attention(Body):
    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.attend(x, x, x, need_weights=False)[0].mean(1))


class Encoder(Body):
    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.encode(x).mean(1))


class Recurrent(Body):
    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.cell(x)[0][:, -1])


class Words(Body):
    """A table, the mean over tokens, a read-out; tokens may come as whole floating-point numbers."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.table(x.long())
        return self.read(torch.tanh(h.mean(1) if h.ndim == 3 else h))


class LoRA(nn.Module):
    def __init__(self, d: int, o: int, rank: int = 1) -> None:
        super().__init__()
        self.base = nn.Linear(d, o).requires_grad_(False)
        self.a, self.b = nn.Parameter(torch.randn(rank, d)), nn.Parameter(torch.zeros(o, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.a.T @ self.b.T


class Tied(Body):
    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.table(x.long()).mean(1)) @ self.table.weight.T


class DropPath(nn.Module):
    """Stochastic depth, only while training."""

    def __init__(self, layer: nn.Module, p: float = 0.1) -> None:
        super().__init__()
        self.layer, self.p = layer, p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x + self.layer(x)
        keep = torch.rand(len(x), 1) > self.p
        return x + self.layer(x) * keep / (1 - self.p)


class Checkpointed(nn.Module):
    def __init__(self, layer: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.layer, self.reentrant = layer, reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.layer, x, use_reentrant=self.reentrant)


class Reversal(torch.autograd.Function):
    """The identity, whose gradient is turned round, as in domain adaptation."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, g):
        return -g


class OldReversal(torch.autograd.Function):
    """The same as most people have it: without ``setup_context``."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -g


class Reversed(Body):
    function: type | None = Reversal

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(x))
        return self.read(h if self.function is None else self.function.apply(h))


class InPlace(Body):
    def forward(self, x: Tensor) -> Tensor:
        x /= 2
        return self.read(self.first(x).tanh_())


class Gated(Body):
    """Half of it is computed under ``no_grad``: a constant at every order."""

    constant: bool = False

    def forward(self, x: Tensor) -> Tensor:
        if self.constant:
            gate = self.kept(x)
        else:
            with torch.no_grad():
                gate = self.gate(x).sigmoid()
        return self.read(self.first(x).tanh() * gate)


def _without_reversal(model: nn.Module) -> nn.Module:
    model.function = None
    return model


def _held(model: Gated) -> nn.Module:
    layer = nn.Linear(3, 4).double()
    layer.load_state_dict(model.gate.state_dict())
    frozen = layer.requires_grad_(False)
    model.constant, model.__dict__["kept"] = True, lambda x: frozen(x).sigmoid()
    return model


def _shortened(model: Words) -> nn.Module:
    table = model.table
    with torch.no_grad():
        table(torch.arange(WORDS))  # writes the rows as its forward leaves them
    table.max_norm = None
    return model


def _plain_table(model: Words) -> nn.Module:
    model.table.sparse = model.table.scale_grad_by_freq = False
    return model


def _pruned() -> nn.Module:
    net = _mlp()
    prune.random_unstructured(net[0], "weight", 0.5)
    return net


def _mlp(middle: nn.Module | None = None, first: Callable[[nn.Linear], nn.Module] = lambda layer: layer) -> nn.Module:
    between = [] if middle is None else [middle]
    return nn.Sequential(first(nn.Linear(3, 4)), *between, nn.Tanh(), nn.Linear(4, 3))


def _picture(*norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), *norm, nn.GELU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 3))


def _sequence(*norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv1d(2, 4, 2), *norm, nn.Tanh(), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 3))


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(4, 2, 3, 0.0, activation="gelu", batch_first=True)
    return Encoder(encode=nn.TransformerEncoder(layer, 1), read=nn.Linear(4, 3))


def _words(table: nn.Module) -> nn.Module:
    return Words(table=table, read=nn.Linear(3, 3))


def _reversed(function: type) -> Make:
    def make() -> nn.Module:
        net = Reversed(first=nn.Linear(3, 4), read=nn.Linear(4, 3))
        net.function = function
        return net

    return make


def _checkpointed(reentrant: bool) -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 4), Checkpointed(nn.Sequential(nn.Tanh(), nn.Linear(4, 4)), reentrant), nn.Tanh(), nn.Linear(4, 3)
    )


FAMILIES: dict[str, Family] = {
    "mlp": Family(_mlp),
    "cnn": Family(_picture, (1, 6, 6)),
    "BatchNorm, evaluation mode": Family(lambda: _mlp(nn.BatchNorm1d(4))),
    "LayerNorm, class": Family(lambda: _mlp(nn.LayerNorm(4))),
    "LayerNorm, subclass": Family(lambda: _sequence(ChannelsFirst(4)), (2, 5)),
    "LayerNorm, function": Family(lambda: NormFunction(first=nn.Linear(3, 4), read=nn.Linear(4, 3))),
    "GroupNorm": Family(lambda: _sequence(nn.GroupNorm(2, 4)), (2, 5)),
    "RMSNorm": Family(lambda: _mlp(nn.RMSNorm(4))),
    "InstanceNorm": Family(lambda: _picture(nn.InstanceNorm2d(2, affine=True)), (1, 6, 6)),
    "weight_norm": Family(lambda: _mlp(first=parametrizations.weight_norm)),
    "weight_norm, old": Family(lambda: _mlp(first=nn.utils.weight_norm)),
    "spectral_norm, evaluation mode": Family(lambda: _mlp(first=parametrizations.spectral_norm)),
    "pruned": Family(_pruned),
    "attention": Family(
        lambda: Attention(attend=nn.MultiheadAttention(4, 2, batch_first=True), read=nn.Linear(4, 3)), (3, 4)
    ),
    "transformer encoder": Family(_encoder, (3, 4)),
    "LSTM": Family(lambda: Recurrent(cell=nn.LSTM(3, 2, batch_first=True), read=nn.Linear(2, 3)), (4, 3)),
    "GRU": Family(lambda: Recurrent(cell=nn.GRU(3, 2, batch_first=True), read=nn.Linear(2, 3)), (4, 3)),
    "embedding bag": Family(lambda: _words(nn.EmbeddingBag(WORDS, 3)), None),
    "LoRA on a frozen base": Family(lambda: nn.Sequential(LoRA(3, 4), nn.Tanh(), LoRA(4, 3))),
    "tied embeddings": Family(lambda: Tied(table=nn.Embedding(WORDS, 3)), None),
    "sparse embedding": Family(lambda: _words(nn.Embedding(WORDS, 3, sparse=True)), None, _plain_table),
    "max_norm embedding, short rows": Family(lambda: _words(nn.Embedding(WORDS, 3, max_norm=9.0)), None, _shortened),
    "max_norm embedding, rows at the limit": Family(
        lambda: _words(nn.Embedding(WORDS, 3, max_norm=0.7)), None, _shortened
    ),
    "scale_grad_by_freq": Family(lambda: _words(nn.Embedding(WORDS, 3, scale_grad_by_freq=True)), None, _plain_table),
    "half precision": Family(_mlp, half=True),
    "DropPath, evaluation mode": Family(lambda: _mlp(DropPath(nn.Linear(4, 4)))),
    "activation checkpointing": Family(lambda: _checkpointed(False)),
    "activation checkpointing, reentrant": Family(lambda: _checkpointed(True)),
    "gradient reversal": Family(_reversed(Reversal), twin=_without_reversal),
    "gradient reversal, old style": Family(_reversed(OldReversal), twin=_without_reversal),
    "in-place first layer": Family(lambda: InPlace(first=nn.Linear(3, 4), read=nn.Linear(4, 3))),
    "part under no_grad": Family(
        lambda: Gated(gate=nn.Linear(3, 4), first=nn.Linear(3, 4), read=nn.Linear(4, 3)), twin=_held
    ),
}
