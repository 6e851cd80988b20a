"""Small language models, their data, and the gradients of their tokens one at a time."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import explainlib as xl
from explainlib.datasets import Examples

V, T = 7, 5


class Attention(nn.Module):
    """Causal attention by linear layers."""

    def __init__(self, d: int, heads: int) -> None:
        """Make two linear layers."""
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(d, 3 * d), nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mixed positions [n, T, d]."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        weights = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(later, -torch.inf).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class Gpt(nn.Module):
    """Embeddings of tokens and places, attention and a perceptron before a read-out of every position."""

    def __init__(self, d: int = 4, blocks: int = 1, *, tokens: int = V, length: int = T, tied: bool = False) -> None:
        """Make the layers; a tied read-out has the table's weight and no bias."""
        super().__init__()
        self.table, self.places = nn.Embedding(tokens, d), nn.Embedding(length, d)
        self.attention = nn.ModuleList(Attention(d, 2) for _ in range(blocks))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d)) for _ in range(blocks)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(d) for _ in range(2 * blocks + 1))
        self.read = nn.Linear(d, tokens, bias=False)
        if tied:
            self.read.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits [n, T V]."""
        h = self.table(ids) + self.places(torch.arange(ids.shape[1], device=ids.device).expand_as(ids))
        for at, (attention, mlp) in enumerate(zip(self.attention, self.mlp, strict=True)):
            h = h + attention(self.norms[2 * at](h))
            h = h + mlp(self.norms[2 * at + 1](h))
        return self.read(self.norms[-1](h)).flatten(1)


class TorchGpt(nn.Module):
    """The same of torch's own layers; the places are looked up once for all sequences."""

    def __init__(self, d: int = 4, blocks: int = 1, *, tokens: int = V, length: int = T, tied: bool = False) -> None:
        """Make the layers; a tied read-out has the table's weight and no bias."""
        super().__init__()
        self.table, self.places = nn.Embedding(tokens, d), nn.Embedding(length, d)
        layer = {"batch_first": True, "norm_first": True, "activation": "gelu"}
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(d, 2, 2 * d, **layer) for _ in range(blocks))
        self.norm, self.read = nn.LayerNorm(d), nn.Linear(d, tokens, bias=False)
        if tied:
            self.read.weight = self.table.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits [n, T V]."""
        h = self.table(ids) + self.places(torch.arange(ids.shape[1], device=ids.device))
        later = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool, device=ids.device).triu(1)
        for block in self.blocks:
            h = block(h, later, is_causal=True)
        return self.read(self.norm(h)).flatten(1)


class Reader(nn.Module):
    """A table of words that is not trained, and a read-out of each position: convex in what is trained."""

    def __init__(self) -> None:
        """Make both layers."""
        super().__init__()
        self.table, self.read = nn.Embedding(V, 2), nn.Linear(2, V)
        self.table.requires_grad_(False)

    def forward(self, ids: Tensor) -> Tensor:
        """Return logits [n, T V]."""
        return self.read(self.table(ids).cumsum(1)).flatten(1)


def seeded(make, seed: int = 0) -> nn.Module:
    """Return make() in float64 and evaluation mode, its weights from a seed and its norms not trivial."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = make().double().eval()
        for layer in net.modules():
            if isinstance(layer, nn.LayerNorm):
                nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
        return net


def sentences(n: int, *, tokens: int = V, length: int = T, seed: int = 0) -> Examples:
    """Return n random sequences with the next tokens as targets, some of which are ignored."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(tokens, (n, length + 1), generator=generator)
    y = ids[:, 1:].clone()
    y[:, 1] = -100
    y[0, 2:] = -100
    return Examples(ids[:, :-1], y)


def gpt_risk(n: int = 12, *, make=Gpt, l2: float = 0.05, parameters="all", **options) -> xl.Risk:
    """Return the risk of a small transformer somewhere, not at a minimum."""
    net = seeded(lambda: make(**options))
    return xl.Risk(net, sentences(n), loss="token_cross_entropy", l2=l2, parameters=parameters)


def token_gradients(risk: xl.Risk, examples: Examples) -> Tensor:
    """Return the gradient of every token's own loss [n, T, p], one backward pass at a time; zero where it is ignored."""
    found = risk.theta.new_zeros(*examples.y.shape, risk.p)
    for i, s in (examples.y != -100).nonzero().tolist():
        theta = risk.theta.clone().requires_grad_()
        logits = risk.parameters.outputs(theta, examples.x[i : i + 1]).view(examples.y.shape[1], -1)
        found[i, s] = torch.autograd.grad(cross_entropy(logits[s : s + 1], examples.y[i, s : s + 1]), theta)[0]
    return found


def by_tokens(examples: Examples) -> Examples:
    """Return each example once for every token with a target, all other targets ignored."""
    i, s = (examples.y != -100).nonzero(as_tuple=True)
    y = torch.full((len(i), examples.y.shape[1]), -100)
    y[torch.arange(len(i)), s] = examples.y[i, s]
    return Examples(examples.x[i], y)


def token_losses(risk: xl.Risk, examples: Examples) -> Tensor:
    """Return each token's loss [n, T], 0 where it is ignored."""
    logits = risk.outputs(examples).view(*examples.y.shape, -1).mT
    return cross_entropy(logits, examples.y, reduction="none")
