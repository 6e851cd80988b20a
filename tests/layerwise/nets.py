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


class Attends(nn.Module):
    """Embedding, ``nn.MultiheadAttention`` with a mask of some kind, and a read-out, of its weights too on request."""

    def __init__(self, mask=None, *, sizes=None, weights=None, **options):
        super().__init__()
        self.embedding, self.read = nn.Embedding(7, 4), nn.Linear(4, 3)
        self.attention = nn.MultiheadAttention(
            4, 2, **dict(zip(("kdim", "vdim"), sizes or (), strict=False)), **options
        )
        self.other = nn.ModuleList(nn.Linear(4, size) for size in sizes or ())
        self.mask, self.weights = mask, weights

    def masks(self, tokens: Tensor, like: Tensor) -> dict[str, Tensor | bool]:
        """Return masks of truth values, of numbers, and of numbers by example and head."""
        n, T = tokens.shape
        later = torch.ones(T, T, dtype=torch.bool, device=tokens.device).triu(1)
        padding = (tokens == 0) & (torch.arange(T, device=tokens.device) > 0)
        return {
            None: {},
            "causal": {"attn_mask": later, "is_causal": True},
            "padding": {"attn_mask": later, "key_padding_mask": padding},
            "numbers": {"attn_mask": later.to(like), "key_padding_mask": padding.to(like) / 3},
            "heads": {"attn_mask": (tokens[:, None, None] + torch.arange(2, device=tokens.device)[:, None, None]).expand(n, 2, T, T).flatten(0, 1).to(like) / 5},
        }[self.mask]  # fmt: skip

    def forward(self, tokens: Tensor) -> Tensor:
        h = torch.tanh(self.embedding(tokens))
        inputs = [h, *(layer(h) for layer in self.other)] if self.other else [h, h, h]
        if not self.attention.batch_first:
            inputs = [part.transpose(0, 1) for part in inputs]
        how = {"need_weights": self.weights is not None, "average_attn_weights": self.weights != "each"}
        out, weights = self.attention(*inputs, **self.masks(tokens, h), **how)
        out = self.read(torch.tanh(out.mean(1 if self.attention.batch_first else 0)))
        return out if weights is None else torch.cat([out, weights.flatten(1)[:, :6]], dim=1)


class Places(nn.Module):
    """Embeddings of tokens and of their places, whose table is looked up once for all examples."""

    def __init__(self, places="row"):
        super().__init__()
        self.embedding, self.places, self.read = nn.Embedding(7, 4), nn.Embedding(6, 4), nn.Linear(4, 3)
        self.kind = places

    def forward(self, tokens: Tensor) -> Tensor:
        at = torch.arange(tokens.shape[1], device=tokens.device)
        if self.kind == "twice":
            h = self.embedding(tokens) * self.places(at) + self.places(at + 1)
        elif self.kind == "batch of one":
            h = self.embedding(tokens) + self.places(at[None])
        elif self.kind == "turned":  # a table [T, d] and nothing else
            h = self.embedding(tokens) + self.places(at).t().t()
        else:
            h = self.embedding(tokens) + self.places(at)
        return self.read(torch.tanh(h).mean(1))


class Encoder(nn.Module):
    """Two of torch's own transformer layers, the first with its norms in front."""

    def __init__(self):
        super().__init__()
        self.embedding, self.read = nn.Embedding(7, 4), nn.Linear(4, 3)
        self.first = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, norm_first=True, activation="gelu")
        self.second = nn.TransformerEncoderLayer(4, 1, 6, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1], dtype=self.read.weight.dtype)
        h = self.first(self.embedding(tokens), mask, is_causal=True)
        return self.read(self.second(h).mean(1))


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
    "tied": (lambda: Text(tied=True), tokens()),
    "attention": (lambda: Attends(batch_first=True), tokens()),
    "attention, causal": (lambda: Attends("causal", batch_first=True), tokens()),
    "attention, sequence first": (lambda: Attends("padding", weights="mean"), tokens()),
    "attention, masks of numbers": (lambda: Attends("numbers", bias=False), tokens()),
    "attention, a mask a head": (lambda: Attends("heads", batch_first=True, weights="each"), tokens()),
    "attention to others": (lambda: Attends(sizes=(3, 5), batch_first=True), tokens()),
    "attention to others of one size": (lambda: Attends(sizes=(4, 4), weights="mean"), tokens()),
    "encoder layers": (Encoder, tokens()),
    "places": (Places, tokens()),
    "places, as many as examples": (Places, tokens(n=6, length=6)),
    "places in a batch of one": (lambda: Places("batch of one"), tokens()),
    "places looked up twice": (lambda: Places("twice"), tokens()),
}  # fmt: skip

# name: (model, x, parameters that fall back)
FALLBACK = {
    "attention with a key of its own": (
        lambda: Attends(batch_first=True, add_bias_kv=True), tokens(),
        [f"attention.{each}" for each in ("in_proj_weight", "in_proj_bias", "bias_k", "bias_v", "out_proj.weight", "out_proj.bias")],
    ),
    "sequence first": (lambda: Text(sequence_first=True), tokens(), ["mix.weight"]),
    "places turned": (lambda: Places("turned"), tokens(), ["places.weight"]),
    "unknown": (lambda: nn.Sequential(nn.Linear(4, 4), nn.PReLU(4), nn.Linear(4, 3)), normal(7, 4), ["1.weight"]),
    "hidden use": (Hidden, normal(7, 4), ["inner.weight", "scale"]),
    "recurrent": (
        Recurrent,
        normal(7, 4, 3),
        ["cell.weight_ih_l0", "cell.weight_hh_l0", "cell.bias_ih_l0", "cell.bias_hh_l0"],
    ),
}  # fmt: skip


def jacobian(parameters: Parameters, x: Tensor, cotangents: Tensor) -> Tensor:
    """Return d (c_i . f(x_i)) / d theta [n, p], one example at a time by reverse mode; the oracle of the room."""
    rows = [
        torch.autograd.functional.jacobian(
            lambda theta, one=one, c=c: (parameters.outputs(theta, one[None])[0] * c).sum(), parameters.theta
        )
        for one, c in zip(x, cotangents, strict=True)
    ]
    return torch.stack(rows)
